-- server.lua - tests/bench/replay.c as a process of its own, for the benches written in Lua.
local M = {}

--- Starts it, behind the words of prefix where given; { port, pid, pipe }.
function M.start(build, arguments, prefix)
  local pipe = assert(io.popen(("echo $$; exec %s'%s/bench/replay' %s"):format(prefix and prefix .. " " or "",
    build, arguments)))
  return { pid = pipe:read "l", port = pipe:read "l", pipe = pipe }
end

function M.stop(server)
  os.execute("kill " .. server.pid)
  server.pipe:close()
end

return M
