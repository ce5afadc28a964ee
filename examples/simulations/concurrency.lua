-- A server with 16 places that queues 64 more: how many requests at once are right?
--
--   moonpool simulate examples/simulations/concurrency.lua --svg concurrency.svg
--
-- What to see: 16 give all the throughput at the best latency, if one knows that there are 16 places. Four
-- waste three quarters of the server, 256 overrun its queue and are answered 429. Adaptive reaches the
-- same throughput within the first second knowing nothing; it pays with some time in the queue.
return {
  name = "How many at once, for a server with 16 places",
  load = { duration = 60, concurrency = 256 },
  server = { latency = "lognormal:100ms,0.2", places = 16, queue = 64 },
  policies = {
    { name = "4 at once", concurrency = 4 },
    { name = "16 at once", concurrency = 16 },
    { name = "256 at once", concurrency = 256 },
    { name = "adaptive", concurrency = "adaptive" },
  },
}
