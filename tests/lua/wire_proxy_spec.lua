-- Proxies: tinyproxy for http and https with a password, which requests go through it, and what it
-- never gets to see.

local moonpool = require "moonpool"
local programs = require "support.programs"
local rig = require "client_rig"

local certs
local PASSWORD, KEY = "pass-canary-4711", "sk-canary-0815"

local tls_server = [[
  server {
    listen 127.0.0.1:$port ssl; ssl_certificate $cert; ssl_certificate_key $key;
    location / { default_type application/json; return 200
      '{"authorization":"$http_authorization","proxy":"$http_proxy_authorization","via":"$http_via"}'; }
  }
]]

local function https_server()
  local self = programs.nginx(tls_server, { cert = certs.server.cert, key = certs.server.key })
  self.url = "https://localhost:" .. self.port
  return self
end

local function http_server()
  return rig.serve(function(seen)
    return { json = { proxy = seen.headers["proxy-authorization"], via = seen.headers.via,
      authorization = seen.headers.authorization } }
  end)
end

local function ask(url, proxy, opts)
  opts = opts or {}
  opts.proxy, opts.api_key, opts.tls = proxy, KEY, { ca_file = certs and certs.ca }
  local c = rig.client(url, opts)
  local res, err = rig.within(20, c.request, c, { method = "GET", path = "/p" })
  return res, err, c
end

-- tinyproxy is slower to write its log than to answer.
local function logged(proxy, text)
  rig.until_true("the proxy's log has " .. text, function()
    return table.concat(proxy.requests(), "\n"):find(text, 1, true)
  end)
end

local function with_user(proxy, user)
  return (proxy.url:gsub("//", "//" .. user .. "@"))
end

setup(function()
  certs = programs.find "openssl" and programs.certificates()
end)

teardown(function()
  if certs then
    certs.remove()
  end
end)

programs.describe(_ENV, "tinyproxy nginx openssl", "proxies (tinyproxy)", function()
  after_each(rig.close_all)

  it("carry http", function()
    local proxy, server = programs.tinyproxy(), http_server()
    local res, _, c = ask(server.url, proxy.url)
    assert.matches("tinyproxy", res.data.via)
    assert.equal("Bearer " .. KEY, res.data.authorization)
    logged(proxy, "GET " .. server.url .. "/p")
    for _ = 1, 5 do
      assert(c:request { method = "GET", path = "/p" })
    end
  end)

  it("carry https by CONNECT with user and password, over connections that are kept", function()
    local proxy, server = programs.tinyproxy("me", PASSWORD), https_server()
    local res, err, c = ask(server.url, { https = with_user(proxy, "me:" .. PASSWORD) })
    assert.is_nil(err)
    assert.equal("Bearer " .. KEY, res.data.authorization)
    assert.equal("", res.data.proxy) -- the proxy's password is none of the server's business
    for _ = 1, 5 do
      assert(c:request { method = "GET", path = "/p" })
    end
    assert.equal(1, c:stats().pool.opened)
    logged(proxy, "CONNECT localhost:" .. server.port)
    assert.equal(1, #proxy.requests() - 1) -- and the look whether it is up
  end)

  it("take percent-encoded user names and passwords", function()
    local proxy, server = programs.tinyproxy("me", "pass"), https_server()
    assert(ask(server.url, with_user(proxy, "m%%65:p%%61ss")))
  end)

  it("that refuse a password are a clear error, without the password and without retries", function()
    local proxy, server, plain = programs.tinyproxy("me", "another"), https_server(), http_server()
    for _, url in ipairs { server.url, plain.url } do
      for _, user in ipairs { "me:" .. PASSWORD, false } do
        local res, err, c = ask(url, user and with_user(proxy, user) or proxy.url)
        assert.is_nil(res)
        assert.equal("http", err.kind)
        assert.is_true(err.status == 407 or err.status == 401, err.status) -- its word for a wrong one
        assert.equal(1, err.attempts)
        if err.status == 407 or url == server.url then
          assert.truthy(err.message:find("check the proxy's user and password", 1, true), err.message)
        end
        local shown = tostring(err) .. tostring(err.body) .. tostring(c) .. tostring(err.endpoint)
        assert.is_nil(shown:find(PASSWORD, 1, true))
        assert.is_nil(shown:find(KEY, 1, true))
      end
    end
    assert.equal(0, #plain.log)
  end)

  it("that cannot reach the server say so, and are asked again", function()
    local proxy = programs.tinyproxy()
    local port = programs.free_port()
    local res, err = ask("https://localhost:" .. port, proxy.url,
      { retry = { max_attempts = 2, base = 0.001 } })
    assert.is_nil(res)
    assert.equal("http", err.kind)
    assert.is_true(err.status >= 500, err.status)
    assert.equal(2, err.attempts)
    assert.matches("proxy", err.message)
  end)

  it("that are not there are a connect error", function()
    local res, err = ask(https_server().url, rig.dead_url(), { retry = false })
    assert.is_nil(res)
    assert.equal("connect", err.kind)
  end)

  -- Two requests by a program of its own, one http and one https: how many of them came through, how
  -- many the proxy saw, and what was printed.
  local function run(environment, mode, proxy, plain, tls)
    local path = programs.directory() .. "/ask.lua"
    programs.write(path, ([[
      local moonpool = require "moonpool"
      for _, url in ipairs { "%s", "%s" } do
        local opts = { base_url = url, retry = false, tls = { ca_file = "%s" } }
        if arg[1] == "off" then opts.proxy = false end
        if arg[1] == "none" then opts.proxy = { no_proxy = "example.com, localhost,127.0.0.1" } end
        local c <close> = moonpool.client(opts)
        local res, err = c:request { method = "GET", path = "/p" }
        print(res and "fine" or tostring(err))
      end]]):format(plain.url, tls.url, certs.ca))
    local before = #proxy.requests()
    local pipe = io.popen(("env -u no_proxy -u NO_PROXY %s '%s' run %s %s 2>&1"):format(
      environment, os.getenv "MOONPOOL", path, mode or ""))
    local text = pipe:read "a"
    pipe:close()
    return select(2, text:gsub("fine", "")), #proxy.requests() - before, text
  end

  it("come from the environment", function()
    local proxy, tls = programs.tinyproxy("me", PASSWORD), https_server()
    local plain = programs.nginx "server { listen 127.0.0.1:$port; location / { return 200 '{}'; } }"
    local address = with_user(proxy, "me:" .. PASSWORD)
    local function through(environment, mode)
      local fine, seen, text = run(environment:gsub("@", { ["@"] = address }), mode, proxy, plain, tls)
      assert.equal(2, fine, text)
      return seen
    end
    assert.equal(0, through "")
    assert.equal(1, through "http_proxy=@")
    assert.equal(0, through "HTTP_PROXY=@") -- a web server's name for a header that anybody may send
    assert.equal(1, through "https_proxy=@")
    assert.equal(1, through "HTTPS_PROXY=@")
    assert.equal(2, through "http_proxy=@ https_proxy=@")
    assert.equal(2, through "all_proxy=@")
    assert.equal(2, through "ALL_PROXY=@")
    assert.equal(0, through "all_proxy=@ no_proxy=localhost,127.0.0.1")
    assert.equal(1, through "all_proxy=@ NO_PROXY=.example.com,localhost")
    assert.equal(0, through "all_proxy=@ no_proxy='*'")
    assert.equal(0, through("all_proxy=@", "off"))
    assert.equal(0, through("all_proxy=@", "none"))
    local fine, _, text = run("all_proxy=ftp://me:" .. PASSWORD .. "@localhost:1", nil, proxy, plain, tls)
    assert.equal(0, fine)
    assert.matches("not a proxy's URL", text)
    assert.is_nil(text:find(PASSWORD, 1, true))
  end)
end)

programs.describe(_ENV, "nghttpx tinyproxy nginx openssl", "a proxy that is itself reached by TLS", function()
  after_each(rig.close_all)

  it("carries http and https, if its certificate is right", function()
    local inner, server, plain = programs.tinyproxy(), https_server(), http_server()
    local outer = programs.nghttpx(inner.port, certs.server, "--http2-proxy")
    local url = "https://localhost:" .. outer.port
    assert.equal("Bearer " .. KEY, assert(ask(server.url, url)).data.authorization)
    assert.equal("Bearer " .. KEY, assert(ask(plain.url, url)).data.authorization)
    logged(inner, "CONNECT localhost:" .. server.port)
    local strange = programs.nghttpx(inner.port, certs.other, "--http2-proxy")
    local res, err = ask(server.url, "https://localhost:" .. strange.port)
    assert.is_nil(res)
    assert.equal("tls", err.kind)
    assert.equal(1, err.attempts)
  end)
end)

describe("a proxy that writes down what it hears", function()
  after_each(rig.close_all)

  it("gets no key, no header of the request and no body on CONNECT", function()
    local heard = programs.recorder("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    local c = rig.client("https://localhost:1/v1", { proxy = "http://me:secret@127.0.0.1:" .. heard.port,
      api_key = KEY, headers = { ["X-Mine"] = "x-canary" } })
    local res, err = c:embed { input = { "text-canary" }, model = "m" }
    assert.is_nil(res)
    assert.equal(403, err.status)
    local text = programs.read(heard.log)
    assert.matches("CONNECT localhost:1 HTTP/1.1\r\n", text)
    assert.matches("Proxy%-Authorization: Basic bWU6c2VjcmV0\r\n", text)
    assert.is_nil(text:lower():find "canary")
    assert.is_nil(text:lower():find "\nauthorization")
    assert.is_nil(text:lower():find "x%-request%-id")
    assert.is_nil(text:lower():find "content")
  end)

  it("is refused when its URL makes no sense, without showing the password", function()
    for _, proxy in ipairs { "ftp://me:secret@localhost:1", "gopher://me:secret@x",
      "http://me:secret@ho st:1" } do
      local ok, err = pcall(moonpool.client, { base_url = "http://localhost:1", proxy = proxy })
      assert.is_false(ok)
      assert.matches("proxy", err)
      assert.is_nil(err:find("secret", 1, true))
    end
  end)
end)
