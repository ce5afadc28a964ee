-- moonpool.cli.serve: `moonpool serve SCRIPT.lua`: HTTP requests handled by the script's function.
local parser = require "moonpool.cli.parser"
local serve = require "moonpool.serve"
local serving = require "moonpool.cli.serving"

local DEFAULT_MEMORY = 64 << 20

local M = {
  name = "serve",
  summary = "Answer HTTP requests by a Lua script.",
  epilog = [[
SCRIPT.lua returns its handler, or a table {handler=, ...} as moonpool.serve takes it, or calls
moonpool.serve itself. The handler gets the request and returns the reply; it may wait:

  local client = moonpool.client { base_url = "http://127.0.0.1:8089" }
  return function(req)
    local res, err = client:embed { input = req:json().texts }
    return res and { json = { rows = #res } } or { status = 502, json = { error = err.kind } }
  end

Prints "listening on URL" once it is ready. SIGTERM and Ctrl+C take no more requests and let those
under way finish; a second one ends at once. Exit status: 0 stopped, 1 error, 2 wrong use.

With --restricted the script may use moonpool, string, table, math, utf8, coroutine and the time; no file,
no process, no environment, no bytecode, and no loopback or private address but those of --allow. Its
handler has so much memory and time; what it spends is answered 500, and the others go on.

Examples:
  moonpool serve theirs.lua --restricted --allow 127.0.0.1:8089
  moonpool serve gateway.lua --listen 127.0.0.1:8080
  moonpool serve gateway.lua --listen unix:/run/gateway.sock --grace 30 http://gpu:8080]],
}

function M.configure(p)
  p:argument("script", "Returns the handler, or starts its server itself."):argname "SCRIPT.lua"
  p:argument("args", "Arguments of the script."):args "*"
  serving.configure(p)
  p:flag("--restricted", "For scripts of others: no files, processes, environment, private addresses.")
  p:option("--memory", "Of a restricted script (default 64M)."):argname "BYTES":convert(parser.bytes)
  p:option("--handler-time", "Seconds that a restricted handler may compute (default 1)."):argname "SECONDS"
    :convert(parser.positive)
  p:option("--handler-wall", "Seconds that a restricted handler may take in all (default 30).")
    :argname "SECONDS":convert(parser.positive)
  p:option("--allow", "Private address that a restricted script may connect to; may be repeated.")
    :argname "ADDRESS[:PORT]":count "*"
end

local function fail(message)
  parser.stop(1, "moonpool serve: " .. tostring(message) .. "\n")
end

-- ---- the script ---------------------------------------------------------------------------------

local function bare(message)
  return (tostring(message):gsub("^[^\n:]+:%d+: ", ""))
end

-- The servers that the script makes: the first listens where the command line says, each tells where,
-- and the wait for one ends as the command does.
local function host(args, servers)
  return {
    listen = function(given)
      return #servers == 0 and args.listen or given or serving.listen
    end,
    opened = function(server)
      servers[#servers + 1] = server
      serving.announce(server)
    end,
    wait = function(server)
      serving.run_until_told({ server }, args.grace)
    end,
  }
end

-- What the script returned, as options of moonpool.serve; nil when it has its server already.
local function options_of(value, servers)
  if type(value) == "function" then
    return { handler = value }
  elseif type(value) == "table" and getmetatable(value) == nil then
    return value
  elseif #servers == 0 then
    fail "the script must return its handler: return function(req) return { json = ... } end"
  end
end

local function run_script(args)
  local chunk, err = loadfile(args.script)
  if not chunk then
    fail(err)
  end
  arg = { [0] = args.script, table.unpack(args.args) } -- luacheck: ignore
  moonpool = require "moonpool" -- luacheck: ignore
  return chunk(table.unpack(args.args))
end

-- A script that is not ours returns its handler and nothing else.
local function restricted_options(args)
  local profile = require "moonpool.cli.restricted"
  local file, why = io.open(args.script, "rb")
  if not file then
    fail(why)
  end
  local text = file:read "a"
  file:close()
  local ok, env = pcall(profile.prepare, { memory = args.memory or DEFAULT_MEMORY, allow = args.allow })
  if not ok then
    parser.usage_error("moonpool serve", "--allow: " .. bare(env))
  end
  local time = args.handler_time or 1
  local value
  ok, value, why = pcall(profile.run, env, text, "@" .. args.script, time)
  if not ok or value == nil and why ~= nil then
    fail(ok and why or value)
  end
  if type(value) == "table" then
    value = rawget(value, "handler")
  end
  if type(value) ~= "function" then
    fail "a restricted script must return its handler: return function(req) return { json = ... } end"
  end
  return {
    handler = profile.handler(value, time, args.handler_wall or 30),
    max_body = (args.memory or DEFAULT_MEMORY) // 8,
  }
end

-- A wrong option in the table that the script returned has no line to blame.
local function start(opts)
  local ok, server, err = pcall(serve.serve, opts)
  if not ok then
    fail(bare(server))
  elseif not server then
    fail(err)
  end
end

function M.run(args)
  local servers = {}
  serve.hosted(host(args, servers))
  local opts = args.restricted and restricted_options(args) or options_of(run_script(args), servers)
  if opts then
    start(opts)
  end
  serving.run_until_told(servers, args.grace)
  return 0
end

return M
