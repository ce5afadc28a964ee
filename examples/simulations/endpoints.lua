-- Three endpoints of eight places each: one is well, one is ten times slower, one is dead.
--
--   moonpool simulate examples/simulations/endpoints.lua --svg endpoints.svg
--
-- What to see: the dead one costs eight retries and no row, because it is ejected. Whoever counts what is in
-- flight sends the slow one little, so p90 and p99 fall. Without retry and ejection half of the requests
-- fail: the dead one fails so fast that it looks idle.
local function endpoint(t)
  t.places, t.latency = 8, t.latency or "lognormal:20ms,0.2"
  return t
end

return {
  name = "Three endpoints, one slow and one dead",
  load = { duration = 60, rate = 300 },
  servers = {
    endpoint {},
    endpoint { latency = "lognormal:200ms,0.2" },
    endpoint { outage = { kind = "refuse" } },
  },
  policies = {
    { name = "weighted", route = "weighted" },
    { name = "least in flight", route = "least" },
    { name = "power of two choices", route = "p2c" },
    { name = "no retry, no ejection", preset = "none" },
  },
}
