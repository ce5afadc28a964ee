-- moonpool.cli.serve: `moonpool serve SCRIPT.lua`: HTTP requests handled by the script's function.
--
-- A signal cancels only the wait for the server's end, not the tasks that answer: those have the grace
-- period. A second signal ends everything.
local core = require "moonpool.core"
local parser = require "moonpool.cli.parser"

local DEFAULT_LISTEN = "127.0.0.1:8080"
local DEFAULT_GRACE = 10 -- s

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

Examples:
  moonpool serve gateway.lua --listen 127.0.0.1:8080
  moonpool serve gateway.lua --listen unix:/run/gateway.sock --grace 30 http://gpu:8080]],
}

function M.configure(p)
  p:argument("script", "Returns the handler, or starts its server itself."):argname "SCRIPT.lua"
  p:argument("args", "Arguments of the script."):args "*"
  p:option("--listen", ("HOST:PORT (port 0: a free one) or unix:/path (default %s)."):format(DEFAULT_LISTEN))
    :argname "WHERE"
  p:option("--grace", ("Seconds for requests under way when it ends (default %d)."):format(DEFAULT_GRACE))
    :argname "SECONDS":convert(parser.seconds)
end

local function fail(message)
  parser.stop(1, "moonpool serve: " .. tostring(message) .. "\n")
end

-- ---- the end ------------------------------------------------------------------------------------

local function wait_for_all(servers, wait)
  core.scope(function(scope)
    core.set_interrupt(scope, true)
    for _, server in ipairs(servers) do
      scope:spawn(wait, server)
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

-- Until all servers are closed, or a signal asks for it.
local function run_until_told(servers, grace, wait)
  local ok, err = pcall(wait_for_all, servers, wait)
  if ok then
    return
  elseif not core.interrupted() then
    error(err, 0)
  end
  close_all(servers, grace)
  core.interrupt_over()
end

-- ---- the script ---------------------------------------------------------------------------------

local function bare(message)
  return (tostring(message):gsub("^[^\n:]+:%d+: ", ""))
end

-- moonpool.serve as the script sees it: servers are known, say where they listen, and their wait
-- ends as the command's does.
local function watched_serve(args, servers)
  local serve = require("moonpool.serve").serve
  return function(opts)
    local given = {}
    for name, value in pairs(opts) do
      given[name] = value
    end
    local first = #servers == 0
    given.listen = first and args.listen or opts.listen or DEFAULT_LISTEN
    local ok, server, err = pcall(serve, given)
    if not ok then
      error(bare(server), 2)
    elseif not server then
      return nil, err
    end
    servers[#servers + 1] = server
    servers.wait = servers.wait or server.wait
    function server.wait()
      run_until_told({ server }, args.grace, servers.wait)
    end
    io.stdout:write("listening on ", server.url, "\n")
    io.stdout:flush()
    return server
  end
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

local function run_script(args, serve)
  local chunk, err = loadfile(args.script)
  if not chunk then
    fail(err)
  end
  arg = { [0] = args.script, table.unpack(args.args) } -- luacheck: ignore
  local library = require "moonpool"
  library.serve = serve
  moonpool = library -- luacheck: ignore
  return chunk(table.unpack(args.args))
end

-- A wrong option in the table that the script returned has no line to blame.
local function start(serve, opts)
  local ok, server, err = pcall(serve, opts)
  if not ok then
    fail(bare(server))
  elseif not server then
    fail(err)
  end
end

function M.run(args)
  args.grace = args.grace or DEFAULT_GRACE
  local servers = {}
  local serve = watched_serve(args, servers)
  local opts = options_of(run_script(args, serve), servers)
  if opts then
    start(serve, opts)
  end
  run_until_told(servers, args.grace, servers.wait)
  return 0
end

return M
