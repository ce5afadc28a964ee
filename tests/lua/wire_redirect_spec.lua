-- Redirects: which are followed, and that no key and no text goes where it was not meant to go.

local rig = require "client_rig"

local KEY = "sk-canary-redirect"

local function server(to, status)
  return rig.serve(function(seen)
    local where = to[seen.path]
    if where then
      return { status = status or 307, headers = { location = where }, body = "moved" }
    end
    return { json = { path = seen.path, query = seen.query, method = seen.method, text = seen.text,
      key = seen.headers["x-api-key"] } }
  end)
end

local function ask(s, method, path, body)
  local c = rig.client(s, { headers = { ["X-API-Key"] = KEY }, api_key = KEY })
  local res, err = c:request { method = method, path = path, json = body }
  return res, err, c
end

describe("redirects", function()
  after_each(rig.close_all)

  it("by 307 and 308 on the same server are followed with method, body and headers", function()
    for _, status in ipairs { 307, 308 } do
      local s = server({ ["/a"] = "/b?x=1" }, status)
      local res, _, c = ask(s, "POST", "/a", { n = 1 })
      assert.equal("/b", res.data.path)
      assert.equal("x=1", res.data.query)
      assert.equal("POST", res.data.method)
      assert.equal('{"n":1}', res.data.text)
      assert.equal(KEY, res.data.key)
      assert.equal(200, res.status)
      assert.equal(1, c:stats().attempts)
      assert.equal(0, c:stats().retries)
    end
  end)

  it("of a large body and of a batch are followed", function()
    local s
    s = rig.serve(function(seen)
      if seen.path == "/v1/embeddings" then
        return { status = 308, headers = { location = s.url .. "/moved" } }
      end
      return { json = rig.embeddings(seen.body.input) }
    end)
    local texts = rig.texts(2000)
    local c = rig.client(s)
    assert.is_nil(rig.wrong_row(assert(c:embed { input = texts, batch_size = 500 }), texts))
    assert.equal(8, #s.log)
    local long = ("x"):rep(1 << 20)
    local res = assert(ask(server { ["/a"] = "/b" }, "POST", "/a", { long = long }))
    assert.equal(#'{"long":""}' + #long, #res.data.text)
  end)

  it("are taken relative to where they were met", function()
    local s = server { ["/x/a"] = "b", ["/x/b"] = "../c", ["/c"] = "/d" }
    assert.equal("/d", assert(ask(s, "GET", "/x/a")).data.path)
  end)

  it("by 301, 302 and 303 are followed for GET", function()
    for _, status in ipairs { 301, 302, 303 } do
      local res = assert(ask(server({ ["/a"] = "/b" }, status), "GET", "/a"))
      assert.equal("/b", res.data.path)
    end
  end)

  it("by 301, 302 and 303 are not followed for POST", function()
    for _, status in ipairs { 301, 302, 303 } do
      local s = server({ ["/a"] = "/b" }, status)
      local res, err = ask(s, "POST", "/a", { n = 1 })
      assert.is_nil(res)
      assert.equal("http", err.kind)
      assert.equal(status, err.status)
      assert.equal(1, err.attempts)
      assert.matches("redirect of a POST to /b is not followed", err.message)
      assert.equal(1, #s.log)
    end
  end)

  it("to another server are not followed: it gets nothing", function()
    local other = server {}
    local port = other.url:match "%d+$"
    for _, to in ipairs { other.url .. "/b", "//127.0.0.1:" .. port .. "/b",
      "http://localhost:" .. port .. "/b",
      "https://127.0.0.1:" .. port .. "/b", "http://user:pw@127.0.0.1:" .. port .. "/b", "file:///etc/passwd",
      "ht tp://x", "unix:/tmp/x" } do
      local s = server { ["/a"] = to }
      for _, method in ipairs { "GET", "POST" } do
        local res, err = ask(s, method, "/a", method == "POST" and { n = 1 } or nil)
        assert.is_nil(res, to)
        assert.equal("http", err.kind)
        assert.equal(307, err.status)
        assert.matches("is not followed", err.message)
        assert.equal(1, err.attempts)
      end
    end
    assert.equal(0, #other.log)
  end)

  it("show no query in the error", function()
    local _, err = ask(server { ["/a"] = "http://localhost:1/b?sig=secret" }, "GET", "/a")
    assert.matches("http://localhost:1/b is not", err.message)
    assert.is_nil(tostring(err):find("secret", 1, true))
  end)

  it("end after three", function()
    local s = server { ["/a"] = "/b", ["/b"] = "/c", ["/c"] = "/a" }
    local res, err = ask(s, "GET", "/a")
    assert.is_nil(res)
    assert.equal(307, err.status)
    assert.matches("not followed after 3 others", err.message)
    assert.equal(4, #s.log)
  end)

  it("to nowhere are errors", function()
    local s = rig.serve(function() return { status = 302, body = "" } end)
    local _, err = ask(s, "GET", "/a")
    assert.matches("redirect to nowhere", err.message)
  end)
end)
