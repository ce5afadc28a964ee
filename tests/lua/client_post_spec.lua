-- client:batch_post and client:request over real sockets: methods, bodies, replies, headers, errors
-- by row.

local moonpool = require "moonpool"
local json = require "moonpool.json"
local rig = require "client_rig"

local function echo()
  return rig.serve(function(seen)
    return { json = { method = seen.method, path = seen.path, query = seen.query, text = seen.text,
      headers = seen.headers } }
  end)
end

local function payloads(n)
  local list = {}
  for i = 1, n do list[i] = { n = i } end
  return list
end

describe("batch_post", function()
  after_each(rig.close_all)

  it("answers in the order of the payloads, whatever ends first", function()
    local server = rig.serve(function(seen)
      moonpool.sleep(0.001 * (seen.body.n * 7 % 5))
      return { json = { square = seen.body.n ^ 2 // 1 } }
    end)
    local res = assert(rig.client(server):batch_post { path = "/x", payloads = payloads(50),
      max_concurrent_requests = 10 })
    assert.is_true(res.ok)
    assert.equal(50, #res)
    for i = 1, 50 do
      assert.equal(i * i, res[i].data.square)
      assert.equal(200, res[i].status)
      assert.equal("application/json", res[i].headers["content-type"])
      assert.is_true(res[i].time > 0)
      assert.is_nil(res[i].error)
    end
    assert.equal(50, #server.log)
  end)

  it("sends a body with POST, PUT and PATCH only", function()
    local client = rig.client(echo())
    for _, method in ipairs { "POST", "PUT", "PATCH" } do
      local res = assert(client:batch_post { path = "/m", payloads = { { a = 1 } }, method = method })
      assert.equal(method, res[1].data.method)
      assert.equal('{"a":1}', res[1].data.text)
      assert.equal("application/json", res[1].data.headers["content-type"])
    end
    for _, method in ipairs { "GET", "DELETE", "OPTIONS" } do
      local res = assert(client:batch_post { path = "/m", payloads = { { a = 1 } }, method = method })
      assert.equal(method, res[1].data.method)
      assert.equal("", res[1].data.text)
      assert.is_nil(res[1].data.headers["content-length"])
    end
    local res = assert(client:batch_post { path = "/m", payloads = { { a = 1 } }, method = "HEAD" })
    assert.equal(200, res[1].status)
    assert.is_nil(res[1].data)
    assert.equal("POST", assert(client:batch_post { path = "/m", payloads = { {} } })[1].data.method)
  end)

  it("decodes JSON and MessagePack, leaves text alone, and an empty reply is nil", function()
    local server = rig.serve(function(seen)
      local p = seen.path
      if p == "/json" then return { json = { 1, { b = json.null } } } end
      if p == "/problem" then
        local problem = "application/problem+json; charset=utf-8"
        return { body = '{"x":1}', headers = { ["content-type"] = problem } }
      end
      if p == "/text" then
        return { body = '{"not":"decoded"}', headers = { ["content-type"] = "text/plain" } }
      end
      if p == "/empty" then return { status = 204 } end
      if p == "/pack" then
        return { body = "\x82\xa1a\xc4\x04\xde\xad\xbe\xef\xa1b\x93\x01\xc3\xc0",
          headers = { ["content-type"] = "application/msgpack" } }
      end
      return { body = "\0\1\2", headers = { ["content-type"] = "application/octet-stream" } }
    end)
    local client = rig.client(server)
    local function get(path)
      return assert(client:batch_post { path = path, payloads = { {} } })[1]
    end
    assert.same({ 1, { b = json.null } }, get("/json").data)
    assert.same({ x = 1 }, get("/problem").data)
    assert.equal('{"not":"decoded"}', get("/text").data)
    assert.is_nil(get("/empty").data)
    assert.equal(204, get("/empty").status)
    assert.same({ a = "\xde\xad\xbe\xef", b = { 1, true, json.null } }, get("/pack").data)
    assert.equal("\0\1\2", get("/other").data)
  end)

  it("sends strings as they are and tables as JSON", function()
    local client = rig.client(echo())
    local res = assert(client:batch_post { path = "/", payloads = { "raw bytes", { list = { 1, 2 } },
      json.null, 3.5 } })
    assert.equal("raw bytes", res[1].data.text)
    assert.equal('{"list":[1,2]}', res[2].data.text)
    assert.equal("null", res[3].data.text)
    assert.equal("3.5", res[4].data.text)
  end)

  it("gives every payload its own headers over the call's", function()
    local client = rig.client(echo(), { headers = { ["X-All"] = "client", ["X-Two"] = "client" } })
    local res = assert(client:batch_post { path = "/h", payloads = { {}, {}, {} },
      headers = { ["x-two"] = "call" },
      payload_headers = { [1] = { ["X-Own"] = "one" },
        [3] = { ["X-Own"] = "three", ["x-two"] = "row", ["X-All"] = false } } })
    local function h(i) return res[i].data.headers end
    assert.same({ "client", "call", "one" }, { h(1)["x-all"], h(1)["x-two"], h(1)["x-own"] })
    assert.same({ "client", "call" }, { h(2)["x-all"], h(2)["x-two"], h(2)["x-own"] })
    assert.same({ nil, "row", "three" }, { h(3)["x-all"], h(3)["x-two"], h(3)["x-own"] })
    assert.is_nil(h(3)["x-all"])
  end)

  it("keeps errors in their rows", function()
    local server = rig.serve(function(seen)
      local n = seen.body.n
      if n == 2 then return { status = 404, json = { error = "no such" } } end
      if n == 4 then return { body = "{broken", headers = { ["content-type"] = "application/json" } } end
      if n == 5 then return { fault = { ends = "reset", raw = true } } end
      return { json = { n = n } }
    end)
    local list = payloads(6)
    list[6] = { f = print }
    local res, err = rig.client(server):batch_post { path = "/", payloads = list, max_retries = 1 }
    assert.is_nil(err)
    assert.is_false(res.ok)
    local failed = {}
    for i, e in ipairs(res.errors) do failed[i] = e.index end
    assert.same({ 2, 4, 5, 6 }, failed)
    assert.equal(1, res[1].data.n)
    assert.equal(3, res[3].data.n)
    assert.same({ "http", 404, false }, { res[2].error.kind, res[2].error.status, res[2].error.retryable })
    assert.matches("no such", res[2].error.body)
    assert.equal("decode", res[4].error.kind)
    assert.equal("connect", res[5].error.kind)
    assert.equal(2, res[5].error.attempts)
    assert.equal("invalid", res[6].error.kind)
    assert.matches("function", res[6].error.message)
    assert.equal(res[2].error, res.errors[1].error)
    assert.has_error(function() moonpool.strict(res) end)
  end)

  it("names no key in any of them, and the endpoint in all", function()
    local server = rig.serve(function() return { status = 400, json = {} } end)
    local client = rig.client(server, { api_key = "canary" })
    local res = assert(client:batch_post { path = "/", payloads = payloads(2) })
    for _, e in ipairs(res.errors) do
      assert.equal(server.url, e.error.endpoint)
      assert.is_nil(tostring(e.error):find "canary")
    end
  end)

  it("has the seed's columns", function()
    local res = assert(rig.client(echo()):batch_post { url_path = "p", payloads = { {}, {} },
      custom_headers = { ["X-C"] = "1" } })
    assert.equal("/p", res.data[2].path)
    assert.equal("1", res.data[1].headers["x-c"])
    assert.equal(2, #res.individual_request_times)
    assert.equal(2, #res.response_headers)
    assert.equal("application/json", res.response_headers[2]["content-type"])
    assert.equal(2, #res.requests)
  end)

  it("slices ten thousand replies and loses none", function()
    local server = rig.serve(function(seen) return { json = seen.body } end)
    local res = assert(rig.within(60, function()
      return rig.client(server):batch_post {
        path = "/", payloads = payloads(10000), max_concurrent_requests = 64 }
    end))
    assert.is_true(res.ok)
    for i = 1, 10000 do
      assert.equal(i, res[i].data.n)
    end
  end)
end)

describe("request", function()
  after_each(rig.close_all)

  it("is a GET, or a POST when there is a body", function()
    local client = rig.client(echo())
    local res = assert(client:request { path = "/a/b?c=d" })
    local seen = res.data
    assert.same({ "GET", "/a/b", "c=d", "" }, { seen.method, seen.path, seen.query, seen.text })
    assert.is_true(res.ok)
    assert.equal(200, res.status)
    res = assert(client:request { path = "/", json = { 1 } })
    assert.same({ "POST", "[1]" }, { res.data.method, res.data.text })
    res = assert(client:request { path = "/", json = "text" })
    assert.equal('"text"', res.data.text)
    res = assert(client:request { path = "/", json = false })
    assert.equal("false", res.data.text)
    res = assert(client:request { path = "/", body = "plain", method = "PUT",
      headers = { ["Content-Type"] = "text/plain" } })
    assert.same({ "PUT", "plain", "text/plain" },
      { res.data.method, res.data.text, res.data.headers["content-type"] })
    res = assert(client:request { path = "/", method = "DELETE", json = { 1 } })
    assert.same({ "DELETE", "[1]" }, { res.data.method, res.data.text })
  end)

  it("gives nil and the error for a failure", function()
    local client = rig.client(rig.serve(function()
      return { status = 418, body = "teapot", headers = { ["content-type"] = "text/plain" } }
    end))
    local res, err = client:request { path = "/" }
    assert.is_nil(res)
    assert.same({ "http", 418, "teapot", 1 }, { err.kind, err.status, err.body, err.attempts })
    assert.matches("418", tostring(err))
  end)

  it("refuses what makes no sense before anything is sent", function()
    local server = echo()
    local client = rig.client(server)
    for _, o in ipairs { { method = "get" }, { method = "INVALID" }, { path = "/ space" }, { path = "/#f" },
      { path = "/\r\nX: y" }, { json = {}, body = "" }, { pathe = "/" }, { body = 5 },
      { headers = { ["a b"] = "c" } }, { headers = { a = "b\r\nc: d" } }, { headers = { a = {} } } } do
      o.path = o.path or "/"
      assert.has_error(function() client:request(o) end)
    end
    assert.equal(0, #server.log)
  end)

  it("works against another host's path with and without slashes", function()
    local server = echo()
    for _, base in ipairs { server.url, server.url .. "/", server.url .. "/v1", server.url .. "/v1/" } do
      local client = rig.client(base)
      assert.equal("/v1/x", assert(client:request { path = "/v1/x" }).data.path)
    end
    local deep = rig.client(server.url .. "/deep/er//")
    assert.equal("/deep/er/x", assert(deep:request { path = "x" }).data.path)
  end)

  it("refuses replies whose few bytes become gigabytes, and keeps integers exactly", function()
    local bodies = {
      big = { "[" .. ("[],"):rep(4000000) .. "[]]", "application/json" },
      packed = { "\xdd" .. string.pack(">I4", 8000000) .. ("\x90"):rep(8000000), "application/msgpack" },
      sound = { '{"id":18446744073709551615}', "application/json" },
      uint = { "\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "application/msgpack" },
    }
    local server = rig.serve(function(seen)
      local reply = bodies[seen.path:sub(2)]
      return { body = reply[1], headers = { ["content-type"] = reply[2] } }
    end)
    local client = rig.client(server, { retry = false })
    for _, name in ipairs { "big", "packed" } do
      local res, err = client:request { path = "/" .. name }
      assert.is_nil(res)
      assert.equal("too_large", err.kind)
    end
    local res = assert(client:request { path = "/sound" })
    assert.equal("18446744073709551615", tostring(res.data.id))
    assert.equal(bodies.sound[1], res.body)
    assert.equal("18446744073709551615", tostring(client:request { path = "/uint" }.data))
  end)
end)
