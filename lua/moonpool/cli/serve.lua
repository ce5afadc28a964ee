-- moonpool.cli.serve: `moonpool serve SCRIPT.lua`: HTTP requests handled by the script's function.

local M = { name = "serve", summary = "Answer HTTP requests by a Lua script." }

function M.configure(parser)
  parser:argument("script", "returns the handler, or a table {handler=, ...} as moonpool.serve takes it")
    :argname "SCRIPT.lua"
  parser:argument("args", "arguments of the script"):args "*"
  parser:option("--listen", "HOST:PORT (port 0: a free one) or unix:/path (127.0.0.1:8080)")
    :argname "WHERE"
  parser:option("--grace", "seconds for open requests when it ends (0)"):argname("SECONDS")
    :convert(tonumber)
end

-- What the script returned, as options of moonpool.serve.
local function options_of(value)
  if type(value) == "function" then
    return { handler = value }
  elseif type(value) == "table" then
    local opts = {}
    for name, option in pairs(value) do
      opts[name] = option
    end
    return opts
  end
  return nil, "the script must return its handler: return function(req) return { json = ... } end"
end

local function load_script(args)
  local chunk, err = loadfile(args.script)
  if not chunk then
    return nil, err
  end
  arg = { [0] = args.script, table.unpack(args.args) } -- luacheck: ignore
  moonpool = require "moonpool" -- luacheck: ignore
  return options_of(chunk(table.unpack(args.args)))
end

local function complain(err)
  io.stderr:write("moonpool serve: ", tostring(err), "\n")
  return 1
end

function M.run(args)
  local core = require "moonpool.core"
  local opts, err = load_script(args)
  if not opts then
    return complain(err)
  end
  opts.listen = args.listen or opts.listen or "127.0.0.1:8080"
  local ok, server, why = pcall(require("moonpool.serve").serve, opts)
  if not ok or not server then
    return complain(ok and why or server)
  end
  io.stdout:write("listening on ", server.url, "\n")
  io.stdout:flush()
  local ended, reason = pcall(server.wait, server)
  if not ended then
    core.shield(server.close, server, args.grace)
    error(reason, 0)
  end
  return 0
end

return M
