-- moonpool.mock.faults: what goes wrong with which request, decided by the seed and the request's
-- number alone, so a run can be had again.

local parse = require "moonpool.mock.parse"

local M = {}

-- splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
local function mix(z)
  z = (z ~ (z >> 30)) * 0xbf58476d1ce4e5b9
  z = (z ~ (z >> 27)) * 0x94d049bb133111eb
  return z ~ (z >> 31)
end

--- A source of numbers in [0, 1) that depends on seed and n only.
function M.draws(seed, n)
  local state = mix(seed + n * 0x9e3779b97f4a7c15)
  return function()
    state = state + 0x9e3779b97f4a7c15
    return (mix(state) >> 11) * 0x1p-53
  end
end

local parsers = {
  latency = parse.latency, slow = parse.slow, reset = parse.share, truncate = parse.share,
  short = parse.share, chunk = parse.count, dribble = parse.count, outage = parse.outage,
  quota = parse.quota, concurrency = parse.concurrency, fail_first = parse.fail_first,
  stall_first = parse.stall_first, latency_per_input = parse.duration, workers = parse.count,
}

local function errors(value)
  local list = {}
  for i, text in ipairs(type(value) == "table" and value or { value }) do
    local spec, err = parse.error(text)
    if not spec then
      return nil, err
    end
    list[i] = spec
  end
  return list
end

--- Options as given -> options parsed; nil and a message.
function M.parse(opts)
  local parsed = { shuffle = opts.shuffle or false }
  for name, parser in pairs(parsers) do
    if opts[name] then
      local value, err = parser(opts[name])
      if not value then
        return nil, ("%s: %s"):format(name, err)
      end
      parsed[name] = value
    end
  end
  local err
  parsed.errors, err = errors(opts.error or {})
  return parsed.errors and parsed or nil, err
end

local function pick_error(list, u)
  for _, spec in ipairs(list) do
    if u < spec.share then
      return spec
    end
    u = u - spec.share
  end
end

--- What happens to request n (from 1): {error=, stall=, latency=, reset=, truncate=, short=, draw=}.
-- Every kind has its own draw, so switching one fault on does not move the others.
function M.plan(f, seed, n)
  local draw = M.draws(seed, n)
  local u_error, u_slow, u_reset, u_short, u_truncate = draw(), draw(), draw(), draw(), draw()
  local plan = { draw = draw }
  if f.fail_first and n <= f.fail_first.count then
    plan.error = f.fail_first
  else
    plan.error = pick_error(f.errors, u_error)
  end
  if f.stall_first and n <= f.stall_first.count then
    plan.stall = f.stall_first.duration
  elseif f.slow and u_slow < f.slow.share then
    plan.stall = f.slow.duration
  end
  plan.latency = f.latency and f.latency(draw) or 0
  plan.reset = f.reset and u_reset < f.reset
  plan.truncate = f.truncate and u_truncate < f.truncate
  plan.short = f.short and u_short < f.short
  return plan
end

--- The order in which n items go out, shuffled and perhaps one short; nil: all, as they came.
function M.order(f, plan, n)
  if not f.shuffle and not plan.short then
    return nil
  end
  local order = {}
  for i = 1, n do
    order[i] = i
  end
  if f.shuffle then
    for i = n, 2, -1 do
      local j = 1 + math.floor(plan.draw() * i)
      order[i], order[j] = order[j], order[i]
    end
  end
  if plan.short and n > 0 then
    order[n] = nil
  end
  return order
end

return M
