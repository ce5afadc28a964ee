-- cost_cap - stop before the bill is larger than it may be.
--
--   local cap = require "examples.policies.cost_cap" { usd = 5, per_million_tokens = 0.02 }
--   local client = moonpool.client { base_url = url, policy = cap }
--   ... print(cap:spent())
--
-- Every request is charged when it may go: by the estimate of its tokens while it is in flight, by the
-- reply's `usage` once it is known. One that could pass the cap fails with an error of kind "budget";
-- rows that were paid for are kept. Failed attempts are not charged, as providers do not charge them.
--
-- Options: usd, per_million_tokens; on_cap = function(spent), called once; forget = 900, seconds after
-- which a request that was cut short no longer counts as on its way.

local cap = {}
cap.__index = cap

--- Dollars of replies, and of requests on their way by estimate.
function cap:spent()
  return self.state.tokens * self.state.price, self.state.reserved * self.state.price
end

-- Chat and rerank replies are kept as text, and say it there.
local function tokens_of(view)
  if view.tokens_used then return view.tokens_used end
  local said = view.body and view.body:match '"total_tokens"%s*:%s*(%d+)'
  return tonumber(said) or view.tokens
end

local function release(s, id)
  local held = s.held[id]
  if held then
    s.held[id] = nil
    s.reserved = s.reserved - held.tokens
  end
end

-- A cancelled call asks no hook: what it had reserved is let go after a while.
local function forget(s, now)
  for id, held in pairs(s.held) do
    if now - held.at > s.forget then release(s, id) end
  end
end

local function fits(s, tokens)
  return (s.tokens + s.reserved + tokens) * s.price <= s.usd
end

local function reserve(s, view)
  local id, tokens, now = view.id, view.tokens, view.now
  release(s, id) -- its last attempt failed
  if not fits(s, tokens) then forget(s, now) end
  if not fits(s, tokens) then
    -- Estimates are of the safe side: what is on its way may turn out cheaper.
    if s.reserved > 0 and (s.tokens + tokens) * s.price <= s.usd then return 0.05 end
    if s.on_cap then
      local tell = s.on_cap
      s.on_cap = nil
      tell(s.tokens * s.price)
    end
    return "fail"
  end
  s.held[id] = { tokens = tokens, at = now }
  s.reserved = s.reserved + tokens
end

local function settle(s, view)
  release(s, view.id)
  if view.class == "ok" then s.tokens = s.tokens + tokens_of(view) end
end

return function(o)
  local s = {
    usd = assert(o.usd, "cost_cap: usd: missing"),
    price = assert(o.per_million_tokens, "cost_cap: per_million_tokens: missing") / 1e6,
    forget = o.forget or 900, on_cap = o.on_cap, tokens = 0, reserved = 0, held = {},
  }
  local policy = {
    name = "cost_cap",
    rate = function(view) return reserve(s, view) end,
    classify = function(view) settle(s, view) end,
  }
  return setmetatable(policy, { __index = setmetatable({ state = s }, cap) })
end
