-- moonpool.gateway.otel: spans and metrics by OTLP/HTTP JSON, posted by the engine itself.
--
-- Names are those of OpenTelemetry's GenAI conventions (status: development). A request is a span of kind
-- SERVER with a child of kind CLIENT for the call to the model, which covers its retries. What the
-- collector does not take is dropped and counted: telemetry never holds up a request.
local core = require "moonpool.core"
local metrics = require "moonpool.metrics"

local M = {}

local INTERVAL = 5      -- s between two posts
local MAX_SPANS = 4096  -- kept at most
local KIND_SERVER, KIND_CLIENT = 2, 3
local STATUS_ERROR = 2

local durations = {}
for k = 0, 13 do
  durations[k + 1] = 0.01 * 2 ^ k
end
local tokens = {}
for k = 0, 13 do
  tokens[k + 1] = 4.0 ^ k
end

local otel = {}
otel.__index = otel

--- new { endpoint=, headers=, service_name=, interval=, sample= }, its task lives in scope.
function M.new(o, scope)
  local self = setmetatable({
    client = require "moonpool.client".client {
      base_url = o.endpoint, headers = o.headers, preset = "none", timeout = 10,
      provider = { name = "otlp", auth = false }, -- no key of another service may go there
    },
    sample = o.sample or 1, interval = o.interval or INTERVAL, spans = {}, lost = 0, series = {},
    resource = { attributes = {
      { key = "service.name", value = { stringValue = o.service_name or "moonpool-gateway" } },
      { key = "telemetry.sdk.name", value = { stringValue = "moonpool" } },
      { key = "telemetry.sdk.version", value = { stringValue = core.version } },
    } },
    started = M.now(),
  }, otel)
  scope:spawn(function()
    while not self.closed do
      core.sleep(self.interval)
      self:flush()
    end
  end)
  return self
end

--- Now, in nanoseconds since 1970 as a text, for JSON has no 64-bit integers.
function M.now()
  return ("%d"):format(math.floor(core.wall() * 1e9))
end

local function value(v)
  if math.type(v) == "integer" then
    return { intValue = ("%d"):format(v) }
  end
  if type(v) == "number" then
    return { doubleValue = v }
  end
  if type(v) == "boolean" then
    return { boolValue = v }
  end
  return { stringValue = tostring(v) }
end

local function attributes(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names)
  local list = {}
  for i, name in ipairs(names) do list[i] = { key = name, value = value(t[name]) } end
  return list
end

-- ---- traceparent --------------------------------------------------------------------------------

--- The trace of a request: {trace=, parent=, span=, sampled=}; a header that makes no sense begins anew.
function otel:begin(header)
  local trace, parent, flags = (header or ""):match "^%x%x%-(%x+)%-(%x+)%-(%x%x)"
  if not trace or #trace ~= 32 or #parent ~= 16 or trace:find "^0+$" or parent:find "^0+$"
    or header:sub(1, 2):lower() == "ff" then
    local sampled = self.sample >= 1 or math.random() < self.sample
    return {
      trace = core.random_hex(16), span = core.random_hex(8), call = core.random_hex(8), sampled = sampled,
    }
  end
  return {
    trace = trace:lower(), parent = parent:lower(), span = core.random_hex(8), call = core.random_hex(8),
    sampled = tonumber(flags, 16) & 1 == 1,
  }
end

--- The header for the call to the model.
function M.header(trace)
  return ("00-%s-%s-%s"):format(trace.trace, trace.call, trace.sampled and "01" or "00")
end

-- ---- what is kept -------------------------------------------------------------------------------

local operations = { embed = "embeddings", rerank = "rerank", classify = "classify" }

local function add_span(self, span)
  if #self.spans >= MAX_SPANS then
    self.lost = self.lost + 1
  else
    self.spans[#self.spans + 1] = span
  end
end

local function measure(self, name, bounds, labels, v)
  local text = name
  for _, l in ipairs(labels) do text = text .. "\0" .. l.key .. "\0" .. (l.value.stringValue or "") end
  local one = self.series[text]
  if not one then
    one = { name = name, labels = labels, histogram = metrics.histogram(bounds) }
    self.series[text] = one
  end
  one.histogram:add(v)
end

--- A request is over.
function otel:record(ctx, status, took)
  local trace = ctx.trace
  local ended = core.wall()
  local function at(seconds)
    return ("%d"):format(math.floor((ended - seconds) * 1e9))
  end
  local up = ctx.served_by
  local labels = {
    ["gen_ai.operation.name"] = operations[ctx.op], ["gen_ai.provider.name"] = up and up.provider.name,
    ["gen_ai.request.model"] = ctx.model, ["gen_ai.response.model"] = ctx.answered_model,
    ["error.type"] = status >= 400 and (ctx.error or tostring(status)) or nil,
  }
  if ctx.op and up then
    local host, port = up.state.urls[1]:match "^%a+://%[?([^/:%]]+)%]?:?(%d*)"
    labels["server.address"], labels["server.port"] = host, tonumber(port)
    local list = attributes(labels)
    measure(self, "gen_ai.client.operation.duration", durations, list, ctx.upstream_time or took)
    if ctx.used and status < 400 then
      labels["gen_ai.token.type"] = "input"
      measure(self, "gen_ai.client.token.usage", tokens, attributes(labels), ctx.used)
      labels["gen_ai.token.type"] = nil
    end
  end
  if not trace.sampled then
    return
  end
  local state = status >= 500 and { code = STATUS_ERROR } or {}
  add_span(self, {
    traceId = trace.trace, spanId = trace.span, parentSpanId = trace.parent, kind = KIND_SERVER,
    name = "POST " .. ctx.label, startTimeUnixNano = at(took), endTimeUnixNano = at(0), status = state,
    attributes = attributes {
      ["http.request.method"] = ctx.method, ["http.route"] = ctx.label,
      ["http.response.status_code"] = status,
      ["moonpool.request_id"] = ctx.id, ["moonpool.batch"] = ctx.batch, ["moonpool.rows"] = ctx.rows,
    },
  })
  if not (ctx.op and up) then
    return
  end
  labels["gen_ai.usage.input_tokens"] = status < 400 and ctx.used or nil
  labels["gen_ai.embeddings.dimension.count"] = ctx.dimensions
  labels["moonpool.attempts"] = ctx.attempts
  add_span(self, {
    traceId = trace.trace, spanId = trace.call, parentSpanId = trace.span, kind = KIND_CLIENT,
    name = (operations[ctx.op] .. " " .. (ctx.model or "")):match "^(.-)%s*$",
    startTimeUnixNano = at(math.min(took, ctx.upstream_time or took)), endTimeUnixNano = at(0),
    status = status >= 400 and { code = STATUS_ERROR } or {}, attributes = attributes(labels),
  })
end

-- ---- posting ------------------------------------------------------------------------------------

local scope = { name = "moonpool", version = core.version }

local function histogram_point(self, one, now)
  local h = one.histogram
  local counts = {}
  for i, n in ipairs(h.counts) do counts[i] = ("%d"):format(n) end
  return {
    attributes = one.labels, startTimeUnixNano = self.started, timeUnixNano = now,
    count = ("%d"):format(h.n), sum = h.sum, bucketCounts = counts, explicitBounds = h.bounds,
  }
end

local units = { ["gen_ai.client.operation.duration"] = "s", ["gen_ai.client.token.usage"] = "{token}" }

local function metric_document(self)
  local now, families, list = M.now(), {}, {}
  for _, one in pairs(self.series) do
    local family = families[one.name]
    if not family then
      family = { name = one.name, unit = units[one.name],
        histogram = { aggregationTemporality = 2, dataPoints = {} } }
      families[one.name], list[#list + 1] = family, family
    end
    local points = family.histogram.dataPoints
    points[#points + 1] = histogram_point(self, one, now)
  end
  if #list == 0 then
    return nil
  end
  local scoped = { { scope = scope, metrics = list } }
  return { resourceMetrics = { { resource = self.resource, scopeMetrics = scoped } } }
end

function otel:post(path, doc)
  local ok = self.client:request { method = "POST", path = path, json = doc }
  if not ok then
    self.lost = self.lost + 1
  end
end

--- Posts what there is.
function otel:flush()
  if #self.spans > 0 then
    local spans = self.spans
    self.spans = {}
    self:post("/v1/traces", {
      resourceSpans = { { resource = self.resource, scopeSpans = { { scope = scope, spans = spans } } } },
    })
  end
  local doc = metric_document(self)
  if doc then
    self:post("/v1/metrics", doc)
  end
end

function otel:close()
  if self.closed then
    return
  end
  self.closed = true
  pcall(core.timeout, 2, self.flush, self)
  self.client:close()
end

return M
