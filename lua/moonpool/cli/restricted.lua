-- moonpool.cli.restricted: scripts that are not ours. No file, no process, no environment, no bytecode, no
-- private address; so much memory, and so much time for each request.
--
-- A script runs in an environment of its own and gets copies of what it may use; the library keeps its.
-- Time is counted in instructions (task/limit.c). When it is spent the error comes back whatever catches
-- it, so all that catches errors is wrapped here. What runs in C without counting is bounded by size.
local core = require "moonpool.core"
local json = require "moonpool.json"
local moonpool = require "moonpool"
local options = require "moonpool.options"

local M = {}

local STEPS = 50000000 -- instructions that stand for a second
local MAX_COST = 1e9   -- of a pattern: steps that its matching may take, at worst
local MAX_REP = 1 << 24 -- bytes

local spent = core.spent
local gsub, byte = string.gsub, string.byte -- strings' own methods are about to be checked
local CARET = byte "^"

-- ---- what catches errors ----------------------------------------------------------------------

local function passed(ok, err, ...)
  if not ok and err == spent then
    error(spent, 0)
  end
  return ok, err, ...
end

local function safe_pcall(f, ...)
  return passed(pcall(f, ...))
end

-- A handler may catch it too, so it runs only where it is another error.
local function safe_xpcall(f, handler, ...)
  return passed(xpcall(f, function(err)
    if err == spent then
      return err
    end
    return handler(err)
  end, ...))
end

local function coroutines()
  local co = {}
  for name, value in pairs(coroutine) do
    co[name] = value
  end
  co.resume = function(...)
    return passed(coroutine.resume(...))
  end
  co.close = function(...)
    return passed(coroutine.close(...))
  end
  return co
end

-- ---- what runs long in C ----------------------------------------------------------------------

-- A pattern may try each of its repetitions at each length: n to the power of their number.
local function check_pattern(s, pattern, name)
  s, pattern = tostring(s), tostring(pattern)
  local _, repeats = gsub(pattern, "[*+?-]", "")
  local power = repeats + (byte(pattern) == CARET and 0 or 1)
  if #s > 32 and power > 1 and (#s) ^ math.min(power, 20) > MAX_COST then
    error(("%s: this pattern is too much work for a text of %d bytes"):format(name, #s), 3)
  end
end

local function strings()
  local lib = {}
  for name, value in pairs(string) do
    lib[name] = value
  end
  lib.dump = nil
  for _, name in ipairs { "match", "gmatch", "gsub" } do
    local plain = string[name]
    lib[name] = function(s, pattern, ...)
      check_pattern(s, pattern, name)
      return plain(s, pattern, ...)
    end
  end
  function lib.find(s, pattern, init, literal)
    if not literal then
      check_pattern(s, pattern, "find")
    end
    return string.find(s, pattern, init, literal)
  end
  function lib.rep(s, n, sep)
    local bytes = (#tostring(s) + #(sep or "")) * (math.tointeger(tonumber(n)) or 0)
    if bytes > MAX_REP then
      error("rep: the result would be too large", 2)
    end
    return string.rep(s, n, sep)
  end
  return lib
end

local function tables()
  local lib = {}
  for name, value in pairs(table) do
    lib[name] = value
  end
  function lib.move(a, from, to, ...)
    if (tonumber(to) or 0) - (tonumber(from) or 0) > 1e6 then
      error("move: too many elements", 2)
    end
    return table.move(a, from, to, ...)
  end
  function lib.concat(list, sep, i, j)
    local n = #list
    if n * #(sep or "") > MAX_REP then
      error("concat: the result would be too large", 2)
    end
    return table.concat(list, sep, i, j)
  end
  return lib
end

-- ---- the library ------------------------------------------------------------------------------

local function refuse(where, what)
  error(("%s: %s is not allowed in a restricted script"):format(where, what), 4)
end

local function check_key(key, where)
  if type(key) == "table" then
    refuse(where, "a key from a file or the environment")
  end
end

local function check_place(url, where)
  if type(url) == "string" and url:find "^%s*[uU][nN][iI][xX]:" then
    refuse(where, "a unix socket")
  end
end

-- Files, the environment and proxies are the host's.
local function checked_client(o)
  local all = { proxy = false }
  if type(o) == "string" then
    all.base_url = o
  elseif type(o) == "table" then
    for k, v in next, o do
      all[k] = v
    end
  end
  for _, name in ipairs { "tls", "proxies", "client_wrapper", "pool" } do
    local own = name == "pool" and type(all.pool) == "table" and getmetatable(all.pool) == nil
    if all[name] ~= nil and not own then
      refuse("client", name)
    end
  end
  if all.proxy ~= false then
    refuse("client", "proxy")
  end
  if type(all.verify_ssl) == "string" then
    refuse("client", "a certificate file")
  end
  check_key(all.api_key, "client")
  check_place(all.base_url, "client")
  local endpoints = all.endpoints or type(all.endpoint_pool) == "table" and all.endpoint_pool.endpoints or {}
  for _, endpoint in ipairs(type(endpoints) == "table" and endpoints or {}) do
    if type(endpoint) == "table" then
      check_key(endpoint.api_key, "client: endpoints")
      check_place(endpoint.base_url, "client: endpoints")
    end
  end
  return moonpool.client(all)
end

local MAX_FLOATS = 1 << 22

local function matrices()
  return {
    from = function(rows, cols, ...)
      local n = type(rows) == "number" and rows * (tonumber(cols) or 1)
        or type(rows) == "string" and #rows // 4
        or type(rows) == "table" and #rows * #(type(rows[1]) == "table" and rows[1] or {}) or 0
      if n > MAX_FLOATS then
        error("matrix.from: more than 4,194,304 numbers", 2)
      end
      return moonpool.matrix.from(rows, cols, ...)
    end,
  }
end

local plain = {
  "sleep", "now", "timeout", "scope", "gather", "race", "map", "channel", "semaphore", "shield",
  "cancel_token", "await", "error", "is_error", "strict", "json", "timeouts", "preference", "version",
}

local function library()
  local lib = { client = checked_client, matrix = matrices() }
  for _, name in ipairs(plain) do
    lib[name] = moonpool[name]
  end
  lib.json = {}
  for name, value in pairs(json) do
    lib.json[name] = value
  end
  return lib
end

-- ---- the environment --------------------------------------------------------------------------

local globals = {
  "assert", "error", "ipairs", "next", "pairs", "rawequal", "rawget", "rawlen", "rawset", "select",
  "tonumber", "tostring", "type", "print", "_VERSION",
}

-- A finaliser would run at any time in anybody's task.
local function safe_setmetatable(value, meta)
  if type(meta) == "table" and rawget(meta, "__gc") ~= nil then
    error("setmetatable: __gc is not allowed in a restricted script", 2)
  end
  return setmetatable(value, meta)
end

-- Of what is the host's only its name is told.
local function safe_getmetatable(value)
  if type(value) ~= "table" then
    return nil
  end
  local meta = getmetatable(value)
  if type(meta) == "table" and rawget(meta, "__name") then
    return meta.__name
  end
  return meta
end

local function environment()
  local env = {
    string = strings(), table = tables(), math = math, utf8 = utf8, coroutine = coroutines(),
    os = { time = os.time, clock = os.clock, date = os.date, difftime = os.difftime },
    pcall = safe_pcall, xpcall = safe_xpcall, getmetatable = safe_getmetatable,
    setmetatable = safe_setmetatable,
  }
  for _, name in ipairs(globals) do
    env[name] = _G[name]
  end
  local maths = {}
  for name, value in pairs(math) do
    maths[name] = value
  end
  env.math = maths
  local lib = library()
  env.moonpool = lib
  env._G = env
  function env.require(name)
    if name ~= "moonpool" then
      error(("module '%s' is not there for a restricted script"):format(tostring(name)), 2)
    end
    return lib
  end
  function env.load(text, name, _, own)
    if type(text) == "function" then
      local parts = {}
      for part in text do
        parts[#parts + 1] = part
      end
      text = table.concat(parts)
    end
    return load(text, name, "t", own == nil and env or own)
  end
  function env.collectgarbage(what)
    return what == "count" and collectgarbage "count" or 0
  end
  return env
end

-- Methods of strings are the restricted ones, also where the string is the library's own.
local function restrict_strings(env)
  getmetatable "".__index = env.string
end

--- restricted.prepare { memory = bytes, allow = {addresses} }: for good; then scripts may be loaded.
function M.prepare(o)
  core.restrict_addresses(o.allow or {})
  options.no_environment()
  local env = environment()
  restrict_strings(env)
  core.limit_memory(o.memory)
  return env
end

-- ---- handlers ---------------------------------------------------------------------------------

local reply_fields = { "body", "stream", "rows", "style", "encoding_format", "model", "usage", "id" }

-- Metamethods of what a script returns must not run where nobody counts: all is read here.
local function read_reply(reply)
  if type(reply) ~= "table" then
    return reply
  end
  local copy = { status = rawget(reply, "status"), headers = rawget(reply, "headers") }
  for _, name in ipairs(reply_fields) do
    copy[name] = rawget(reply, name)
  end
  local value, vectors = rawget(reply, "json"), rawget(reply, "vectors")
  if value ~= nil then
    copy.json = json.decode(json.encode(value))
  end
  if type(vectors) == "table" then
    vectors = {
      matrix = rawget(vectors, "matrix"), model = rawget(vectors, "model"), usage = rawget(vectors, "usage"),
    }
  end
  copy.vectors = vectors
  return copy
end

-- An error as a text: its __tostring runs here too.
local function read_error(err)
  if err == spent or moonpool.is_error(err) then
    return err
  end
  return tostring(err)
end

-- A stream is asked for its chunks by the server's own task.
local function counted_stream(stream, steps)
  return function()
    core.limit_steps(steps)
    local ok, chunk = pcall(stream)
    core.limit_steps(nil)
    if not ok then
      error(chunk == spent and spent or "the stream failed", 0)
    elseif chunk ~= nil and type(chunk) ~= "string" then
      error("the stream gave no text", 0)
    end
    return chunk
  end
end

--- A handler that has `time` seconds to compute and `wall` in all for each request.
function M.handler(handler, time, wall)
  local steps = math.max(1, math.floor(time * STEPS))
  local function limited(req)
    core.limit_steps(steps)
    local ok, reply = pcall(handler, req)
    if not ok then
      error(read_error(reply), 0)
    end
    return read_reply(reply)
  end
  return function(req)
    local reply, err = core.timeout(wall, limited, req)
    if reply == nil and err ~= nil then
      error(err, 0)
    end
    if type(reply) == "table" and reply.stream ~= nil then
      reply.stream = counted_stream(reply.stream, steps)
    end
    return reply
  end
end

--- Runs the text of a script in its environment, within that time; what it returns.
function M.run(env, text, name, time)
  local chunk, err = load(text, name, "t", env)
  if not chunk then
    error(err, 0)
  end
  return core.timeout(math.max(time, 1) * 10, function()
    core.limit_steps(math.max(1, math.floor(time * STEPS)))
    return chunk()
  end)
end

return M
