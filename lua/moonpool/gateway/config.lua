-- moonpool.gateway.config: the table that a configuration returns, checked, as the
-- routes that requests take.
local families = require "moonpool.provider.families"
local options = require "moonpool.options"
local R = options.rule

local M = {}

local function seconds(v)
  return R.positive(v)
end

local budget_rules = { requests = R.positive, tokens = R.positive, usd = R.positive, window = seconds }
local key_rules = {
  name = R.text, models = R.table, rpm = R.positive, tpm = R.positive, budget = R.table,
  concurrency = R.count, priority = function(v)
    if v ~= -1 and v ~= 0 and v ~= 1 then
      return "must be -1, 0 or 1"
    end
  end,
}
local model_rules = {
  upstream = R.text, model = R.text, chain = R.table, space = R.text, price = R.not_negative,
}
local step_rules = { upstream = R.text, model = R.text, space = R.text }
local batch_rules = {
  max_batch = R.count, max_wait = R.not_negative, slots = R.count, cache_bytes = R.whole,
  max_tokens = R.count, max_chars = R.count, max_bytes = R.count,
}
local caller_rules = {
  rpm = R.positive, tpm = R.positive, concurrency = R.count, by = R.text, budget = R.table,
}
local cors_rules = { origins = R.either(R.string, R.table), headers = R.table, max_age = R.not_negative }
local otel_rules = { endpoint = R.text, headers = R.table, service_name = R.text, interval = R.positive,
  sample = R.not_negative }

local rules = {
  listen = R.text, reuse_port = R.boolean, upstreams = R.table, models = R.table, keys = R.table,
  caller = R.table, cors = R.either(R.boolean, R.table), log = R.either(R.string, R.func),
  timeout = R.duration, batch = R.table, cache_bytes = R.whole, otel = R.table, max_inputs = R.count,
  max_body = R.count, max_head = R.count, max_headers = R.count, max_connections = R.count,
  header_timeout = R.positive, body_timeout = R.positive, idle_timeout = R.positive,
  write_timeout = R.positive, total_body_timeout = R.positive, metrics = R.boolean, models_open = R.boolean,
}

local function fail(where, fmt, ...)
  error(("gateway: %s: %s"):format(where, fmt:format(...)), 0)
end

local function check(where, t, which)
  local ok, why = pcall(options.check, "gateway: " .. where, t, which, 1)
  if not ok then
    error(tostring(why):gsub("^[^\n:]+:%d+: ", ""), 0)
  end
end

local function check_budget(where, budget)
  for i, one in ipairs(budget[1] and budget or { budget }) do
    local at = budget[1] and ("%s.budget[%d]"):format(where, i) or where .. ".budget"
    check(at, one, budget_rules)
    if not one.window then
      fail(at, "window (seconds) is missing")
    end
    if not (one.requests or one.tokens or one.usd) then
      fail(at, "requests, tokens or usd is missing")
    end
  end
end

-- ---- models -----------------------------------------------------------------------------------

-- One entry of `models` as {steps = {{upstream=, model=}}, price=}.
local function route_of(name, entry, upstreams)
  local where = ("models[%q]"):format(name)
  if type(entry) == "string" then
    entry = { upstream = entry }
  end
  check(where, entry, model_rules)
  local steps = entry.chain or { { upstream = entry.upstream, model = entry.model } }
  if entry.chain and (entry.upstream or entry.model) then
    fail(where, "chain stands alone, without upstream and model")
  elseif #steps == 0 then
    fail(where, "chain must not be empty")
  end
  local route = { name = name, price = entry.price, steps = {} }
  for i, step in ipairs(steps) do
    local at = entry.chain and ("%s.chain[%d]"):format(where, i) or where
    if entry.chain then
      check(at, step, step_rules)
    end
    if not step.upstream or not upstreams[step.upstream] then
      fail(at, "there is no upstream %q", tostring(step.upstream))
    end
    route.steps[i] = { upstream = step.upstream, model = step.model, space = step.space or entry.space }
  end
  return route
end

-- Vectors of two models mean nothing to each other, unless somebody says that they share a space.
local function check_space(name, route)
  local first = route.steps[1]
  for i = 2, #route.steps do
    local step = route.steps[i]
    local same_model = families.same_space(step.model or name, first.model or name)
    local same_space = step.space ~= nil and step.space == first.space
    if not same_model and not same_space then
      fail(("models[%q].chain[%d]"):format(name, i),
        "model %q is not known to share a vector space with %q; if it does, give both the same `space`",
        step.model or name, first.model or name)
    end
  end
end

-- ---- the whole --------------------------------------------------------------------------------

local function check_upstreams(upstreams)
  if type(upstreams) ~= "table" or next(upstreams) == nil then
    fail("upstreams", "at least one is needed")
  end
  for name, o in pairs(upstreams) do
    if type(name) ~= "string" or type(o) ~= "table" then
      fail("upstreams", "must be a table of name = options of moonpool.client")
    end
    if o.batch then
      check(("upstreams.%s.batch"):format(name), o.batch, batch_rules)
    end
  end
end

local function read_models(c)
  local models = c.models
  if not models then
    local only = next(c.upstreams)
    if next(c.upstreams, only) then
      fail("models", "is needed where there are several upstreams")
    end
    models = { ["*"] = only }
  end
  c.routes, c.list = {}, {}
  for name, entry in pairs(models) do
    local route = route_of(name, entry, c.upstreams)
    check_space(name, route)
    if name == "*" then
      c.default = route
    else
      c.routes[name] = route
      c.list[#c.list + 1] = name
    end
  end
  table.sort(c.list)
end

local function check_keys(keys)
  local names = {}
  for key, o in pairs(keys) do
    if type(key) ~= "string" or #key < 8 then
      fail("keys", "each must be a text of at least 8 bytes")
    end
    check(("keys: %s"):format(type(o) == "table" and o.name or "?"), o, key_rules)
    if not o.name then
      fail("keys", "each needs a name, for logs and metrics")
    end
    if names[o.name] then
      fail("keys", "the name %q stands twice", o.name)
    end
    names[o.name] = true
    if o.budget then
      check_budget("keys: " .. o.name, o.budget)
    end
  end
end

--- check(config) -> a copy with `routes`, `default` (the route "*") and `list` (names to show). Raises
--- a sentence for what makes no sense.
function M.check(config)
  if type(config) ~= "table" then
    error("gateway: the configuration must return a table", 0)
  end
  check("config", config, rules)
  local c = {}
  for k, v in pairs(config) do c[k] = v end
  check_upstreams(c.upstreams)
  if c.cors == true then
    c.cors = { origins = "*" }
  end
  local parts = { batch = batch_rules, cors = cors_rules, otel = otel_rules, caller = caller_rules }
  for name, own in pairs(parts) do
    if c[name] then
      check(name, c[name], own)
    end
  end
  if c.caller and c.caller.budget then
    check_budget("caller", c.caller.budget)
  end
  read_models(c)
  check_keys(c.keys or {})
  return c
end

return M
