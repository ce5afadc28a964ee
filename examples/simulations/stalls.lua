-- One request in a hundred hangs for five seconds, as a busy model server's do.
--
--   moonpool simulate examples/simulations/stalls.lua --svg stalls.svg
--
-- What to see: without hedging p99 is five seconds, and the job takes three times as long because its slots
-- are full of requests that hang. A second copy after twice the p95 brings p99.9 under 0.1 s for 1 % more
-- requests; after p95 itself it is a little better still, for four times as many copies, which is near
-- the budget of 5 %. A time-out of a second with a retry helps, but it must be guessed.
return {
  name = "Stalls, and what hides them",
  load = { requests = 20000, concurrency = 32 },
  server = { latency = "lognormal:20ms,0.2", stall = { share = 0.01, time = 5 } },
  policies = {
    { name = "no hedging", preset = "job" },
    { name = "hedge after 2*p95", hedge = { after = "2*p95" } },
    { name = "hedge after p95", hedge = { after = "1*p95" } },
    { name = "time-out of 1 s and retry", timeout = 1 },
  },
}
