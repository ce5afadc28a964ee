-- moonpool.policy.declare: what may stand in the place of a policy: tables, short forms and functions,
-- checked and translated to the fields of the core's policy struct.
local options = require "moonpool.options"
local R = options.rule

local M = {}

M.places = { "retry", "hedge", "rate", "concurrency", "batch", "breaker", "route" }

--- Hooks that are no part of a place.
M.bare_hooks = { "classify", "estimate_tokens", "before_request", "after_response", "on_giveup" }

-- ---- the tables users write -----------------------------------------------------------------------

local function statuses_or_names(v)
  if type(v) ~= "table" then
    return "list of statuses and names expected"
  end
  for _, item in ipairs(v) do
    local ok = math.type(item) == "integer" and item >= 100 and item <= 65535
      or item == "connect" or item == "timeout" or item == "5xx" or item == "transport"
    if not ok then
      return "holds a value that is no status, '5xx', 'connect' or 'timeout'"
    end
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
  if t.when_empty then
    f["retry.fail_fast"] = t.when_empty == "fail"
  end
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
  if t == false then
    return
  end
  if type(t) == "string" then
    t = { mode = t }
  end
  if t.mode then
    f["route.mode"] = route_modes[t.mode]
  end
  f["route.eject"] = t.eject
end

-- Short forms that a place takes instead of a table.
local short = {
  retry = R.off, hedge = R.either(R.off, R.positive), rate = R.off,
  concurrency = R.either(R.off, R.count, R.one_of("adaptive")), batch = R.count,
  breaker = R.boolean, route = R.either(R.off, R.one_of("weighted", "least", "p2c", "sticky")),
}

for _, place in ipairs(M.places) do rules[place].hook = R.func end

local checked = setmetatable({}, { __mode = "k" }) -- tables that need not be checked again

--- Raises for a table that is no declaration of the place; returns it.
function M.check(place, t, where, level)
  if not checked[t] then
    options.check(where, t, rules[place], level + 1)
  end
  return t
end

--- As check, and remembers that it was fine.
function M.approve(place, t, where, level)
  M.check(place, t, where, level + 1)
  checked[t] = place
  return t
end

-- A hedge hook is asked about requests that may be hedged: hedging must be on for it.
local function hedging_on(t)
  if t.delay or t.after then
    return t
  end
  return { after = "2*p95", budget = t.budget or 0.05, reserve = t.reserve }
end

--- Adds the fields of the declaration of one place; raises naming the option.
function M.add(place, t, fields, where, level)
  level = (level or 2) + 1
  if type(t) == "function" then
    t = { hook = t }
  end
  if type(t) ~= "table" then
    local why = short[place](t)
    if why then
      error(("%s: %s: table or function expected (or a short form: %s)"):format(where, place, why), level)
    end
    if place == "hedge" and t then
      t = { delay = t }
    end
    if place == "batch" then
      t = { size = t }
    end
  else
    M.check(place, t, where .. ": " .. place, level)
    if t.hook then
      -- A hook beside a table that says nothing leaves the policy as it is.
      local said = false
      for name in pairs(t) do said = said or name ~= "hook" end
      if place == "hedge" then
        t = hedging_on(t)
      elseif not said then
        return
      end
    end
  end
  translate[place](t, fields)
end

-- ---- and back: fields of the struct as the tables above ------------------------------------------

local back = {}

local function nonzero(v)
  return v and v > 0 and v or nil
end

local function whole(v)
  v = nonzero(v)
  return v and math.tointeger(v)
end

function back.retry(f)
  local on = {}
  for _, status in ipairs(f.statuses) do on[#on + 1] = status end
  local bits = math.tointeger(f["retry.transport"])
  for _, name in ipairs(bits == faults.transport and { "transport" } or { "connect", "timeout" }) do
    if bits & faults[name] ~= 0 then
      on[#on + 1] = name
    end
  end
  return {
    max_attempts = whole(f["retry.max_attempts"]), base = nonzero(f["retry.base"]),
    throttle_base = nonzero(f["retry.throttle_base"]), cap = nonzero(f["retry.cap"]), on = on,
    budget = f["retry.budget"], reserve = f["retry.reserve"], budget_cap = f["retry.budget_cap"],
    max_retry_after = nonzero(f["retry.max_server_delay"]),
    respect_retry_after = f["retry.respect_retry_after"] ~= 0,
    when_empty = f["retry.fail_fast"] ~= 0 and "fail" or "park",
  }
end

function back.hedge(f)
  local t = { delay = nonzero(f["hedge.delay"]), budget = f["hedge.budget"], reserve = f["hedge.reserve"] }
  if not t.delay and f["hedge.factor"] > 0 then
    t.after = ("%g*p%g"):format(f["hedge.factor"], f["hedge.percentile"] * 100)
  end
  return (t.delay or t.after) and t or false
end

function back.rate(f)
  local t = { rpm = nonzero(f["rate.rpm"]), tpm = nonzero(f["rate.tpm"]), share = nonzero(f["rate.share"]) }
  return (t.rpm or t.tpm) and t or false
end

function back.concurrency(f)
  local mode = f["concurrency.mode"]
  if mode == 0 then
    return false
  end
  return {
    mode = mode == 1 and "fixed" or "adaptive", limit = whole(f["concurrency.limit"]),
    max = whole(f["concurrency.max"]), min = whole(f["concurrency.min"]),
  }
end

function back.batch(f)
  return {
    size = whole(f["batch.size"]), chars = whole(f["batch.chars"]), tokens = whole(f["batch.tokens"]),
    bytes = whole(f["batch.bytes"]), max_wait = f["batch.max_wait"],
  }
end

function back.breaker(f)
  if f["breaker.enabled"] == 0 then
    return false
  end
  return {
    consecutive = whole(f["breaker.consecutive"]), ratio = nonzero(f["breaker.ratio"]),
    min_requests = whole(f["breaker.min_requests"]), window = nonzero(f["breaker.window"]),
    open = nonzero(f["breaker.open"]), open_max = nonzero(f["breaker.open_max"]),
  }
end

local mode_names = { [0] = "weighted", "least", "p2c", "sticky" }

function back.route(f)
  return { mode = mode_names[math.tointeger(f["route.mode"])], eject = f["route.eject"] ~= 0 }
end

--- The places of compiled fields, as a user would write them.
function M.places_of(fields)
  local t = {}
  for _, place in ipairs(M.places) do t[place] = back[place](fields) end
  return t
end

return M
