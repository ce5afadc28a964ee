-- moonpool.simulate: policies tried on a model before they cost anything.
--
-- The policy core is the one that every client runs; the servers are modelled and the clock is
-- virtual. A scenario says what the load and the servers are like; each of its policies meets the
-- same ones, and the same seed gives the same run.
local core = require "moonpool.core"
local options = require "moonpool.options"
local parse = require "moonpool.mock.parse"
local policy = require "moonpool.policy"
local report = require "moonpool.simulate.report"
local R = options.rule

local M = {}

local MAX_REQUESTS = 5000000 -- of one policy's run; a gigabyte of memory would be needed for more
local MAX_TIME = 100000 -- seconds of the virtual clock
local FOR_EVER = 1e9

-- ---- what a scenario may hold -------------------------------------------------------------------

local function share(v)
  return R.not_negative(v) or (v > 1 and "must be a share from 0 to 1" or nil)
end

local function samples(v)
  if #v == 0 then
    return "an empty list"
  end
  for _, s in ipairs(v) do
    local why = R.not_negative(s)
    if why then
      return why
    end
  end
end

local function latency(v)
  if type(v) == "table" then
    return samples(v)
  end
  local ok, why = parse.latency(v)
  return not ok and why or nil
end

local rules = {
  scenario = {
    name = R.string, seed = R.whole, load = R.table, server = R.table, servers = R.table,
    policy = R.either(R.table, R.string), policies = R.table, timeout = R.either(R.table, R.positive),
    max_connections = R.count, max_time = R.positive,
  },
  load = {
    requests = R.count, rows = R.count, duration = R.positive, rate = R.positive, concurrency = R.count,
    batch = R.count, tokens = R.not_negative, poison = share,
  },
  server = {
    latency = latency, per_row = R.not_negative, stall = R.table, error = R.table, places = R.count,
    queue = R.count, quota = R.table, outage = R.table, weight = R.positive,
  },
  stall = { share = share, time = R.positive },
  error = { share = share, status = R.count },
  quota = {
    rpm = R.positive, tpm = R.positive, window = R.positive, tells = R.one_of("nothing", "delay", "headers"),
  },
  outage = {
    from = R.not_negative, to = R.positive, kind = R.one_of("refuse", "503", "silent", "429"),
    retry_after = R.positive,
  },
  timeout = { attempt = R.positive, total = R.positive, pool = R.positive },
  policy = {
    name = R.string, description = R.string, preset = R.one_of("job", "gateway", "interactive", "none"),
    max_concurrent_requests = R.count, timeout = R.either(R.table, R.positive),
  },
}
for _, place in ipairs(policy.places) do rules.policy[place] = R.any end
for name, rule in pairs(policy.rules) do rules.policy[name] = rule end

-- ---- servers ------------------------------------------------------------------------------------

local services = { lognormal = 0, uniform = 1, exp = 2 }

local function add_latency(out, v)
  if type(v) == "table" then
    out.samples = v
    return
  end
  local name, a, b = tostring(v):match "^(%a+):([^,]+),?(.*)$"
  if not name then
    out.median = parse.duration(v)
    return
  end
  out.service = services[name]
  out.median = parse.duration(a)
  out.sigma = name == "lognormal" and tonumber(b) or name == "uniform" and parse.duration(b) or 0
end

local outages = { refuse = 0, ["503"] = 1, silent = 2, ["429"] = 3 }
local tells = { nothing = 0, delay = 1, headers = 2 }

local function server(where, s, level)
  options.check(where, s, rules.server, level + 1)
  for _, name in ipairs { "stall", "error", "quota", "outage" } do
    options.check(where .. ": " .. name, s[name] or {}, rules[name], level + 1)
  end
  local stall, err, quota, outage = s.stall or {}, s.error or {}, s.quota or {}, s.outage or {}
  local out = {
    weight = s.weight, per_row = s.per_row, places = s.places, queue = s.queue,
    stall_share = stall.share, stall = stall.time, error_share = err.share, error_status = err.status,
    rpm = quota.rpm, tpm = quota.tpm, quota_window = quota.window,
    quota_tells = tells[quota.tells or "delay"],
    outage_from = outage.from, outage_to = s.outage and (outage.to or FOR_EVER) or nil,
    outage = outages[outage.kind or "503"], outage_delay = outage.retry_after,
  }
  if outage.to and outage.to <= (outage.from or 0) then
    error(where .. ": outage: to must be later than from", level + 1)
  end
  add_latency(out, s.latency or "lognormal:20ms,0.2")
  return out
end

local function servers(scenario, level)
  local list, out = scenario.servers or { scenario.server or {} }, {}
  if #list < 1 or #list > 16 then
    error("simulate: servers: 1 to 16 expected", level + 1)
  end
  for i, s in ipairs(list) do
    out[i] = server(#list == 1 and "simulate: server" or ("simulate: servers[%d]"):format(i), s, level + 1)
  end
  return list, out
end

-- ---- policies -----------------------------------------------------------------------------------

-- Hooks that rewrite requests have none to rewrite here, and are left out; those that would change what
-- a request carries cannot be left out without changing the outcome.
local left_out = { before_request = true, after_response = true }
local refused = { batch = true, estimate_tokens = true }

local function hooks_of(where, t, level)
  local found, skipped = policy.hooks_of(t), {}
  for name in pairs(found or {}) do
    if refused[name] then
      error(("%s: %s: a function cannot be simulated here; declare it, or try it against moonpool mock")
        :format(where, name), level + 1)
    elseif left_out[name] then
      skipped[#skipped + 1] = name
    end
  end
  for _, name in ipairs(skipped) do found[name] = nil end
  table.sort(skipped)
  return found and next(found) and core.hooks(nil, found) or nil, skipped
end

local function one_policy(where, t, level)
  if type(t) == "string" then
    t = { preset = t, name = t }
  end
  options.check(where, t, rules.policy, level + 1)
  local all = policy.expand(t, where, level + 1)
  local compiled = policy.compile(all.preset or "job", all, where, level + 1)
  local hooks, skipped = hooks_of(where, all, level + 1)
  return { policy = compiled, hooks = hooks, skipped = skipped, given = all }
end

local function policies(scenario, level)
  local list, out = scenario.policies or { scenario.policy or "job" }, {}
  if #list < 1 or #list > 16 then
    error("simulate: policies: a list of 1 to 16 expected", level + 1)
  end
  for i, t in ipairs(list) do
    local where = #list == 1 and "simulate: policy" or ("simulate: policies[%d]"):format(i)
    local p = one_policy(where, t, level + 1)
    local given = p.given
    p.name = type(t) == "string" and t or given.name or given.policy_name
      or (#list > 1 and ("policy %d"):format(i)) or given.preset or "job"
    out[i] = p
  end
  return out
end

-- ---- load ---------------------------------------------------------------------------------------

-- A policy's own batch size changes how many requests the same rows come to.
local function batch_of(load, given, level)
  local b = given.batch
  local size = type(b) == "number" and b or type(b) == "table" and b.size or nil
  if type(b) == "table" then
    if b.chars or b.bytes then
      error("simulate: batch: rows of the model have tokens, but neither chars nor bytes", level + 1)
    elseif b.tokens and (load.tokens or 0) > 0 then
      size = math.min(size or math.maxinteger, math.max(1, math.floor(b.tokens / load.tokens)))
    end
  end
  return size or load.batch or 1
end

local function timeouts(t, fallback, level)
  t = t == nil and fallback or t
  if type(t) == "number" then
    t = { attempt = t }
  end
  t = t or {}
  options.check("simulate: timeout", t, rules.timeout, level + 1)
  return t
end

local function check_load(load, level)
  options.check("simulate: load", load, rules.load, level + 1)
  if load.requests and load.rows then
    error("simulate: load: requests or rows, not both", level + 1)
  end
  local count = load.requests or load.rows and math.ceil(load.rows / (load.batch or 1))
    or load.duration and (load.rate or 0) * load.duration or 0
  if count > MAX_REQUESTS then
    error(("simulate: load: at most %d requests"):format(MAX_REQUESTS), level + 1)
  end
end

local function input(scenario, load, p, level)
  local batch = batch_of(load, p.given, level + 1)
  local base = load.batch or 1
  local rows = load.rows or load.requests and load.requests * base
  if not rows and not load.duration then
    rows = 10000 * base
  end
  local limits = timeouts(p.given.timeout, scenario.timeout, level + 1)
  return {
    policy = p.policy, hooks = p.hooks, pool = scenario.max_connections,
    rate = load.rate and load.rate * base / batch,
    concurrency = p.given.max_concurrent_requests or load.concurrency,
    parts = math.min(MAX_REQUESTS, rows and math.ceil(rows / batch) or MAX_REQUESTS), total_rows = rows,
    duration = load.duration, rows = batch, tokens = load.tokens, poison_share = load.poison,
    attempt_timeout = limits.attempt, total_timeout = limits.total, pool_timeout = limits.pool,
    max_time = scenario.max_time or MAX_TIME,
  }
end

-- ---- outcome ------------------------------------------------------------------------------------

local function mean(list, from, to)
  local sum = 0
  for i = from, to do
    sum = sum + (list[i] or 0)
  end
  return sum / (to - from + 1)
end

--- Seconds from the end of the (last) outage until three seconds bring 95 % of what the twenty before
--- the outage brought; false: not within the run; nil: there was nothing to recover from, or to.
function M.recovery(ok, from, to)
  local first, last = math.max(2, math.floor(from) - 19), math.floor(from)
  if last - first < 2 or #ok < to + 3 then
    return nil
  end
  local goal = 0.95 * mean(ok, first, last)
  if goal == 0 then
    return nil
  end
  for second = math.ceil(to), #ok - 3 do
    if mean(ok, second + 1, second + 3) >= goal then
      return second - to
    end
  end
  return false
end

local function outage_span(list)
  local from, to
  for _, s in ipairs(list) do
    if s.outage and s.outage.to then
      from, to = math.min(from or math.huge, s.outage.from or 0), math.max(to or 0, s.outage.to)
    end
  end
  return from, to
end

-- Without what the real clock says of them: the same seed, the same figures.
local function hook_figures(h)
  return h.calls > 0 and {
    calls = h.calls, failed = h.errors + h.bad_verdicts + h.stopped, last_error = h.last_error,
  } or nil
end

local function complete(r, name, span)
  r.name = name
  r.hooks = hook_figures(r.hooks)
  r.attempts_per_request = r.requests > 0 and r.attempts / r.requests or 0
  r.throughput = r.time > 0 and r.ok / r.time or 0
  r.rows_per_second = r.time > 0 and r.rows_ok / r.time or 0
  r.throttled_share = r.attempts > 0 and r.throttled / r.attempts or 0
  r.capped = r.requests >= MAX_REQUESTS
  if span.from then
    r.recovery = M.recovery(r.seconds.ok, span.from, span.to)
  end
  return r
end

-- ---- the call -----------------------------------------------------------------------------------

--- What `moonpool simulate --seed` sets for the script that it runs.
M.overrides = {}

--- simulate(scenario): runs every policy; a result with .policies[i] = the figures of each, .seed, and the
--- methods text(), svg(), totable().
function M.run(scenario)
  local level = 2
  options.check("simulate", scenario, rules.scenario, level)
  local load = scenario.load or {}
  check_load(load, level)
  local given, models = servers(scenario, level)
  local list = policies(scenario, level)
  local seed = M.overrides.seed or scenario.seed or 1
  local from, to = outage_span(given)
  local result = report.new {
    name = scenario.name or "simulation", seed = seed, load = load, servers = given,
    outage = from and { from = from, to = to } or nil, policies = {},
  }
  local inputs = {}
  for i, p in ipairs(list) do
    inputs[i] = input(scenario, load, p, level)
  end
  for i, p in ipairs(list) do
    inputs[i].seed, inputs[i].servers = seed, models
    result.policies[i] = complete(core.simulate(inputs[i]), p.name, { from = from, to = to })
    result.policies[i].not_simulated = p.skipped
  end
  M.last = result
  return result
end

return M
