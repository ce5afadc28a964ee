-- moonpool.cli.serving: what the commands that serve have in common: the line that says
-- where, and the end.
--
-- A signal cancels only the wait for the server's end, not the tasks that answer: those have the grace
-- period. A second signal ends everything.
local core = require "moonpool.core"
local parser = require "moonpool.cli.parser"

local M = {}

M.listen = "127.0.0.1:8080"
M.grace = 10 -- s

function M.configure(p)
  p:option("--listen", ("HOST:PORT (port 0: a free one) or unix:/path (default %s)."):format(M.listen))
    :argname "WHERE"
  p:option("--grace", ("Seconds for requests under way when it ends (default %d)."):format(M.grace))
    :argname "SECONDS":convert(parser.seconds)
end

local function wait_for_all(servers)
  core.scope(function(scope)
    core.set_interrupt(scope, true)
    for _, server in ipairs(servers) do
      scope:spawn(function()
        server.awaited = true
        server:wait()
      end)
    end
  end)
end

local function close_all(servers, grace)
  core.scope(function(scope)
    for _, server in ipairs(servers) do
      scope:spawn(server.close, server, grace)
    end
  end)
end

--- Until all servers are closed, or a signal asks for it; then ending() is called before they close.
function M.run_until_told(servers, grace, ending)
  local ok, err = pcall(wait_for_all, servers)
  if ok then
    return
  elseif not core.interrupted() then
    error(err, 0)
  end
  if ending then
    ending()
  end
  close_all(servers, grace or M.grace)
  core.interrupt_over()
end

--- Tells the world where.
function M.announce(server)
  io.stdout:write("listening on ", server.url, "\n")
  io.stdout:flush()
end

return M
