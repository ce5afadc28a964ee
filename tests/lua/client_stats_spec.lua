-- stats() of a client: its own waiting requests, the latencies of all its endpoints.

local moonpool = require "moonpool"
local rig = require "client_rig"

describe("stats", function()
  after_each(rig.close_all)

  it("counts the requests of this client that wait for a connection, not those of others", function()
    local gate = moonpool.semaphore(1)
    local held = gate:acquire()
    local server = rig.embedder(function() gate:with(function() end) end)
    local busy = rig.client(server, { pool = { max_connections = 1 }, timeout = { pool = false } })
    local idle = rig.client(server)
    moonpool.scope(function(scope)
      for _ = 1, 3 do scope:spawn(function() assert(busy:embed { input = "1" }) end) end
      rig.until_true("one is sent and two wait", function() return busy:stats().pool.waiting == 2 end)
      assert.equal(0, idle:stats().pool.waiting)
      gate:release(held)
    end)
    assert.equal(0, busy:stats().pool.waiting)
  end)

  it("has the latencies of every endpoint", function()
    local slow = rig.embedder(function() moonpool.sleep(0.05) end)
    local quick = rig.embedder()
    local client = rig.keep(moonpool.client { route = "weighted",
      endpoints = { { base_url = quick.url }, { base_url = slow.url } } })
    for _ = 1, 40 do assert(client:embed { input = "1" }) end
    assert.is_true(#slow.log > 0 and #quick.log > 0)
    assert.is_true(client:stats().latency.p99 > 0.04)
  end)
end)
