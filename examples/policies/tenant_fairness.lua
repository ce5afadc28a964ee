-- tenant_fairness - one tenant's million rows must not starve another's ten.
--
--   local fair = require "examples.policies.tenant_fairness" { weights = { gold = 4, free = 1 } }
--   local client = moonpool.client { base_url = url, policy = fair }
--   client:embed { input = texts, tag = "gold" }   -- the tag names the tenant
--
-- Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each tenant has a clock that runs on by
-- cost / weight with every request that goes; whoever is ahead of the slowest waiting tenant by more
-- than `slack` waits. A tenant that asks for nothing for `idle` seconds is out of the reckoning and
-- saves up no credit. So shares hold only while several want more than there is; one alone gets all.
-- Only what still waits can be put in order: give the client a `concurrency`, or what one tenant has
-- sent at once is in front of everybody.
--
-- Options: weights = {tag = share}, default = 1 (weight of the others), cost = "requests" or "tokens",
-- slack = 1 (requests, or 1000 tokens), idle = 0.1 s.

local function slowest(s, now)
  local least
  for name, t in pairs(s.tenants) do
    if now - t.asked > s.forget then
      s.tenants[name] = nil
    elseif now - t.asked <= s.idle and (not least or t.clock < least) then
      least = t.clock
    end
  end
  return least
end

local function tenant(s, view, now)
  local name = view.tag
  if name == nil then name = "default" end
  local t = s.tenants[name] or { weight = s.weights[name] or s.default, clock = 0, asked = -math.huge }
  if now - t.asked > s.idle then -- new, or back again: as late as the others, not later
    t.clock = math.max(t.clock, slowest(s, now) or s.clock)
    s.tenants[name] = t
  end
  t.asked = now
  return t
end

return function(o)
  o = o or {}
  local by_tokens = o.cost == "tokens"
  local s = {
    tenants = {}, weights = o.weights or {}, default = o.default or 1, idle = o.idle or 0.1,
    slack = o.slack or (by_tokens and 1000 or 1), forget = 60, clock = 0,
  }
  return {
    name = "tenant_fairness",
    rate = function(view)
      local now = view.now
      local t = tenant(s, view, now)
      if t.clock - slowest(s, now) > s.slack then return 0.01 end
      t.clock = t.clock + (by_tokens and view.tokens or 1) / t.weight
      s.clock = math.max(s.clock, t.clock)
    end,
  }
end
