-- policy - declarations of retry, hedge, rate, concurrency, batch, breaker and route, checked and
-- translated to the fields of the core's policy struct.
local core = require "moonpool.core"
local options = require "moonpool.options"
local R = options.rule

local M = {}

-- ---- the tables users write -----------------------------------------------------------------------

local function statuses_or_names(v)
  if type(v) ~= "table" then return "list of statuses and names expected" end
  for _, item in ipairs(v) do
    local ok = math.type(item) == "integer" and item >= 100 and item <= 65535
      or item == "connect" or item == "timeout" or item == "5xx" or item == "transport"
    if not ok then return "holds a value that is no status, '5xx', 'connect' or 'timeout'" end
  end
end

local function percentile_factor(v)
  if type(v) ~= "string" or not v:find("^%s*%d*%.?%d*%s*%*?%s*p%d+%.?%d*%s*$") then
    return "a text such as '2*p95' expected"
  end
end

local rules = {
  retry = {
    max_attempts = R.count, base = R.positive, throttle_base = R.positive, cap = R.positive,
    on = statuses_or_names, budget = R.not_negative, reserve = R.not_negative,
    budget_cap = R.not_negative, respect_retry_after = R.boolean, max_retry_after = R.positive,
    when_empty = R.one_of("park", "fail"), jitter = R.one_of("full"), never = statuses_or_names,
  },
  hedge = {
    delay = R.positive, after = percentile_factor, budget = R.not_negative, reserve = R.not_negative,
  },
  rate = { rpm = R.positive, tpm = R.positive, share = R.positive, key = R.string },
  concurrency = {
    mode = R.one_of("fixed", "adaptive", "off"), limit = R.count, start = R.count, max = R.count,
    min = R.count,
  },
  batch = {
    size = R.count, chars = R.count, tokens = R.count, bytes = R.count, max_wait = R.not_negative,
  },
  breaker = {
    consecutive = R.count, ratio = R.positive, min_requests = R.count, window = R.positive,
    open = R.positive, open_max = R.positive,
  },
  route = {
    mode = R.one_of("weighted", "least", "p2c", "sticky"), eject = R.boolean,
  },
}

-- ---- translation, place by place: (declaration, fields) -------------------------------------------

local translate = {}

local function add_status(set, item, on)
  if item == "5xx" then
    for s = 500, 599 do set[s] = on end
  elseif type(item) == "number" then
    set[item] = on
  end
end

-- Bits of enum mp_fault_bits: the request never left; a timeout; the connection or the reply broke.
local faults = { connect = 1, timeout = 2, transport = 7 }

function translate.retry(t, f)
  if t == false then
    f["retry.max_attempts"] = 1
    return
  end
  f["retry.max_attempts"] = t.max_attempts
  f["retry.base"] = t.base
  f["retry.throttle_base"] = t.throttle_base or (t.base and math.max(t.base, 1))
  f["retry.cap"] = t.cap
  f["retry.budget"] = t.budget
  f["retry.reserve"] = t.reserve
  f["retry.budget_cap"] = t.budget_cap
  f["retry.max_server_delay"] = t.max_retry_after
  f["retry.respect_retry_after"] = t.respect_retry_after
  if t.when_empty then f["retry.fail_fast"] = t.when_empty == "fail" end
  if t.on then
    local set, transport = { clear = true }, 0
    for _, item in ipairs(t.on) do
      transport = transport | (faults[item] or 0)
      add_status(set, item, true)
    end
    f.statuses, f["retry.transport"] = set, transport
  end
  for _, item in ipairs(t.never or {}) do
    f.statuses = f.statuses or {}
    add_status(f.statuses, item, false)
    if faults[item] then
      f["retry.transport"] = (f["retry.transport"] or faults.transport) & ~faults[item]
    end
  end
end

function translate.hedge(t, f)
  if t == false then
    f["hedge.delay"], f["hedge.factor"] = 0, 0
    return
  end
  if t.delay then
    f["hedge.delay"], f["hedge.factor"] = t.delay, 0
  elseif t.after then
    local factor, p = t.after:match("^%s*([%d.]*)%s*%*?%s*p([%d.]+)%s*$")
    f["hedge.delay"] = 0
    f["hedge.factor"] = tonumber(factor) or 1
    f["hedge.percentile"] = tonumber(p) / 100
  end
  f["hedge.budget"] = t.budget
  f["hedge.reserve"] = t.reserve
end

function translate.rate(t, f)
  f["rate.rpm"] = t and t.rpm or 0
  f["rate.tpm"] = t and t.tpm or 0
  f["rate.share"] = t and t.share or nil
end

local modes = { off = 0, fixed = 1, adaptive = 2 }

function translate.concurrency(t, f)
  if t == false then
    f["concurrency.mode"] = 0
  elseif type(t) == "number" then
    f["concurrency.mode"], f["concurrency.limit"] = 1, t
  elseif t == "adaptive" then
    f["concurrency.mode"] = 2
  else
    f["concurrency.mode"] = modes[t.mode or "fixed"]
    f["concurrency.limit"] = t.limit or t.start
    f["concurrency.max"] = t.max
    f["concurrency.min"] = t.min
  end
end

function translate.batch(t, f)
  f["batch.size"] = t.size
  f["batch.chars"] = t.chars
  f["batch.tokens"] = t.tokens
  f["batch.bytes"] = t.bytes
  f["batch.max_wait"] = t.max_wait
end

function translate.breaker(t, f)
  f["breaker.enabled"] = t ~= false
  if type(t) == "table" then
    for _, name in ipairs { "consecutive", "ratio", "min_requests", "window", "open", "open_max" } do
      f["breaker." .. name] = t[name]
    end
  end
end

local route_modes = { weighted = 0, least = 1, p2c = 2, sticky = 3 }

function translate.route(t, f)
  if t == false then return end
  if type(t) == "string" then t = { mode = t } end
  if t.mode then f["route.mode"] = route_modes[t.mode] end
  f["route.eject"] = t.eject
end

-- Short forms that a place takes instead of a table.
local short = {
  retry = R.off, hedge = R.either(R.off, R.positive), rate = R.off,
  concurrency = R.either(R.off, R.count, R.one_of("adaptive")), batch = R.count,
  breaker = R.boolean, route = R.either(R.off, R.one_of("weighted", "least", "p2c", "sticky")),
}

local places = { "retry", "hedge", "rate", "concurrency", "batch", "breaker", "route" }
M.places = places

local built = setmetatable({}, { __mode = "k" }) -- tables that a constructor below has checked

--- Adds the fields of the declaration of one place; raises naming the option.
function M.add(place, t, fields, where, level)
  level = (level or 2) + 1
  if type(t) ~= "table" then
    local why = short[place](t)
    if why then error(("%s: %s: table expected (or a short form: %s)"):format(where, place, why), level) end
    if place == "hedge" and t then t = { delay = t } end
    if place == "batch" then t = { size = t } end
  elseif not built[t] then
    options.check(where .. ": " .. place, t, rules[place], level)
  end
  translate[place](t, fields)
end

local presets = { job = true, gateway = true, interactive = true, none = true }

--- The compiled policy: a preset (or an earlier policy) with the places that `t` declares on top.
function M.compile(base, t, where, level)
  level = (level or 2) + 1
  local fields = {}
  for _, place in ipairs(places) do
    if t[place] ~= nil then M.add(place, t[place], fields, where, level) end
  end
  for name, value in pairs(t.fields or {}) do fields[name] = value end
  if type(base) == "string" and not presets[base] then
    error(("%s: preset: must be one of job, gateway, interactive, none, got '%s'"):format(where, base), level)
  end
  return core.policy(base or "job", fields)
end

--- moonpool.policy.retry {...} and so on: a checked declaration to be used in several places.
for _, place in ipairs(places) do
  M[place] = function(t)
    options.check("policy." .. place, t, rules[place], 2)
    built[t] = place
    return t
  end
end

--- What a preset comes to, as {["retry.max_attempts"] = 6, ...}.
function M.preset(name)
  if not presets[name] then
    error("policy.preset: must be one of job, gateway, interactive, none", 2)
  end
  return core.policy_fields(core.policy(name, {}))
end

return M
