-- The pool: how many connections, how long they wait and rest, who shares them, and what is told of
-- them.

local moonpool = require "moonpool"
local programs = require "support.programs"
local rig = require "client_rig"

-- A server that takes `seconds` for an answer and counts what it does at once.
local function slow(seconds, opts)
  local now = { running = 0, peak = 0 }
  local server = rig.serve(function()
    now.running = now.running + 1
    now.peak = math.max(now.peak, now.running)
    moonpool.sleep(seconds)
    now.running = now.running - 1
    return { json = { ok = true } }
  end, opts)
  return server, now
end

local function post(c, n, more)
  local payloads = {}
  for i = 1, n do
    payloads[i] = { n = i }
  end
  local o = { path = "/x", payloads = payloads, max_concurrent_requests = n }
  for name, value in pairs(more or {}) do
    o[name] = value
  end
  return assert(rig.within(30, c.batch_post, c, o))
end

local function connections(server, n)
  rig.until_true(n .. " connections are left", function() return server:stats().connections_now == n end)
end

describe("the pool", function()
  after_each(rig.close_all)

  it("opens no more than max_connections", function()
    local server, now = slow(0.005)
    local c = rig.client(server, { pool = { max_connections = 3 } })
    assert.is_true(post(c, 40).ok)
    assert.equal(3, now.peak)
    assert.equal(3, server:stats().connections_opened)
    local pool = c:stats().pool
    assert.equal(3, pool.opened)
    assert.equal(37, pool.reused)
    assert.equal(3, pool.open)
    assert.equal(3, pool.idle)
    assert.equal(3, pool.ports_in_use)
    assert.equal(0, pool.waiting)
    assert.equal(0, pool.dropped)
    assert.equal(0, pool.refused)
    assert.is_true(pool.tcp_retransmits >= 0)
    assert.is_true(pool.wait_p50 > 0 and pool.wait_p99 >= pool.wait_p50)
    assert.is_nil(c:stats().hint)
  end)

  it("gives up waiting after pool_timeout, and says what helps", function()
    local server = slow(0.3)
    local c = rig.client(server, { pool = { max_connections = 2 }, timeout = { pool = 0.05 }, retry = false })
    local res = post(c, 6)
    assert.is_false(res.ok)
    assert.equal(4, #res.errors)
    for _, entry in ipairs(res.errors) do
      assert.equal("pool_timeout", entry.error.kind)
      assert.matches("raise pool.max_connections or lower max_concurrent_requests", entry.error.message)
    end
    local stats = c:stats()
    assert.equal(4, stats.pool.timeouts)
    assert.matches("raise pool.max_connections", stats.hint)
  end)

  it("does not count the wait for a place among max_concurrent_requests as waiting", function()
    local server = slow(0.05)
    local c = rig.client(server, { pool = { max_connections = 2 }, timeout = { pool = 0.04 }, retry = false })
    assert.is_true(post(c, 8, { max_concurrent_requests = 2 }).ok)
  end)

  it("keeps no more than max_idle when the work is done, and the oldest go first", function()
    local server = slow(0.02)
    local c = rig.client(server, { pool = { max_idle = 5 } })
    post(c, 20)
    assert.equal(20, c:stats().pool.open)
    connections(server, 5)
    rig.until_true("they are closed here too", function() return c:stats().pool.open == 5 end)
    assert.equal(5, c:stats().pool.idle)
    assert.is_true(post(c, 5).ok) -- with what is left
    assert.equal(20, c:stats().pool.opened)
  end)

  it("closes what has rested for idle_timeout, with no further request", function()
    local server = slow(0.01)
    local c = rig.client(server, { pool = { idle_timeout = 0.2 } })
    post(c, 8)
    connections(server, 0)
    rig.until_true("they are closed here too", function() return c:stats().pool.open == 0 end)
    assert.is_true(post(c, 8).ok)
    assert.equal(16, c:stats().pool.opened)
    assert.equal(0, c:stats().retries)
  end)

  it("closes what is older than max_age", function()
    local server = slow(0.001)
    local c = rig.client(server, { pool = { max_age = 0.5 } })
    post(c, 8)
    connections(server, 0)
    -- One that never rests is replaced too.
    local stop = moonpool.now() + 2.5
    while moonpool.now() < stop do
      post(c, 1)
    end
    local opened = c:stats().pool.opened - 8
    assert.is_true(opened >= 2 and opened <= 6, "opened: " .. opened)
    assert.equal(0, c:stats().retries)
  end)

  it("is shared by clients of different servers", function()
    local a, in_a = slow(0.01)
    local b, in_b = slow(0.01)
    local pool = rig.keep(moonpool.pool { max_connections = 4 })
    local one, other = rig.client(a, { pool = pool }), rig.client(b, { pool = pool })
    local most = 0
    moonpool.scope(function(s)
      s:spawn(post, one, 30)
      s:spawn(post, other, 30)
      local watch = s:spawn(function()
        while in_a.running + in_b.running > 0 or most == 0 do
          most = math.max(most, in_a.running + in_b.running)
          moonpool.sleep(0.002)
        end
      end)
      watch:await()
    end)
    assert.is_true(most <= 4, "at once: " .. most)
    assert.is_true(in_a.peak >= 1 and in_b.peak >= 1)
    assert.equal(one:stats().pool.open, other:stats().pool.open)
    assert.equal(30, one:stats().pool.opened + one:stats().pool.reused)
    one:close()
    assert.is_true(post(other, 10).ok) -- the pool lives on
  end)

  it("counts connections that the server refused and dropped", function()
    local dead = rig.client(rig.dead_url(), { retry = { max_attempts = 2, base = 0.001 } })
    local _, err = dead:request { method = "GET", path = "/" }
    assert.matches("refused", err.message)
    assert.matches("is the server running", err.message)
    assert.equal(2, dead:stats().pool.refused)
    local begun = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nx"
    local server = rig.serve(function() return { body = begun, fault = { raw = true, ends = "reset" } } end)
    local c = rig.client(server, { retry = { max_attempts = 3, base = 0.001 } })
    _, err = c:request { method = "GET", path = "/" }
    assert.equal("connect", err.kind)
    assert.equal(3, c:stats().pool.dropped)
  end)

  it("reads the reply that came ahead of a reset", function()
    local server = rig.serve(function()
      return { status = 413, body = '{"error":{"message":"at most 900 bytes"}}', fault = { ends = "reset" } }
    end)
    local c = rig.client(server, { retry = { max_attempts = 3, base = 0.001 } })
    local _, err = c:request { method = "POST", path = "/", json = { text = ("x"):rep(1 << 16) } }
    assert.equal(413, err.status)
    assert.matches("at most 900 bytes", err.message, 1, true)
    assert.equal(0, c:stats().pool.dropped)
  end)
end)

describe("a server that closes idle connections", function()
  after_each(rig.close_all)

  -- Pauses around the moment of closing, so that some requests meet a connection that is going.
  local function through(c, pause)
    for i = 1, 30 do
      local res, err = c:request { method = "POST", path = "/", json = { n = i } }
      assert.is_nil(err, err)
      assert.equal(200, res.status)
      moonpool.sleep(pause * (0.8 + 0.4 * (i % 7) / 7))
    end
  end

  it("after a time makes no request fail", function()
    local server = assert(moonpool.serve { listen = "127.0.0.1:0", idle_timeout = 0.03,
      handler = function() return { json = {} } end })
    rig.keep(server)
    through(rig.client(server, { retry = false }), 0.03)
    assert.is_true(server:stats().connections_opened > 1)
  end)

  it("after each reply without a word makes no request fail", function()
    local server = programs.recorder("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    local c = rig.client("http://127.0.0.1:" .. server.port, { retry = false })
    through(c, 0)
    assert.equal(30, c:stats().pool.opened)
  end)
end)

programs.describe(_ENV, "nginx openssl", "a TLS server that closes idle connections", function()
  after_each(rig.close_all)

  for version, listen in pairs { ["1.1"] = "ssl", ["2"] = "ssl http2" } do
    it("makes no request fail, and is not kept open here: HTTP/" .. version, function()
      local certs = programs.certificates()
      rig.keep { close = certs.remove }
      local server = programs.nginx([[ server {
        listen 127.0.0.1:$port $listen; ssl_certificate $cert; ssl_certificate_key $key; keepalive_timeout 1s;
        location / { return 200 '{}'; } } ]],
        { cert = certs.server.cert, key = certs.server.key, listen = listen })
      local c = rig.client("https://localhost:" .. server.port, { tls = { ca_file = certs.ca },
        http_version = version, retry = false })
      assert.is_true(post(c, 6, { method = "GET" }).ok)
      assert.is_true(c:stats().pool.open > 0)
      rig.until_true("they are closed here too", function() return c:stats().pool.open == 0 end)
      assert.is_true(post(c, 6, { method = "GET" }).ok)
      assert.equal(0, c:stats().pool.dropped)
    end)
  end
end)

describe("a streamed reply whose reader is slow", function()
  after_each(rig.close_all)

  -- A connection from which nothing is read looks idle, and is not.
  local function read_slowly(url, opts)
    opts.pool = { idle_timeout = 0.2, max_idle = 1 }
    local c = rig.client(url, opts)
    local n, pauses = 0, 0
    for chunk in assert(c:stream { method = "GET", path = "/", sse = false }) do
      n = n + #chunk
      if n > (1 << 20) * pauses then
        pauses = pauses + 1
        moonpool.sleep(0.5)
      end
    end
    return n, pauses, c
  end

  local function source()
    return rig.keep(assert(moonpool.serve { listen = "127.0.0.1:0", handler = function()
      local left = 48
      return { headers = { ["content-type"] = "application/octet-stream" }, stream = function()
        left = left - 1
        return left >= 0 and ("x"):rep(65536) or nil
      end }
    end }))
  end

  it("keeps its connection", function()
    local n, pauses = read_slowly(source().url, {})
    assert.equal(48 * 65536, n)
    assert.is_true(pauses >= 3)
  end)

  it("keeps its connection of HTTP/2", function()
    if not (programs.find "nginx" and programs.find "openssl") then
      return pending "not installed: nginx, openssl (./scripts/setup test)"
    end
    local certs = programs.certificates()
    rig.keep { close = certs.remove }
    local front = programs.nginx([[ server {
      listen 127.0.0.1:$port ssl http2; ssl_certificate $cert; ssl_certificate_key $key;
      location / { proxy_pass http://127.0.0.1:$up; } } ]],
      { cert = certs.server.cert, key = certs.server.key, up = source().port })
    local n = read_slowly("https://localhost:" .. front.port, { http_version = "2",
      tls = { ca_file = certs.ca } })
    assert.equal(48 * 65536, n)
  end)
end)

describe("a machine without local ports", function()
  after_each(rig.close_all)

  it("is told apart from a server that refuses", function()
    if not programs.find "unshare" or programs.output "unshare -rn true && echo yes" ~= "yes\n" then
      return pending "no network namespace of one's own (unshare -rn)"
    end
    local dir = programs.directory()
    programs.write(dir .. "/few.pl", [[
      my $up = pack("a16 S x14", "lo", 0x41); # SIOCSIFFLAGS: UP, RUNNING
      socket(my $s, 2, 1, 0); ioctl($s, 0x8914, $up) or die "lo: $!";
      open(my $f, ">", "/proc/sys/net/ipv4/ip_local_port_range") or die; print $f "50000 50003"; close $f;
      exec @ARGV;]])
    programs.write(dir .. "/few.lua", [[
      local moonpool = require "moonpool"
      local server <close> = assert(moonpool.serve { listen = "127.0.0.1:40000", handler = function()
        moonpool.sleep(0.3)
        return { json = {} }
      end })
      local c <close> = moonpool.client { base_url = server.url, retry = false }
      local payloads = {}
      for i = 1, 12 do payloads[i] = { n = i } end
      local res = c:batch_post { path = "/", payloads = payloads }
      local stats = c:stats()
      print("failed", #res.errors, res.errors[1].error.kind, stats.pool.no_local_port, stats.pool.refused)
      print("says", res.errors[1].error.message)
      print("hint", stats.hint)]])
    local text = programs.output(("unshare -rn perl %s/few.pl '%s' run %s/few.lua"):format(dir,
      os.getenv "MOONPOOL", dir))
    assert.matches("failed\t8\tconnect\t8\t0\n", text)
    assert.matches("says\t[^\n]*no local port is free", text)
    assert.matches("hint\t[^\n]*no local port left", text)
    assert.equal(1, select(2, text:gsub("warn:", "")))
  end)
end)
