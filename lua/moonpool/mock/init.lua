-- moonpool.mock: a local inference server with deterministic vectors, for trying and testing.
--
-- Every dialect embeds with the same hashed n-gram model, so a text has the same vector through all
-- of them. What can go wrong is chosen by options; see parse.lua for their forms.

local core = require "moonpool.core"
local faults = require "moonpool.mock.faults"
local options = require "moonpool.options"
local quota = require "moonpool.mock.quota"
local recorder = require "moonpool.mock.recorder"
local serve = require "moonpool.serve"
local task = require "moonpool.task"

local M = {}

-- A dialect is a module: routes = {[path] = {METHOD = handler}}, patterns = {{pattern, methods}} for
-- paths with names in them, error(status, message) and fault(status), its error bodies, and
-- bad_body(why). handler(mock, body, x) returns a job {rows=, tokens=, reply = function(order)}, or nil,
-- status and body. The first dialect in this list that has a path answers it; each answers all of its
-- own under /NAME too (/tei/embed), where two want the same. body_optional: a POST may have no body;
-- open = {[path] = true}: paths that need no key; needs_key = true: one is needed even where the mock has
-- none; key(req) -> the key as it came. x.req is the request;
-- a job's headers go out with its reply.
local dialects = {
  "openai", "tei", "cohere", "azure", "voyage", "jina", "baseten", "bayt", "gemini", "ollama", "vertex",
  "bedrock", "huggingface", "mistral", "nim", "cloudflare", "pinecone", "kserve", "vllm", "llamacpp",
  "infinity", "nomic", "batch",
}

local rule = options.rule
local text_or_number = rule.either(rule.string, rule.not_negative)
local rules = {
  host = rule.text, port = rule.whole, listen = rule.text, dim = rule.count, seed = rule.whole,
  model = rule.text, api_key = rule.text, require_model = rule.boolean,
  max_client_batch = rule.count, batch_status = rule.one_of(413, 422),
  max_input_tokens = rule.count, max_request_tokens = rule.count,
  latency = text_or_number, latency_per_input = text_or_number, slow = rule.string,
  error = rule.either(rule.string, rule.table), reset = text_or_number, truncate = text_or_number,
  short = text_or_number, chunk = text_or_number, dribble = text_or_number, shuffle = rule.boolean,
  concurrency = text_or_number, quota = rule.string, outage = rule.string,
  fail_first = rule.string, stall_first = rule.string, workers = text_or_number,
  record = rule.whole, record_auth = rule.boolean, record_body = rule.boolean, hook = rule.func,
  batch_expired = text_or_number, max_body = rule.count, max_connections = rule.count,
}

local mock = {}
mock.__index = mock
mock.__name = "moonpool.mock"

-- ---- counters -----------------------------------------------------------------------------------

local function zero_stats(self)
  local net = self.server and self.server:stats()
  self.base = net or {}
  self.stats_ = {
    requests = {}, statuses = {}, inputs = 0, tokens = 0, throttled = 0,
    in_flight = self.stats_ and self.stats_.in_flight or 0, max_in_flight = 0,
    faults = { error = 0, stall = 0, reset = 0, truncate = 0, short = 0, outage = 0, quota = 0,
      concurrency = 0 },
  }
  self.since = core.now()
end

local function bump(t, key)
  t[key] = (t[key] or 0) + 1
end

--- Counters since the start or the last reset.
function mock:stats()
  local out, net = {}, self.server:stats()
  for name, value in pairs(self.stats_) do
    out[name] = value
  end
  for _, name in ipairs { "connections_opened", "disconnects", "malformed", "bytes_in", "bytes_out" } do
    out[name] = net[name] - (self.base[name] or 0)
  end
  out.connections_now = net.connections_now
  out.seconds = core.now() - self.since
  out.inference_requests = self.count
  return out
end

function mock:reset()
  zero_stats(self)
  self.recorder:clear()
end

--- The last n requests, newest last.
function mock:requests(n)
  return self.recorder:last(n)
end

-- ---- replies ------------------------------------------------------------------------------------

local function wire_fault(self, plan, body)
  local f = self.faults
  if plan.reset then
    return { cut = #body // 2, ends = "reset", chunk = f.chunk }, "reset"
  elseif plan.truncate then
    return { cut = #body // 2, ends = "close", chunk = f.chunk }, "truncate"
  elseif f.chunk or f.dribble then
    return { chunk = f.chunk, dribble = f.dribble }
  end
end

function mock:send(req, x, status, body, headers)
  headers = headers or {}
  headers["content-type"] = headers["content-type"] or "application/json"
  headers["x-request-id"] = x.id
  bump(self.stats_.statuses, tostring(status))
  if status == 429 then
    self.stats_.throttled = self.stats_.throttled + 1
  end
  local fault, name
  if x.plan then
    fault, name = wire_fault(self, x.plan, body)
  end
  if not fault then
    return core.server_reply(req, status, headers, body)
  end
  if name then
    bump(self.stats_.faults, name)
  end
  return core.server_fault(req, status, headers, body, fault)
end

function mock:fail(req, x, dialect, status, headers)
  return self:send(req, x, status, dialect.fault(status), headers)
end

-- ---- inference ----------------------------------------------------------------------------------

local function in_outage(self)
  local o = self.faults.outage
  local t = o and core.now() - self.started
  return o and t >= o.start and t < o.start + o.duration
end

local function copy(t)
  local out = {}
  for k, v in pairs(t or {}) do
    out[k] = v
  end
  return out
end

-- Whether the request may be worked on; if not, it is answered.
function mock:admit(req, x, dialect, job)
  local f, count = self.faults, self.stats_.faults
  if in_outage(self) then
    bump(count, "outage")
    if f.outage.refuse then
      core.server_fault(req, 200, nil, "", { raw = true, ends = "reset" })
    else
      self:fail(req, x, dialect, 503)
    end
    return false
  elseif f.concurrency and self.stats_.in_flight > f.concurrency.limit then
    bump(count, "concurrency")
    self:fail(req, x, dialect, f.concurrency.status)
    return false
  elseif self.quota then
    x.headers = {}
    if not self.quota:admit(job.tokens, x.headers) then
      bump(count, "quota")
      self:fail(req, x, dialect, 429, x.headers)
      return false
    end
  end
  if x.plan.error then
    bump(count, "error")
    self:fail(req, x, dialect, x.plan.error.status, copy(x.plan.error.headers))
    return false
  end
  return true
end

local function work(self, x, job)
  local seconds = x.plan.latency + (self.faults.latency_per_input or 0) * job.rows
  if x.plan.stall then
    bump(self.stats_.faults, "stall")
    seconds = seconds + x.plan.stall
  end
  if seconds > 0 then
    core.sleep(seconds)
  end
end

function mock:infer(req, x, dialect, job)
  if not self:admit(req, x, dialect, job) then
    return
  end
  local override = self.hook and self.hook(req, x.n, job)
  if override then
    x.plan.stall = override.delay
    x.plan.reset = override.reset
  end
  if self.slots then
    self.slots:with(work, self, x, job)
  else
    work(self, x, job)
  end
  if override and override.status then
    return self:send(req, x, override.status, override.body or dialect.fault(override.status),
      copy(override.headers))
  end
  if job.stream then
    return self:stream(req, x, job)
  end
  local order = faults.order(self.faults, x.plan, job.rows)
  if x.plan.short then
    bump(self.stats_.faults, "short")
  end
  local body = job.reply(order)
  self.stats_.inputs = self.stats_.inputs + job.rows
  self.stats_.tokens = self.stats_.tokens + job.tokens
  for name, value in pairs(job.headers or {}) do
    x.headers = x.headers or {}
    x.headers[name] = value
  end
  return self:send(req, x, 200, body, x.headers)
end

-- Events as they are made; a fault in the middle of a reply is not for them.
function mock:stream(req, x, job)
  self.stats_.inputs = self.stats_.inputs + job.rows
  self.stats_.tokens = self.stats_.tokens + job.tokens
  bump(self.stats_.statuses, "200")
  local headers = { ["content-type"] = "text/event-stream", ["x-request-id"] = x.id }
  local _, events = core.server_answer(req, { status = 200, headers = headers, stream = job.stream() })
  serve.pump(req, events)
end

-- A client that leaves ends this by an error from wherever it waits.
function mock:count_in_flight(req, x, dialect, job)
  local stats = self.stats_
  self.count = self.count + 1
  x.n = self.count
  x.plan = faults.plan(self.faults, self.seed, x.n)
  stats.in_flight = stats.in_flight + 1
  if stats.in_flight > stats.max_in_flight then
    stats.max_in_flight = stats.in_flight
  end
  local ok, err = pcall(self.infer, self, req, x, dialect, job)
  self.stats_.in_flight = self.stats_.in_flight - 1
  if not ok then
    error(err, 0)
  end
end

-- ---- routing ------------------------------------------------------------------------------------

local function authorized(self, req, dialect)
  if dialect.authorized then
    return dialect.authorized(self, req)
  end
  local own = dialect.key and dialect.key(req)
  if not self.api_key then
    if dialect.key then
      return (own or "") ~= ""
    end
    return not dialect.needs_key or (req:header "authorization" or ""):find "^Bearer %S" ~= nil
  elseif dialect.key then
    return own == self.api_key
  end
  local given = req:header "authorization"
  return given == "Bearer " .. self.api_key or given == "Api-Key " .. self.api_key
    or req:header "api-key" == self.api_key
end

local function read_body(req, dialect)
  local body, err = req:json()
  if type(body) == "table" and body[1] == nil then
    return body
  end
  return nil, dialect.bad_body(err and tostring(err.message) or "expected an object")
end

function mock:inference(req, x, dialect, handler)
  local body = {}
  if not authorized(self, req, dialect) and not (dialect.open and dialect.open[req.path]) then
    return self:fail(req, x, dialect, 401)
  end
  if req.method == "POST" and not (dialect.body_optional and req.body == "")
    and not (dialect.raw and dialect.raw[req.path]) then
    local status, reply
    body, status, reply = read_body(req, dialect)
    if not body then
      return self:send(req, x, status, reply)
    end
  end
  local job, status, reply, headers = handler(self, body, x)
  if not job then
    return self:send(req, x, status, reply, headers)
  elseif job.free then
    return self:send(req, x, 200, job.reply())
  end
  return self:count_in_flight(req, x, dialect, job)
end

-- Routes about the mock itself; they are not counted.
local admin_routes = {
  ["GET /stats"] = function(self)
    return self:stats()
  end,
  ["POST /stats/reset"] = function(self)
    self:reset()
    return {}
  end,
  ["GET /requests"] = function(self, req)
    local n = tonumber((req.query or ""):match "n=(%d+)")
    return core.json_array(self:requests(n))
  end,
}

local function allowed(methods)
  local list = {}
  for name in pairs(methods) do
    list[#list + 1] = name
  end
  table.sort(list)
  return table.concat(list, ", ")
end

local function match_pattern(self, path)
  for i, dialect in ipairs(self.dialects) do
    local prefix = "/" .. dialects[i]
    local own = path:sub(1, #prefix + 1) == prefix .. "/" and path:sub(#prefix + 1) or path
    for _, entry in ipairs(dialect.patterns or {}) do
      if own:find(entry[1]) then
        return { dialect = dialect, methods = entry[2] }
      end
    end
  end
end

function mock:unknown(req, x, route)
  if route then
    return self:send(req, x, 405, route.dialect.error(405, "method not allowed"),
      { allow = allowed(route.methods) })
  end
  local openai = self.dialects[1]
  return self:send(req, x, 404, openai.error(404,
    ("Invalid URL (%s %s)"):format(req.method, req.path)))
end

function mock:handle(req)
  local method, path = req.method, req.path
  local special = admin_routes[method .. " " .. path]
  if special then
    return core.server_reply(req, 200, "application/json", core.json_encode(special(self, req)))
  end
  self.serial = self.serial + 1
  local given = req:header "x-request-id"
  local x = { req = req, id = given and given:match "^[%w._:-]+$" or ("mock-%d"):format(self.serial) }
  self.recorder:add(req)
  local route = self.routes[path] or match_pattern(self, path)
  local handler = route and route.methods[method == "HEAD" and "GET" or method]
  if not handler then
    return self:unknown(req, x, route)
  end
  bump(self.stats_.requests, method .. " " .. path)
  return self:inference(req, x, route.dialect, handler)
end

-- ---- life ---------------------------------------------------------------------------------------

function mock:close(grace)
  return self.server:close(grace)
end

function mock:__close() -- what it is given besides is the error, no grace
  self:close()
end

function mock:wait()
  return self.server:wait()
end

local function make_routes(self)
  self.routes, self.dialects = {}, {}
  for i, name in ipairs(dialects) do
    local dialect = require("moonpool.mock." .. name)
    self.dialects[i] = dialect
    for path, methods in pairs(dialect.routes) do
      local route = { dialect = dialect, methods = methods }
      self.routes[path] = self.routes[path] or route
      self.routes["/" .. name .. path] = route
    end
  end
end

local defaults = {
  dim = 256, seed = 1, model = "moonpool-hash", max_client_batch = 32, batch_status = 413,
  max_input_tokens = 8192, max_request_tokens = 300000, require_model = false,
}

local function apply(self, opts)
  for name, value in pairs(defaults) do
    self[name] = opts[name] == nil and value or opts[name]
  end
  self.api_key, self.hook, self.batch_expired = opts.api_key, opts.hook, tonumber(opts.batch_expired)
  self.quota = self.faults.quota and quota.new(self.faults.quota)
  self.slots = self.faults.workers and task.semaphore(self.faults.workers)
  self.recorder = recorder.new(opts.record or 256, opts.record_auth, opts.record_body)
end

--- mock{port=, dim=, latency=, ...}: a running mock with .url, .port, :stats(), :requests(n), :reset(),
-- :close(). nil and an error if it cannot listen. Port 0 (the default here) is a free one.
function M.new(opts)
  options.check("mock", opts or {}, rules, 2)
  opts = opts or {}
  local parsed, err = faults.parse(opts)
  if not parsed then
    error("mock: " .. err, 2)
  end
  local self = setmetatable({ faults = parsed, count = 0, serial = 0, started = core.now() }, mock)
  apply(self, opts)
  zero_stats(self)
  make_routes(self)
  self.server, err = serve.serve_raw {
    listen = opts.listen or ("%s:%d"):format(opts.host or "127.0.0.1", opts.port or 0),
    handler = function(req) return self:handle(req) end,
    max_body = opts.max_body, max_connections = opts.max_connections,
  }
  if not self.server then
    return nil, err
  end
  self.url, self.port = self.server.url, self.server.port
  return self
end

return M
