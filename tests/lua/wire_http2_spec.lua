-- HTTP/2 against nginx and nghttpx: streams share connections, and what goes wrong with one of them.

local moonpool = require "moonpool"
local programs = require "support.programs"
local rig = require "client_rig"

local certs

local tls_server = [[
  server {
    listen 127.0.0.1:$port ssl http2; ssl_certificate $cert; ssl_certificate_key $key; $more
    location / { proxy_pass http://127.0.0.1:$up; }
  }
]]

-- Counts what runs at once; POST {"sleep": s} waits so long.
local function upstream()
  local now = { running = 0, peak = 0, left = 0 }
  local server = rig.serve(function(seen)
    now.running = now.running + 1
    now.peak = math.max(now.peak, now.running)
    local ok, err = pcall(moonpool.sleep, seen.body and seen.body.sleep or 0.02)
    now.running = now.running - 1
    if not ok then
      now.left = now.left + 1
      error(err, 0)
    end
    return { json = { n = seen.body and seen.body.n, bytes = #seen.text } }
  end)
  return server, now
end

local function nginx(up, more)
  local self = programs.nginx(tls_server, { cert = certs.server.cert, key = certs.server.key,
    up = up.port, more = more or "" })
  self.url = "https://localhost:" .. self.port
  return self
end

local function client(url, pool, opts)
  opts = opts or {}
  opts.http_version, opts.pool, opts.tls = "2", pool, { ca_file = certs.ca }
  return rig.client(url, opts)
end

local function post(c, n, body, more)
  local payloads = {}
  for i = 1, n do
    payloads[i] = body and body(i) or { n = i }
  end
  local o = { path = "/x", payloads = payloads, max_concurrent_requests = n }
  for name, value in pairs(more or {}) do
    o[name] = value
  end
  return rig.within(60, c.batch_post, c, o)
end

-- The connections that the replies came by, counted.
local function connections(res, header)
  local seen, n = {}, 0
  for i = 1, #res do
    local id = res[i].headers and res[i].headers[header or "x-connection"]
    if id and not seen[id] then
      seen[id] = true
      n = n + 1
    end
  end
  return n
end

local function all_answered(res, n)
  assert.is_true(res.ok, res.errors[1] and tostring(res.errors[1].error))
  for i = 1, n do
    assert.equal(i, res[i].data.n)
  end
end

setup(function()
  certs = programs.find "openssl" and programs.certificates()
end)

teardown(function()
  if certs then
    certs.remove()
  end
end)

programs.describe(_ENV, "nginx openssl", "HTTP/2 over TLS (nginx)", function()
  after_each(rig.close_all)

  it("has many requests in flight over one connection", function()
    local up, now = upstream()
    local c = client(nginx(up).url, { max_connections = 64, lane_size = 64 })
    local res = assert(post(c, 256, function(i) return { n = i, sleep = 0.05 } end,
      { max_concurrent_requests = 64 }))
    all_answered(res, 256)
    assert.equal("HTTP/2.0", res[1].headers["x-protocol"])
    assert.equal(1, connections(res))
    assert.is_true(now.peak > 32, "at once: " .. now.peak)
    local pool = c:stats().pool
    assert.equal(1, pool.opened)
    assert.equal(255, pool.reused)
  end)

  it("uses one connection a lane when there is more than a lane's work", function()
    local up, now = upstream()
    local c = client(nginx(up).url, { max_connections = 64, lane_size = 16 })
    local res = assert(post(c, 200, function(i) return { n = i, sleep = 0.05 } end,
      { max_concurrent_requests = 64 }))
    all_answered(res, 200)
    assert.equal(4, connections(res))
    assert.equal(4, c:stats().pool.opened)
    assert.is_true(now.peak > 32 and now.peak <= 64, "at once: " .. now.peak)
  end)

  it("opens more connections when the server allows few streams on one", function()
    local up = upstream()
    local c = client(nginx(up, "http2_max_concurrent_streams 8;").url,
      { max_connections = 32, lane_size = 32 })
    local res = assert(post(c, 64, function(i) return { n = i, sleep = 0.05 } end,
      { max_concurrent_requests = 32 }))
    all_answered(res, 64)
    assert.is_true(connections(res) >= 2)
  end)

  it("a cancelled request ends its stream and not its neighbour's", function()
    local up, now = upstream()
    local c = client(nginx(up).url, { max_connections = 8 })
    assert(post(c, 1, function(i) return { n = i, sleep = 0 } end))
    local token = moonpool.cancel_token()
    moonpool.scope(function(s)
      local slow = s:spawn(function()
        return c:request { method = "POST", path = "/x", json = { n = 1, sleep = 30 }, cancel_token = token }
      end)
      local good = s:spawn(function()
        return c:request { method = "POST", path = "/x", json = { n = 2, sleep = 0.3 } }
      end)
      rig.until_true("both run", function() return now.running == 2 end)
      token:cancel()
      local res, err = slow:await()
      assert.is_nil(res)
      assert.equal("cancelled", err.kind)
      assert.equal(2, assert(good:await()).data.n)
    end)
    rig.until_true("the upstream saw it leave", function() return now.left == 1 end)
    local pool = c:stats().pool
    assert.equal(1, pool.opened)
    assert.equal(1, pool.open)
  end)

  it("goes on elsewhere when the server says goodbye to a connection", function()
    local up = upstream()
    local c = client(nginx(up, "keepalive_requests 20;").url, { max_connections = 32, lane_size = 32 })
    local res = assert(post(c, 200, function(i) return { n = i, sleep = 0.01 } end,
      { max_concurrent_requests = 16 }))
    all_answered(res, 200)
    assert.is_true(connections(res) >= 10)
  end)

  it("sends large bodies side by side", function()
    local up = upstream()
    local c = client(nginx(up).url, { max_connections = 16 })
    local text = ("0123456789abcdef"):rep(1 << 16)
    local res = assert(post(c, 12, function(i) return { n = i, sleep = 0, text = text } end))
    all_answered(res, 12)
    for i = 1, 12 do
      assert.is_true(res[i].data.bytes > 1 << 20)
    end
    assert.equal(1, connections(res))
  end)

  it("speaks HTTP/1.1 with a server that knows no other", function()
    local up = upstream()
    local plain = programs.nginx([[ server {
      listen 127.0.0.1:$port ssl; ssl_certificate $cert; ssl_certificate_key $key;
      location / { proxy_pass http://127.0.0.1:$up; } } ]],
      { cert = certs.server.cert, key = certs.server.key, up = up.port })
    local c = client("https://localhost:" .. plain.port, { max_connections = 8 })
    local res = assert(post(c, 16))
    all_answered(res, 16)
    assert.equal("HTTP/1.1", res[1].headers["x-protocol"])
    assert.is_true(connections(res) <= 8)
  end)
end)

programs.describe(_ENV, "nghttpx openssl", "HTTP/2 (nghttpx)", function()
  after_each(rig.close_all)

  local function shared(proxy, url, protocol, now)
    local c = client(url, { max_connections = 32 })
    local res = assert(post(c, 64, function(i) return { n = i, sleep = 0.1 } end,
      { max_concurrent_requests = 32 }))
    all_answered(res, 64)
    assert.equal(1, c:stats().pool.opened)
    assert.is_true(now.peak > 16, "at once: " .. now.peak)
    assert.equal(64, proxy.spoken(protocol))
  end

  it("is spoken over TLS", function()
    local up, now = upstream()
    local proxy = programs.nghttpx(up.port, certs.server)
    shared(proxy, "https://localhost:" .. proxy.port, "h2", now)
  end)

  it("is spoken without TLS, to a server that is known to speak it", function()
    local up, now = upstream()
    local proxy = programs.nghttpx(up.port)
    shared(proxy, "http://127.0.0.1:" .. proxy.port, "h2c", now)
  end)

  local function dies(tls, scheme)
    local up, now = upstream()
    local proxy = programs.nghttpx(up.port, tls)
    local c = client(scheme .. "localhost:" .. proxy.port, { max_connections = 32 },
      { retry = { max_attempts = 20, base = 0.05, cap = 0.1, budget = 10 } })
    local res
    moonpool.scope(function(s)
      local job = s:spawn(post, c, 32, function(i) return { n = i, sleep = i > 8 and 0.5 or 0 } end)
      rig.until_true("requests are in flight", function() return now.running >= 16 end)
      proxy.restart()
      res = assert(job:await())
    end)
    all_answered(res, 32)
    assert.is_true(c:stats().retries >= 16, "retries: " .. c:stats().retries)
    all_answered(assert(post(c, 8)), 8)
    assert.is_true(proxy.spoken "http/1.1" <= 2) -- the two looks whether it is up
  end

  it("retries what was in flight when the server died", function()
    dies(certs.server, "https://")
  end)

  it("retries what was in flight when the server died, without TLS", function()
    dies(nil, "http://")
  end)
end)
