-- TLS against nginx with an authority made here: who is trusted, who must show a certificate, what the
-- errors say, and what is reused.

local moonpool = require "moonpool"
local programs = require "support.programs"
local rig = require "client_rig"

local certs

local server_lines = [[
  server {
    listen 127.0.0.1:$port ssl; ssl_certificate $cert; ssl_certificate_key $key;
    ssl_protocols $versions; $more
    location / { default_type application/json; return 200
      '{"reused":"$ssl_session_reused","protocol":"$ssl_protocol","client":"$ssl_client_s_dn"}'; }
  }
]]

local function nginx(pair, more, versions)
  local self = programs.nginx(server_lines, { cert = pair.cert, key = pair.key, more = more or "",
    versions = versions or "TLSv1.2 TLSv1.3" })
  self.url = "https://localhost:" .. self.port
  return self
end

local function ask(server, tls, opts)
  opts = opts or {}
  opts.tls = tls
  local c = rig.client(server.url, opts)
  local res, err = rig.within(20, c.request, c, { method = "GET", path = "/" })
  return res, err, c
end

local function refused(server, tls, words)
  local res, err, c = ask(server, tls)
  assert.is_nil(res)
  assert.equal("tls", err.kind)
  assert.equal(1, err.attempts)
  assert.is_false(err.retryable)
  for _, word in ipairs(words) do
    assert.truthy(err.message:lower():find(word, 1, true), err.message)
  end
  assert.equal(0, c:stats().retries)
  return err
end

setup(function()
  certs = programs.find "openssl" and programs.certificates()
end)

teardown(function()
  if certs then
    certs.remove()
  end
end)

programs.describe(_ENV, "nginx openssl", "TLS", function()
  after_each(rig.close_all)

  it("trusts the authority of tls.ca_file", function()
    local res = assert(ask(nginx(certs.server), { ca_file = certs.ca }))
    assert.equal("TLSv1.3", res.data.protocol)
  end)

  it("trusts no unknown authority, and says which option helps", function()
    refused(nginx(certs.server), nil, { "certificate", "tls.ca_file" })
    refused(nginx(certs.server), { ca_file = certs.foreign }, { "certificate", "tls.ca_file" })
  end)

  it("wants the certificate to be for the host it asked for", function()
    refused(nginx(certs.other), { ca_file = certs.ca }, { "localhost", "host name" })
  end)

  it("wants a certificate that has not expired", function()
    refused(nginx(certs.expired), { ca_file = certs.ca }, { "expired" })
  end)

  it("speaks no TLS before 1.2", function()
    refused(nginx(certs.server, "ssl_ciphers ALL:@SECLEVEL=0;", "TLSv1.1"), { ca_file = certs.ca }, { "tls" })
    local res = assert(ask(nginx(certs.server, "", "TLSv1.2"), { ca_file = certs.ca }))
    assert.equal("TLSv1.2", res.data.protocol)
  end)

  it("checks nothing when told so", function()
    assert(ask(nginx(certs.expired), { verify = false }))
    assert(ask(nginx(certs.other), nil, { verify_ssl = false }))
  end)

  it("shows its certificate to a server that asks for one", function()
    local server = nginx(certs.server, ("ssl_client_certificate %s; ssl_verify_client on;"):format(certs.ca))
    local pair = { ca_file = certs.ca, cert_file = certs.client.cert, key_file = certs.client.key }
    assert.equal("CN=a client", assert(ask(server, pair)).data.client)
    -- nginx lets the handshake pass and then says what it misses.
    local _, err = ask(server, { ca_file = certs.ca })
    assert.equal(400, err.status)
    assert.matches("No required SSL certificate", err.body)
    pair.cert_file, pair.key_file = certs.stranger.cert, certs.stranger.key
    _, err = ask(server, pair)
    assert.equal(400, err.status)
    -- A key that is not the certificate's
    pair.cert_file = certs.client.cert
    refused(server, pair, { "key" })
  end)

  it("keeps connections, and resumes a session when it opens another", function()
    local server = nginx(certs.server, "ssl_session_cache shared:s:1m; keepalive_requests 3;")
    local c = rig.client(server.url, { tls = { ca_file = certs.ca } })
    local resumed = 0
    for _ = 1, 9 do
      local res = assert(c:request { method = "GET", path = "/" })
      resumed = resumed + (res.data.reused == "r" and 1 or 0)
    end
    local pool = c:stats().pool
    assert.equal(3, pool.opened)
    assert.equal(6, pool.reused)
    assert.equal(6, resumed) -- the two later connections, three requests each
  end)

  it("does not use another client's connection that trusts more", function()
    local server, pool = nginx(certs.server), moonpool.pool { max_connections = 8 }
    rig.keep { close = function() pool:close() end }
    local lax = rig.client(server.url, { pool = pool, tls = { verify = false } })
    assert(lax:request { method = "GET", path = "/" })
    local strict = rig.client(server.url, { pool = pool })
    local res, err = strict:request { method = "GET", path = "/" }
    assert.is_nil(res)
    assert.equal("tls", err.kind)
  end)

  it("takes a handshake that breaks for a fault of the line, which is retried", function()
    local relay = programs.breaking_relay(nginx(certs.server).port, 2)
    local c = rig.client("https://localhost:" .. relay.port, { tls = { ca_file = certs.ca } })
    assert(c:request { method = "GET", path = "/" })
    assert.equal(2, c:stats().retries)
  end)
end)

describe("TLS options", function()
  local function warnings(tls)
    local script = os.tmpname()
    programs.write(script, ([[
      local moonpool = require "moonpool"
      local c <close> = moonpool.client { base_url = "https://localhost:1", retry = false, tls = %s }
      for _ = 1, 3 do c:request { method = "GET", path = "/" } end]]):format(tls))
    local text = programs.must(("'%s' run %s"):format(os.getenv "MOONPOOL", script))
    os.remove(script)
    return select(2, text:gsub("are not verified", ""))
  end

  it("warn once when certificates are not checked", function()
    assert.equal(1, warnings "{ verify = false }")
    assert.equal(0, warnings "{}")
  end)

  it("name a file that is not there before any request", function()
    for _, name in ipairs { "ca_file", "cert_file", "key_file" } do
      local ok, err = pcall(moonpool.client, { base_url = "https://localhost:1",
        tls = { [name] = "/nonexistent/file" } })
      assert.is_false(ok)
      assert.truthy(err:find(name, 1, true) and err:find("/nonexistent/file", 1, true), err)
    end
  end)
end)
