-- A service's steady traffic meets a server that answers 503 for half a minute.
--
--   moonpool simulate examples/simulations/outage.lua --svg outage.svg
--
-- What to see: "job" holds back what the outage refused and delivers it afterwards; hardly a row is lost,
-- and during the outage the server sees little more than the arrivals. With a breaker it sees next to
-- nothing, and the first answers come up to a probe's interval later. Retrying without a budget is an
-- attack on a server in trouble (six times the arrivals), and loses rows besides. "gateway" says no at
-- once, which is right when somebody waits.
return {
  name = "An outage of 30 seconds",
  load = { rate = 100, duration = 150 },
  timeout = { attempt = 5, total = 60 },
  server = {
    latency = "lognormal:200ms,0.3", places = 32,
    outage = { from = 40, to = 70, kind = "503" }, -- or refuse, silent, 429
  },
  policies = {
    { name = "job", preset = "job" },
    { name = "job with a breaker", breaker = { open = 2, open_max = 8 } },
    { name = "retry without a budget", retry = { budget = 3, reserve = 1000000, budget_cap = 1000000 } },
    { name = "gateway", preset = "gateway" },
    { name = "no retry", preset = "none" },
  },
}
