-- moonpool.gateway: the routes that embedding clients know, in front of any provider.
--
-- A request is read by its front (fronts.lua), admitted (keys, limits.lua), sent along the steps of
-- its model's route until one answers (upstream.lua), and answered from the matrix in the words of
-- its front. Everything that a configuration makes stands in a `setup`, which a reload replaces as a
-- whole: a request keeps the one with which it began, and the last request of an old one closes it.
local core = require "moonpool.core"
local callers = require "moonpool.gateway.callers"
local check_config = require "moonpool.gateway.config".check
local dialect = require "moonpool.gateway.dialect"
local fronts = require "moonpool.gateway.fronts"
local jobs = require "moonpool.gateway.jobs"
local json = require "moonpool.json"
local limits = require "moonpool.gateway.limits"
local log = require "moonpool.gateway.log"
local measures = require "moonpool.gateway.measures"
local otel = require "moonpool.gateway.otel"
local pages = require "moonpool.gateway.pages"
local serve = require "moonpool.serve"
local upstream = require "moonpool.gateway.upstream"

local M = {}

local TIMEOUT = 60           -- s, unless the configuration or the caller says otherwise
local MAX_BODY = 32 << 20    -- bytes
local MAX_INPUTS = 2048      -- rows of one request

local failure, now = dialect.failure, core.now

local gateway = {}
gateway.__index = gateway
gateway.__name = "moonpool.gateway"

-- ---- routes -----------------------------------------------------------------------------------

local function front(style, reader)
  return { method = "POST", style = style, reader = reader }
end

local openai_embed = front("openai", fronts.openai_embed)
local pass = { method = "POST", style = "openai", pass = true }
local cohere_rerank = front("cohere", fronts.cohere_rerank)

local routes = {
  ["/v1/embeddings"] = openai_embed, ["/embeddings"] = openai_embed,
  ["/v1/rerank"] = cohere_rerank, ["/v2/rerank"] = cohere_rerank,
  ["/v2/embed"] = front("cohere", fronts.cohere_embed),
  ["/embed"] = front("tei", fronts.tei_embed),
  ["/rerank"] = front("tei", fronts.tei_rerank),
  ["/predict"] = front("tei", fronts.tei_predict),
  ["/api/embed"] = front("ollama", fronts.ollama_embed),
  ["/api/embeddings"] = front("ollama", fronts.ollama_single),
  ["/v1/chat/completions"] = pass, ["/v1/completions"] = pass, ["/v1/responses"] = pass,
  ["/v1/models"] = { method = "GET", style = "openai", page = "models" },
  ["/health"] = { method = "GET", style = "openai", page = "health", open = true },
  ["/metrics"] = { method = "GET", style = "openai", page = "metrics", open = true },
  ["/info"] = { method = "GET", style = "tei", page = "info" },
  ["/api/tags"] = { method = "GET", style = "ollama", page = "tags" },
  ["/api/version"] = { method = "GET", style = "ollama", page = "version", open = true },
}
local model_page = { method = "GET", style = "openai", page = "model" }

-- The route of a path, the path as measures know it, and what else stands in it.
local function route_of(path)
  local route = routes[path]
  if route then
    return route, path
  end
  local bare = path:match "^(/.+)/$"
  if bare and routes[bare] then
    return routes[bare], bare
  end
  local model = path:match "^/v1/models/(.+)$"
  if model then
    return model_page, "/v1/models/{model}", model
  end
  return nil, "other"
end

-- ---- a request --------------------------------------------------------------------------------

local serial, prefix = 0, nil

local function request_id(req)
  local given = req:header "x-request-id"
  if given and #given <= 128 and given:find "^[%w%-_.:/+=@]+$" then
    return given
  end
  prefix = prefix or "mp-" .. core.random_hex(6) .. "-"
  serial = serial + 1
  return prefix .. serial
end

local function timeout_of(setup, req)
  local asked = req:header "request-timeout-ms"
  local seconds = asked and tonumber(asked)
  if seconds and seconds > 0 then
    return math.min(seconds / 1000, setup.timeout)
  end
  return setup.timeout
end

local function add_cors(setup, req, headers)
  local cors = setup.config.cors
  local origin = cors and req:header "origin"
  if not origin then
    return
  end
  local origins = cors.origins
  local allowed = origins == "*" or origins == origin
  if type(origins) == "table" then
    for _, one in ipairs(origins) do allowed = allowed or one == "*" or one == origin end
  end
  if not allowed then
    return
  end
  headers["access-control-allow-origin"] = origins == "*" and "*" or origin
  headers["access-control-expose-headers"] = "x-request-id, retry-after, x-moonpool-attempts, "
    .. "x-moonpool-cache, x-moonpool-batch, x-moonpool-upstream, x-moonpool-overhead-ms"
  if origins ~= "*" then
    headers.vary = "origin"
  end
  return true
end

local function preflight(setup, req)
  local headers = {}
  if not add_cors(setup, req, headers) then
    return { status = 403, headers = headers }
  end
  headers["access-control-allow-methods"] = "GET, POST, OPTIONS"
  headers["access-control-allow-headers"] = req:header "access-control-request-headers"
    or "authorization, content-type"
  headers["access-control-max-age"] = ("%d"):format(setup.config.cors.max_age or 600)
  return { status = 204, headers = headers }
end

-- What the route makes of the request: a reply, or nil, err.
local function work(self, setup, ctx, req, route, rest)
  if not route then
    return nil, failure("not_found", ("there is nothing at %s"):format(req.path))
  end
  if req.method ~= route.method and not (req.method == "HEAD" and route.method == "GET") then
    ctx.allow = route.method
    return nil, failure("invalid", ("%s is for %s"):format(req.path, route.method), { status = 405 })
  end
  if not route.open then
    local err = callers.identify(setup, req, ctx)
    if err then
      return nil, err
    end
  end
  if route.page then
    return pages[route.page](self, setup, ctx, rest)
  end
  local coding = req:header "content-encoding"
  if coding and coding ~= "identity" then
    return nil, failure("invalid", ("content-encoding '%s' is not taken"):format(coding), { status = 415 })
  end
  if route.pass then
    local body = req:json()
    if type(body) ~= "table" then
      return nil, failure("invalid", "the body must be a JSON object")
    end
    return jobs.pass_through(setup, ctx, req, body)
  end
  local job, err = fronts.read(route.reader, req)
  if not job then
    return nil, err
  end
  ctx.model, ctx.failed, ctx.op = job.model, req:failed(), job.op
  return jobs.operations[job.op](setup, ctx, job)
end

-- The headers that say how it went.
local function add_headers(ctx, headers, took)
  headers["x-request-id"] = ctx.id
  if ctx.upstream then
    headers["x-moonpool-upstream"] = ctx.upstream
    headers["x-moonpool-attempts"] = ctx.attempts
  end
  if ctx.batch then
    headers["x-moonpool-batch"] = ctx.batch
  end
  if ctx.cached then
    headers["x-moonpool-cache"] = ctx.cached == 0 and "miss" or ctx.cached >= ctx.rows and "hit" or "partial"
  end
  if ctx.upstream_time then
    ctx.overhead = math.max(0, took - ctx.upstream_time)
    headers["x-moonpool-overhead-ms"] = ("%.3f"):format(ctx.overhead * 1000)
  end
  if ctx.retry_after then
    headers["retry-after"] = ("%d"):format(math.max(1, math.ceil(ctx.retry_after)))
  end
  if ctx.allow then
    headers.allow = ctx.allow
  end
end

local function write_log(self, ctx, req, status, took)
  local out = self.log
  if not out then
    return
  end
  out:write {
    time = core.wall(), id = ctx.id, method = req.method, path = req.path, status = status,
    ms = math.floor(took * 1e6 + 0.5) / 1e3, key = ctx.key and ctx.key.name or nil, peer = ctx.peer,
    model = ctx.model, rows = ctx.rows, tokens = ctx.used, upstream = ctx.upstream,
    attempts = ctx.attempts > 0 and ctx.attempts or nil, batch = ctx.batch, cached = ctx.cached,
    overhead_ms = ctx.overhead and math.floor(ctx.overhead * 1e6 + 0.5) / 1e3 or nil, error = ctx.error,
  }
end

local function release(setup)
  setup.open = setup.open - 1
  if setup.retired and setup.open == 0 then
    setup:close()
  end
end

-- The end of a request: accounts, measures, log.
local function finish(self, setup, ctx, req, status)
  local took = now() - ctx.started
  callers.settle(ctx, ctx.used, status >= 400)
  self.measures:add(ctx, status, took)
  if self.otel then
    self.otel:record(ctx, status, took)
  end
  write_log(self, ctx, req, status, took)
  release(setup)
end

-- A streamed reply ends when its last byte has left, or its caller has.
local function streamed(self, setup, ctx, req, reply)
  local chunks, closer = reply.stream, reply.closer
  local over = false
  reply.closer = nil
  reply.stream = setmetatable({}, {
    __call = function() return chunks() end,
    __close = function()
      if over then
        return
      end
      over = true
      getmetatable(closer).__close(closer)
      finish(self, setup, ctx, req, reply.status)
    end,
  })
end

local function answer(self, setup, ctx, req, route, rest)
  local reply, err = work(self, setup, ctx, req, route, rest)
  if not reply then
    if err.kind == "cancelled" and req:gone() then
      error(err, 0)
    end
    local status, body = dialect.write(route and route.style or "openai", err)
    ctx.error = err.kind
    if not ctx.retry_after then
      ctx.retry_after = err.retry_after
    end
    reply = { status = status, json = body }
    if status == 401 then
      reply.headers = { ["www-authenticate"] = "Bearer" }
    end
  end
  return reply
end

--- The handler for moonpool.serve.
function gateway:handle(req)
  local setup = self.setup
  local route, label, rest = route_of(req.path)
  local started = now()
  if req.method == "OPTIONS" and setup.config.cors then
    return preflight(setup, req)
  end
  local timeout = timeout_of(setup, req)
  local ctx = {
    started = started, deadline = started + timeout, stream_timeout = setup.config.timeout and timeout,
    id = request_id(req), attempts = 0, label = label,
    peer = self.log and req.peer or nil,
  }
  if self.otel then
    ctx.trace, ctx.method = self.otel:begin(req:header "traceparent"), req.method
    ctx.headers = { traceparent = otel.header(ctx.trace) }
  end
  setup.open = setup.open + 1
  local ok, reply = pcall(answer, self, setup, ctx, req, route, rest)
  if not ok then
    local err = reply
    if type(err) == "table" and err.kind == "cancelled" then
      ctx.error = "cancelled"
      finish(self, setup, ctx, req, 499)
      error(err, 0)
    end
    self.on_error(req, err)
    ctx.error = "internal"
    local status, body = dialect.write(route and route.style or "openai",
      failure("internal", "internal error of the gateway", { status = 500 }))
    reply = { status = status, json = body }
  end
  local headers = reply.headers or {}
  reply.headers = headers
  add_headers(ctx, headers, now() - started)
  if setup.config.cors then
    add_cors(setup, req, headers)
  end
  reply.status = reply.status or 200
  if reply.stream then
    streamed(self, setup, ctx, req, reply)
  else
    finish(self, setup, ctx, req, reply.status)
  end
  return reply
end

-- ---- set-up and life --------------------------------------------------------------------------

local setup_meta = {}
setup_meta.__index = setup_meta

function setup_meta:close()
  if self.closed then
    return
  end
  self.closed = true
  for _, up in pairs(self.upstreams) do up:close() end
end

-- Upstreams, accounts and all that the checked configuration says; accounts of keys that stay are kept.
local function set_up(config, before)
  local setup = setmetatable({
    config = config, upstreams = {}, accounts = {}, callers = {}, ncallers = 0, open = 0,
    timeout = config.timeout == nil and TIMEOUT or config.timeout or 86400,
    max_inputs = config.max_inputs or MAX_INPUTS,
  }, setup_meta)
  for name, o in pairs(config.upstreams) do
    local all = {}
    for k, v in pairs(o) do all[k] = v end
    all.batch = all.batch or config.batch or {}
    if config.cache_bytes and all.batch.cache_bytes == nil then
      local batch = {}
      for k, v in pairs(all.batch) do batch[k] = v end
      batch.cache_bytes = config.cache_bytes
      all.batch = batch
    end
    local ok, made = pcall(upstream.new, name, all)
    if not ok then
      setup:close()
      error(("gateway: upstreams.%s: %s"):format(name, (tostring(made):gsub("^[^\n]-:%d+: ", ""))), 0)
    end
    setup.upstreams[name] = made
  end
  for _, key in pairs(config.keys or {}) do
    local old = before and before.accounts[key.name]
    local same = old and json.encode(before.limits_of[key.name]) == json.encode(key)
    setup.accounts[key.name] = same and old or limits.account(key)
  end
  setup.limits_of = {}
  for _, key in pairs(config.keys or {}) do setup.limits_of[key.name] = key end
  return setup
end

-- The short way in C knows no callers and writes no log.
local function is_plain(config)
  return not (config.keys or config.caller or config.log or config.cors or config.otel)
end

local function use_front(self, setup)
  setup.front = is_plain(setup.config) and self.front or nil
  setup.learned = {}
end

--- Takes another configuration; requests under way end with the one they began with. nil, why when it
--- is no good: then all stays as it is.
function gateway:reload(config)
  local ok, why = pcall(function()
    local setup = set_up(check_config(config), self.setup)
    local old = self.setup
    use_front(self, setup)
    self.setup = setup
    self.measures:absorb(self.front)
    local generation = core.front_clear(self.front, setup.timeout)
    old.retired, old.open = true, old.open + 1
    self.scope:spawn(function()
      core.front_quiet(self.front, generation)
      release(old)
    end)
  end)
  if self.log then
    self.log:reopen()
  end
  if not ok then
    return nil, why
  end
  return true
end

function gateway:close()
  if self.closed then
    return
  end
  self.closed = true
  require "moonpool.metrics".sources[self] = nil
  if self.otel then
    self.otel:close()
  end
  if self.log then
    self.log:close()
  end
  self.setup:close()
end

gateway.__close = gateway.close

local server_options = {
  "max_body", "max_head", "max_headers", "max_connections", "header_timeout", "body_timeout",
  "idle_timeout", "write_timeout", "total_body_timeout", "reuse_port",
}

--- The options for moonpool.serve.
function gateway:options(listen)
  local config = self.setup.config
  local o = {
    listen = listen or config.listen, max_body = MAX_BODY, front = self.front,
    handler = function(req) return self:handle(req) end,
  }
  for _, name in ipairs(server_options) do
    if config[name] ~= nil then
      o[name] = config[name]
    end
  end
  return o
end

--- gateway.new(config): the gateway, without a server. Raises a sentence when config makes no sense.
function M.new(config)
  local checked = check_config(config)
  local self = setmetatable({
    setup = set_up(checked), measures = measures.new(), on_error = serve.log_error,
    scope = core.open_scope(),
  }, gateway)
  self.front = core.front_new {
    timeout = self.setup.timeout, prefix = "mp-" .. core.random_hex(6) .. "-f",
    duration = measures.seconds, overhead = measures.overheads, batch = measures.sizes,
  }
  use_front(self, self.setup)
  if checked.otel then
    self.otel = otel.new(checked.otel, self.scope)
  end
  if checked.log then
    local opened, why = log.open(checked.log, self.scope)
    if not opened then
      self.setup:close()
      error("gateway: log: " .. tostring(why), 0)
    end
    self.log = opened
  end
  require "moonpool.metrics".sources[self] = true
  return self
end

function gateway:collect(add)
  self.measures:absorb(self.front)
  self.measures:collect(add)
  for _, up in pairs(self.setup.upstreams) do up:collect(add) end
end

M.check = check_config

return M
