-- pool.max_per_host: how many requests one endpoint sees at once.
local moonpool = require "moonpool"

local function counting()
  local now, most = 0, 0
  local server = moonpool.serve { listen = "127.0.0.1:0", handler = function()
    now = now + 1
    most = math.max(most, now)
    moonpool.sleep(0.005)
    now = now - 1
    return { json = { ok = true } }
  end }
  return server, function() return most end
end

local function payloads(n)
  local t = {}
  for i = 1, n do t[i] = { n = i } end
  return t
end

describe("pool.max_per_host", function()
  it("bounds the requests at one endpoint", function()
    local server <close>, most = counting()
    local client <close> = moonpool.client { base_url = server.url, pool = { max_per_host = 3 } }
    assert(client:batch_post { path = "/", payloads = payloads(30) })
    assert.equal(3, most())
  end)

  it("counts each endpoint for itself, also in a shared pool", function()
    local a <close>, most_a = counting()
    local b <close>, most_b = counting()
    local pool = moonpool.pool { max_per_host = 2 }
    local client <close> = moonpool.client {
      endpoints = { { base_url = a.url }, { base_url = b.url } }, pool = pool,
    }
    assert(client:batch_post { path = "/", payloads = payloads(40) })
    assert.same({ 2, 2 }, { most_a(), most_b() })
  end)

  it("and a lower concurrency policy: the lower one holds", function()
    local server <close>, most = counting()
    local client <close> = moonpool.client { base_url = server.url, pool = { max_per_host = 5 },
      concurrency = 2 }
    assert(client:batch_post { path = "/", payloads = payloads(10) })
    assert.equal(2, most())
    assert.error_matches(function()
      moonpool.client { base_url = server.url, pool = { max_per_host = 0 } }
    end, "max_per_host")
  end)
end)
