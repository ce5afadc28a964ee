-- canary - a small share of the traffic to a new deployment, and back at once when it fails.
--
--   local client = moonpool.client {
--     endpoints = { { base_url = old }, { base_url = new, weight = 0 } },
--     policy = require "examples.policies.canary" { endpoint = 2, share = 0.05 },
--   }
--
-- Weight 0 makes the canary a spare that ordinary routing leaves alone. Which requests go there is
-- decided by their id, so the share is exact in the long run and a request's retries agree; a retry
-- goes back to the others. When of the last `window` requests there (at least `least`) more than
-- `max_failures` failed, the canary gets nothing for `pause` seconds.
--
-- Options: endpoint = 2, share = 0.05, max_failures = 0.1, window = 100, least = 10, pause = 60,
-- on_trip = function(failed, of).

-- The last n outcomes in a ring, with their sum of failures.
local function ring(n)
  return { n = n, at = 0, filled = 0, failed = 0 }
end

local function note(r, bad)
  r.at = r.at % r.n + 1
  if r[r.at] then r.failed = r.failed - 1 end
  r[r.at] = bad
  if bad then r.failed = r.failed + 1 end
  r.filled = math.min(r.filled + 1, r.n)
end

return function(o)
  o = o or {}
  local endpoint, share = o.endpoint or 2, o.share or 0.05
  local limit, least, pause = o.max_failures or 0.1, o.least or 10, o.pause or 60
  local outcomes = ring(o.window or 100)
  local shut_until = -math.huge

  local function chosen(view)
    return view.id % 1000000 < share * 1000000
  end

  return {
    name = "canary",
    route = function(view)
      if view.attempts > 0 or view.now < shut_until or not chosen(view) then return end
      local _, sound = view:load(endpoint)
      if sound then return endpoint end
    end,
    classify = function(view)
      if view.endpoint ~= endpoint then return end
      local class = view.class
      note(outcomes, class ~= "ok" and class ~= "cancelled")
      if outcomes.filled < least or outcomes.failed <= limit * outcomes.filled then return end
      if o.on_trip then o.on_trip(outcomes.failed, outcomes.filled) end
      shut_until = view.now + pause
      outcomes = ring(outcomes.n)
    end,
  }
end
