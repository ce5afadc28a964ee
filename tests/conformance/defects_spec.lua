-- Part C10: what the peers get wrong, pinned the right way round. The budgets are tested with the
-- policies; README.md says what each peer does instead.

local moonpool = require "moonpool"
local json = require "moonpool.json"
local rig = require "client_rig"

describe("conformance: defects of the peers", function()
  after_each(rig.close_all)

  it("C10 (defects) Retry-After is honoured: in seconds, fractions, milliseconds and as a date", function()
    for _, case in ipairs { { "retry-after", "1", 1 }, { "retry-after", "0.4", 0.4 },
      { "retry-after-ms", "300", 0.3 },
      { "retry-after", function() return os.date("!%a, %d %b %Y %H:%M:%S GMT", os.time() + 2) end, 0.9 } } do
      local quiet_until
      local server = rig.embedder(function(_, n)
        if n == 1 then
          quiet_until = moonpool.now() + case[3]
          local value = type(case[2]) == "function" and case[2]() or case[2]
          return { status = 429, json = {}, headers = { [case[1]] = value } }
        end
      end)
      local client = rig.client(server)
      assert(rig.within(20, client.embed, client, { input = { "1" } }))
      assert.equal(2, #server.log)
      assert.is_true(server.log[2].at >= quiet_until, case[2])
    end
  end)

  it("C10 (defects) Retry-After pauses the endpoint, not one request", function()
    local quiet_until, early = 0, 0
    local server = rig.embedder(function(_, n)
      if moonpool.now() < quiet_until then early = early + 1 end
      if n == 3 then
        quiet_until = moonpool.now() + 1
        return { status = 429, json = {}, headers = { ["retry-after"] = "1" } }
      end
    end)
    local client = rig.client(server)
    assert.is_true(rig.within(20, client.embed, client,
      { input = rig.texts(10), batch_size = 1, max_concurrent_requests = 1 }).ok)
    assert.equal(0, early)
    assert.equal(11, #server.log)
  end)

  it("C10 (defects) a Retry-After too long to wait for is a refusal", function()
    local server = rig.serve(function()
      return { status = 429, json = {}, headers = { ["retry-after"] = "121" } }
    end)
    local _, err = rig.client(server):embed { input = { "1" } }
    assert.same({ "rate_limited", 121, 1 }, { err.kind, err.retry_after, #server.log })
  end)

  it("C10 (defects) a body that stalls or is cut is asked for again", function()
    for _, ends in ipairs { "hang", "reset", "close" } do
      local server = rig.embedder(function(seen, n)
        if n == 1 then
          local body = json.encode(rig.embeddings(seen.body.input))
          return { body = body, fault = { cut = #body // 2, ends = ends } }
        end
      end)
      local client = rig.client(server, { timeout = { read = 0.2 } })
      local res = assert(rig.within(20, client.embed, client, { input = rig.texts(3) }), ends)
      assert.is_nil(rig.wrong_row(res, rig.texts(3)))
      assert.equal(2, #server.log)
    end
  end)

  it("C10 (defects) an error of the hedge does not beat a later success", function()
    local server = rig.embedder(function(seen, n)
      if n == 2 then return { status = 500, json = {} } end
      moonpool.sleep(0.3)
      return { json = rig.embeddings(seen.body.input) }
    end)
    local client = rig.client(server)
    local res = assert(rig.within(20, client.embed, client, { input = { "1" }, retry = false,
      hedge = { delay = 0.05, budget = 1 } }))
    assert.is_nil(rig.wrong_row(res, { "1" }))
    assert.equal(2, #server.log)
    assert.same({ 1, 0 }, { client:stats().hedges, client:stats().hedges_won })
  end)

  it("C10 (defects) a key given to a call reaches the wire, alone", function()
    local server = rig.embedder()
    local client = rig.client(server, { api_key = "of-the-client" })
    local p = moonpool.preference { primary_api_key_override = "of-the-call" }
    assert(client:embed { input = { "1" }, preference = p })
    assert(client:batch_post { path = "/", payloads = { { input = { "1" } } },
      primary_api_key_override = "of-the-batch" })
    assert(client:embed { input = { "1" } })
    assert.equal("Bearer of-the-call", server.log[1].headers.authorization)
    assert.equal("Bearer of-the-batch", server.log[2].headers.authorization)
    assert.equal("Bearer of-the-client", server.log[3].headers.authorization)
  end)

  it("C10 (defects) cancel() ends a request that is under way", function()
    local token = moonpool.cancel_token()
    local server = rig.serve(function()
      moonpool.sleep(0) -- let the reply of this turn go
      token:cancel()
      moonpool.sleep(60)
    end)
    local client = rig.client(server)
    local res, err = rig.within(20, client.embed, client, { input = { "1" }, cancel_token = token })
    assert.is_nil(res)
    assert.equal("cancelled", err.kind)
    rig.until_true("the server saw it", function() return server:stats().disconnects == 1 end)
  end)

  it("C10 (defects) extra headers replace, none is sent twice", function()
    local server = rig.embedder()
    local client = rig.client(server, { api_key = "key", user_agent = "ua/1" })
    assert(client:embed { input = { "1" }, extra_headers = {
      authorization = "Bearer extra", ["user-agent"] = "ua/2",
      accept = "application/x", ["content-type"] = "application/json; x=y" } })
    local h = server.log[1].headers -- a header that comes twice would be joined by a comma
    assert.same({ "Bearer extra", "ua/2", "application/x", "application/json; x=y" },
      { h.authorization, h["user-agent"], h.accept, h["content-type"] })
  end)

  it("C10 (defects) every attempt has an id of its own", function()
    local seen_two
    local server = rig.embedder(function(seen, n)
      if n == 1 then return { status = 500, json = {} } end
      if seen.body.input[1] == "2" and not seen_two then
        seen_two = true
        moonpool.sleep(60)
      end
    end)
    local client = rig.client(server, { max_concurrent_requests = 1 })
    assert.is_true(rig.within(20, client.embed, client, { input = rig.texts(2), batch_size = 1,
      hedge = { delay = 0.1, budget = 1 } }).ok)
    local ids = {}
    for _, seen in ipairs(server.log) do
      assert.is_nil(ids[seen.headers["x-request-id"]])
      ids[seen.headers["x-request-id"]] = true
    end
    assert.equal(4, #server.log) -- two requests, one retry, one hedge
  end)

  it("C10 (defects) a reply with fewer items than were sent is an error", function()
    local short = rig.embedder(function(seen)
      local reply = rig.embeddings(seen.body.input)
      reply.data[#reply.data] = nil
      if seen.body.model == "unnamed" then
        for _, item in ipairs(reply.data) do item.index = nil end
      end
      return { json = reply }
    end)
    local client = rig.client(short, { retry = false })
    local res, err = client:embed { input = rig.texts(3), model = "unnamed" }
    assert.is_nil(res)
    assert.equal("decode", err.kind)
    assert.equal(3, #err.errors)
    res = assert(client:embed { input = rig.texts(3) }) -- whose indices say which is missing
    assert.is_false(res.ok)
    assert.same({ 1, 3, "decode" }, { #res.errors, res.errors[1].index, res.errors[1].error.kind })
    for _, call in ipairs { { "rerank", { query = "q", texts = { "a", "b" } }, '[{"score":1}]' },
      { "classify", { inputs = { "a", "b" } }, '[[{"label":"x","score":1}]]' } } do
      local server = rig.serve(function()
        return { body = call[3], headers = { ["content-type"] = "application/json" } }
      end)
      client = rig.client(server, { retry = false })
      local _, e = client[call[1]](client, call[2])
      assert.equal("decode", e.kind)
    end
  end)

  it("C10 (defects) total_timeout alone is enough", function()
    local server = rig.embedder(function(seen) if seen.body.input[1] == "2" then moonpool.sleep(60) end end)
    local client = rig.client(server)
    assert(client:embed { input = { "1" }, total_timeout_s = 10 })
    assert(client:embed { input = { "1" }, preference = moonpool.preference { total_timeout_s = 10 } })
    local _, err = rig.within(20, client.embed, client, { input = { "2" }, total_timeout_s = 0.1 })
    assert.equal("total_timeout", err.kind)
  end)
end)
