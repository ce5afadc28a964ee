-- moonpool.gateway.measures: what the gateway counts of its requests.
local core = require "moonpool.core"
local metrics = require "moonpool.metrics"

local M = {}

local MAX_SERIES = 1000 -- of counters; the names of models come from outside

local seconds = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60 }
local overheads = { 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1 }
local sizes = { 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048 }

M.seconds, M.overheads, M.sizes = seconds, overheads, sizes

local measures = {}
measures.__index = measures

function M.new()
  return setmetatable({
    known = {}, requests = {}, n = 0, durations = {}, overhead = metrics.histogram(overheads),
    batch = metrics.histogram(sizes), tokens = {}, rows = 0, hits = 0,
  }, measures)
end

-- The counter of these labels. Beyond the bound all others count as one.
local function series(self, label, model, status, key)
  local name = label .. "\0" .. model .. "\0" .. status .. "\0" .. key
  local found = self.requests[name]
  if found then
    return found
  end
  if self.n >= MAX_SERIES then
    if model == "other" then
      key = "other"
    end
    if model == "other" and label == "other" then
      name = "other"
      found = self.requests[name]
      if found then
        return found
      end
    else
      return series(self, "other", "other", status, "other")
    end
  end
  found = { labels = { path = label, model = model, status = status, key = key }, value = 0 }
  self.requests[name], self.n = found, self.n + 1
  return found
end

-- Counts of the short way into a histogram with the same bounds.
local function pour(histogram, counts)
  for i, n in ipairs(counts) do
    histogram.counts[i] = histogram.counts[i] + n
    histogram.n = histogram.n + n
  end
  histogram.sum = histogram.sum + counts.sum
end

--- Takes over what the short way in C has counted since the last time.
function measures:absorb(front)
  local got = core.front_counts(front)
  local label = "/v1/embeddings"
  for model, n in pairs(got.models) do
    local one = series(self, label, self.known[model] and model or "*", 200, "")
    one.value = one.value + n
  end
  self.durations[label] = self.durations[label] or metrics.histogram(seconds)
  pour(self.durations[label], got.duration)
  pour(self.overhead, got.overhead)
  pour(self.batch, got.batch)
  self.rows = self.rows + got.rows
  if got.tokens > 0 then
    self.tokens[""] = (self.tokens[""] or 0) + got.tokens
  end
end

--- A request is over.
function measures:add(ctx, status, took)
  local route = ctx.route
  local model = route and route.name or ""
  if route then
    self.known[model] = true
  end
  local key = ctx.key and ctx.key.name or ""
  local one = series(self, ctx.label, model, status, key)
  one.value = one.value + 1
  local duration = self.durations[ctx.label]
  if not duration then
    duration = metrics.histogram(seconds)
    self.durations[ctx.label] = duration
  end
  duration:add(took)
  if ctx.overhead then
    self.overhead:add(ctx.overhead)
  end
  if ctx.batch then
    self.batch:add(ctx.batch)
  end
  if ctx.used and status < 400 then
    self.tokens[key] = (self.tokens[key] or 0) + ctx.used
  end
  if ctx.rows then
    self.rows = self.rows + ctx.rows
  end
  if ctx.cached then
    self.hits = self.hits + ctx.cached
  end
end

function measures:collect(add)
  for _, one in pairs(self.requests) do
    add("moonpool_gateway_requests_total", "counter", "Requests answered.", one.labels, one.value)
  end
  for label, histogram in pairs(self.durations) do
    histogram:collect(add, "moonpool_gateway_duration_seconds", "From a request's last byte to its answer.",
      { path = label })
  end
  self.overhead:collect(add, "moonpool_gateway_overhead_seconds",
    "The time of a request less that of its upstream request.")
  self.batch:collect(add, "moonpool_gateway_batch_rows",
    "Rows of the upstream request that carried a request's.")
  for key, tokens in pairs(self.tokens) do
    add("moonpool_gateway_tokens_total", "counter", "Tokens used.", { key = key }, tokens)
  end
  add("moonpool_gateway_rows_total", "counter", "Rows asked for.", nil, self.rows)
  add("moonpool_gateway_cache_hits_total", "counter", "Rows answered from the cache.", nil, self.hits)
end

return M
