-- C25-C35: what goes over the wire and what comes back. README.md says where each comes from.

local moonpool = require "moonpool"
local json = require "moonpool.json"
local rig = require "client_rig"

local function echo(status)
  return rig.serve(function(seen)
    return { status = status, json = { method = seen.method, headers = seen.headers, text = seen.text } }
  end)
end

describe("conformance: the wire", function()
  after_each(rig.close_all)

  it("C25 request ids begin with the prefix, share the call's part, tell request, retry and hedge", function()
    local server = rig.embedder(function(seen, n)
      if n == 1 then return { status = 503, json = {} } end
      if seen.body.input[1] == "6" and not seen.headers["x-id"]:find "hedge" then moonpool.sleep(60) end
    end)
    local client = rig.client(server, { request_id_prefix = "perfclientteam", request_id_header = "X-Id",
      max_concurrent_requests = 1 })
    local res = assert(rig.within(20, client.embed, client,
      { input = rig.texts(6), batch_size = 1, hedge_delay = 0.1,
      hedge_budget_pct = 1 }))
    assert.is_true(res.ok)
    local seen, calls, of_six = {}, {}, {}
    for _, r in ipairs(server.log) do
      local id = r.headers["x-id"]
      assert.is_nil(seen[id], id)
      seen[id] = true
      calls[id:match "^perfclientteam%-(%x+)%-"] = true
      if r.body.input[1] == "6" then of_six[#of_six + 1] = id end
    end
    assert.is_string(next(calls))
    assert.is_nil(next(calls, next(calls)))
    assert.equal(2, #of_six)
    assert.matches("%-5%-", of_six[1])
    assert.matches("%-5%-.*hedge%-%d", of_six[2])
  end)

  it("C25 ten thousand requests have ten thousand ids", function()
    local server = rig.serve(function() return { status = 204 } end)
    local client = rig.client(server)
    local list = {}
    for i = 1, 10000 do list[i] = i end
    local res = rig.within(60, client.batch_post, client,
      { path = "/", payloads = list, max_concurrent_requests = 64 })
    assert.is_true(res.ok)
    local ids, n = {}, 0
    for _, r in ipairs(server.log) do
      local id = r.headers["x-request-id"]
      n = n + (ids[id] and 0 or 1)
      ids[id] = true
    end
    assert.equal(10000, n)
  end)

  it("C26 MessagePack reply decoded, binary intact, and asked for with zstd", function()
    for _, kind in ipairs { "application/msgpack", "application/x-msgpack", "application/vnd.msgpack",
      "application/messagepack; charset=binary" } do
      local server = rig.serve(function()
        return { body = "\x83\xa4data\xc4\x04\xde\xad\xbe\xef\xa1n\xcd\x04\xd2"
          .. "\xa4list\x93\xc0\xc3\xcb\x3f\xf8\0\0\0\0\0\0",
          headers = { ["content-type"] = kind } }
      end)
      local res = assert(rig.client(server):batch_post { path = "/", payloads = { {} } })
      assert.same({ data = "\xde\xad\xbe\xef", n = 1234, list = { json.null, true, 1.5 } }, res[1].data)
      assert.matches("application/msgpack", server.log[1].headers.accept)
      assert.matches("application/json", server.log[1].headers.accept)
      assert.matches("zstd", server.log[1].headers["accept-encoding"])
    end
    local server = echo()
    local client = rig.client(server, { headers = { accept = "text/x" } })
    assert.equal("text/x", assert(client:request { path = "/" }).data.headers.accept)
  end)

  it("C27 529 is retried", function()
    local server = rig.embedder(function(_, n) return n == 1 and { status = 529, json = {} } or nil end)
    local res = assert(rig.client(server):embed { input = { "1" }, max_retries = 1,
      non_retryable_status_codes = {} })
    assert.is_true(res.ok)
    assert.equal(2, #server.log)
  end)

  it("C28 529 is final when declared so", function()
    local server = rig.embedder(function() return { status = 529, json = {} } end)
    local res, err = rig.client(server):embed { input = { "1" }, max_retries = 3,
      non_retryable_status_codes = { 529 } }
    assert.is_nil(res)
    assert.equal(529, err.status)
    assert.equal(1, #server.log)
  end)

  it("C29 all seven methods, POST by default, and no other", function()
    local server = echo()
    local client = rig.client(server)
    for _, method in ipairs { "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS" } do
      local n = #server.log
      local res = assert(client:batch_post { path = "/", payloads = { { a = 1 } }, method = method })
      assert.is_true(res.ok)
      assert.equal(method, server.log[n + 1].method)
    end
    assert(client:batch_post { path = "/", payloads = { {} } })
    assert.equal("POST", server.log[8].method)
    for _, bad in ipairs { "INVALID", "get", "", 5 } do
      local ok, err = pcall(client.batch_post, client, { path = "/", payloads = { {} }, method = bad })
      assert.is_false(ok)
      assert.matches("Invalid HTTP method", tostring(err))
    end
  end)

  it("C30 a 403 is an error that carries the status and the body", function()
    local server = rig.serve(function() return { status = 403, json = { error = "wrong key" } } end)
    local client = rig.client(server)
    for _, call in ipairs { { "embed", { input = { "1" } } }, { "rerank", { query = "q", texts = { "a" } } },
      { "classify", { inputs = { "a" } } }, { "request", { path = "/" } } } do
      local res, err = client[call[1]](client, call[2])
      assert.is_nil(res)
      assert.same({ "http", 403, 1, false }, { err.kind, err.status, err.attempts, err.retryable })
      assert.matches("wrong key", err.body)
      assert.matches("403", tostring(err))
    end
    local res = client:batch_post { path = "/", payloads = { {} } }
    assert.is_false(res.ok)
    assert.equal(403, res[1].status)
    assert.equal(403, res.errors[1].error.status)
  end)

  it("C31 a host that does not exist fails fast, whatever the number of inputs", function()
    -- A label of 64 letters cannot exist, so no name server is asked.
    local client = rig.keep(moonpool.client { base_url = "http://" .. ("a"):rep(64) .. ".invalid" })
    local start = moonpool.now()
    local res, err = rig.within(20, client.embed, client,
      { input = rig.texts(1000), max_concurrent_requests = 1 })
    assert.is_true(moonpool.now() - start < 5)
    assert.is_nil(res)
    assert.equal("connect", err.kind)
    assert.matches("could not resolve", err.message)
    assert.equal(1000, #err.errors)
  end)

  it("C32 headers and a time for each payload; one after the other they fit into the total", function()
    local server = rig.serve(function(seen)
      moonpool.sleep(0.005)
      return { json = {}, headers = { ["x-n"] = tostring(seen.body.n) } }
    end)
    local list = { { n = 1 }, { n = 2 }, { n = 3 }, { n = 4 } }
    local res = assert(rig.client(server):batch_post { path = "/", payloads = list,
      max_concurrent_requests = 1 })
    local sum = 0
    for i = 1, 4 do
      assert.equal(tostring(i), res.response_headers[i]["x-n"])
      sum = sum + res.individual_request_times[i]
    end
    assert.equal(4, #res.response_headers)
    assert.equal(4, #res.individual_request_times)
    assert.is_true(sum < res.total_time)
  end)

  it("C33 an extra header arrives", function()
    local client = rig.client(echo())
    local res = assert(client:batch_post { path = "/", payloads = { {} },
      extra_headers = { ["X-Extra"] = "yes" } })
    assert.equal("yes", res[1].data.headers["x-extra"])
    res = assert(client:batch_post { path = "/", payloads = { {} },
      preference = moonpool.preference { extra_headers = { ["X-Extra"] = "too" } } })
    assert.equal("too", res[1].data.headers["x-extra"])
  end)

  it("C34 sixteen callers are served at once", function()
    local here = 0
    local server = rig.embedder(function()
      here = here + 1
      while here < 16 do moonpool.sleep(0.001) end -- nobody is answered before all are there
    end)
    local client = rig.client(server)
    rig.within(20, moonpool.map, rig.texts(16), { window = 16 }, function(text)
      return assert(client:embed { input = { text } })
    end)
    assert.equal(16, here)
  end)

  it("C35 253 inputs by three: 253 results, 85 timings", function()
    local texts = rig.texts(253)
    local res = assert(rig.client(rig.embedder()):embed { input = texts, batch_size = 3 })
    assert.is_nil(rig.wrong_row(res, texts))
    assert.equal(253, #res.data)
    assert.equal(85, #res.individual_request_times)
  end)
end)
