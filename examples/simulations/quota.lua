-- A key with 600 requests and 60,000 tokens a minute, enforced second by second, and a job that wants more.
--
--   moonpool simulate examples/simulations/quota.lua --svg quota.svg
--
-- What to see: with the rate declared the job uses 95 % of the quota, and its only 429s are those of the
-- first second, in which it may send a second's worth at once. Without, it learns the quota from refusals:
-- about every sixth attempt is one, and a few requests run out of attempts. Few requests at once are no
-- rate limit either: they are too many or too few as the latency changes.
return {
  name = "A quota of 600 requests and 60,000 tokens a minute",
  load = { duration = 300, concurrency = 32, batch = 4, tokens = 25 },
  server = {
    latency = "lognormal:200ms,0.2",
    quota = { rpm = 600, tpm = 60000, tells = "nothing" }, -- 429s without Retry-After
  },
  policies = {
    { name = "no declared rate", preset = "job" },
    { name = "declared rate", rate = { rpm = 600, tpm = 60000 } },
    { name = "two at once", concurrency = 2 },
  },
}
