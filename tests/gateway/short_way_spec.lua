-- Plain requests for embeddings are answered without a task once their model is known: nobody can tell,
-- but by the counts.

local gateway = require "gateway_rig"
local core = require "moonpool.core"
local moonpool = require "moonpool"
local rig = require "client_rig"

after_each(rig.close_all)

local function ask(g, input, more)
  local body = { model = "m", input = input }
  for k, v in pairs(more or {}) do body[k] = v end
  return g.post("/v1/embeddings", body)
end

-- Requests that took the short way since the last time.
local function short(g)
  local n = 0
  for _, count in pairs(core.front_counts(g.gateway.front).models) do n = n + count end
  return n
end

describe("gateway: the short way", function()
  it("gives what the long way gives", function()
    local mock = rig.mock { dim = 16 }
    local g = gateway.start { upstreams = { a = { base_url = mock.url } } }
    local texts = {
      "plain", "", "with \"quotes\" and \\ back\\slashes\\", "line\nbreak\ttab\r\b\f", "ünïcode ✓ 😀", "/",
    }
    local first = {}
    for i, text in ipairs(texts) do
      local long = gateway.start { upstreams = { a = { base_url = mock.url } } }
      first[i] = { ask(long, text == "" and "x" or text) }
    end
    assert.equal(200, (ask(g, "teach")))
    assert.equal(0, short(g))
    for i, text in ipairs(texts) do
      local status, doc, headers = ask(g, text == "" and "x" or text)
      assert.equal(200, status)
      assert.same(first[i][2], doc)
      assert.equal("a", headers["x-moonpool-upstream"])
      assert.equal("1", headers["x-moonpool-attempts"])
      assert.is_string(headers["x-request-id"])
      assert.matches("^%d+%.%d%d%d$", headers["x-moonpool-overhead-ms"])
    end
    assert.equal(#texts, short(g))
    local status, doc = ask(g, { "a", "b", "c" })
    assert.equal(200, status)
    local direct = assert(rig.client(mock.url, { model = "m" }):embed { input = { "a", "b", "c" } })
    for i, item in ipairs(doc.data) do
      assert.equal(i - 1, item.index)
      assert.equal(direct[i]:bytes(), moonpool.matrix.from({ item.embedding }):bytes())
    end
    status, doc = ask(g, { "a" }, { encoding_format = "base64" })
    assert.equal(200, status)
    assert.is_string(doc.data[1].embedding)
    assert.equal(2, short(g))
  end)

  it("reads escapes in any spelling, and leaves what is not plain to the long way", function()
    local up = rig.serve(function(seen)
      local data = {}
      for i in ipairs(seen.body.input) do data[i] = { index = i - 1, embedding = { i } } end
      return { json = { data = data, model = "m" } }
    end)
    local g = gateway.start { upstreams = { a = { base_url = up.url } } }
    ask(g, "teach")
    short(g)
    local function sends(body, wanted, is_short)
      local status = g.post("/v1/embeddings", body, { ["content-type"] = "application/json" })
      assert.equal(200, status, body)
      assert.same(wanted, up.log[#up.log].body.input)
      assert.equal(is_short and 1 or 0, short(g), body)
    end
    sends([[{"input":"\u0041\u00e9\u20ac\ud83d\ude00\/","model":"m"}]], { "Aé€😀/" }, true)
    sends([[ { "model" : "m" , "input" : [ "a" , "b\"c" ] } ]], { "a", 'b"c' }, true)
    sends([[{"model":"m","input":"a","encoding_format":"float"}]], { "a" }, true)
    sends([[{"model":"m","input":"a","dimensions":1}]], { "a" }, false)
    sends([[{"model":"m","input":"a","user":"u"}]], { "a" }, false)
    sends([[{"model":"m","input":"a","input":"b"}]], { "b" }, false)
    sends([[{"model":"m","mod\u0065l":"m","input":"a"}]], { "a" }, false)
    sends([[{"model":"m","input":"a","user":null}]], { "a" }, false)
    for _, body in ipairs {
      [[{"model":"m","input":"a"} x]], [[{"model":"m","input":"a",}]], [[{"model":"m","input":"\x"}]],
      [[{"model":"m","input":"\ud83d"}]], [[{"model":"m","input":"\u12"}]], [[{"model":"m","input":"a]],
      '{"model":"m","input":"a\1"}', '{"model":"m","input":"\xff"}', [[{"model":"m","input":[]}]],
      [[{"model":"m","input":["a"}]], [[{"model":"m"}]], "", "{",
    } do
      local n = #up.log
      local status, doc = g.post("/v1/embeddings", body)
      assert.equal(400, status, body)
      assert.is_string(doc.error.message)
      assert.equal(n, #up.log, body)
    end
    assert.equal(0, short(g))
  end)

  it("tells failures as the long way does, asking the service no more than once", function()
    local reply
    local up = rig.serve(function(seen) return reply or { json = rig.embeddings(seen.body.input) } end)
    local g = gateway.start { upstreams = { a = { base_url = up.url, retry = false, breaker = false } } }
    ask(g, "1")
    for _, status in ipairs { 400, 404, 429, 500, 503 } do
      reply = {
        status = status, headers = { ["retry-after"] = status == 429 and "3" or nil },
        json = { error = { message = "the service says " .. status } },
      }
      local n = #up.log
      local got, doc, err = ask(g, "1")
      assert.equal(status, got)
      assert.matches("the service says " .. status, doc.error.message)
      assert.equal(n + 1, #up.log)
      if status == 429 then assert.equal(3, err.retry_after) end
    end
    reply = { json = { data = {}, model = "m" } }
    local status, doc = ask(g, { "1", "2" })
    assert.equal(502, status)
    assert.is_string(doc.error.message)
    reply = nil
    assert.equal(200, (ask(g, "1")))
  end)

  it("ends the call upstream when its caller leaves", function()
    local stopped = false
    local slow = false
    local up = rig.serve(function(seen, _, req)
      if slow then
        local ok = pcall(moonpool.sleep, 30)
        stopped = not ok and req:gone()
      end
      return { json = rig.embeddings(seen.body.input) }
    end)
    local g = gateway.start { upstreams = { a = { base_url = up.url } } }
    ask(g, "1")
    slow = true
    local token = moonpool.cancel_token()
    moonpool.scope(function(scope)
      scope:spawn(function()
        local json = { model = "m", input = "2" }
        g.client:request { path = "/v1/embeddings", json = json, cancel_token = token }
      end)
      rig.until_true("the service has it", function() return #up.log == 2 end)
      token:cancel()
    end)
    rig.until_true("the service is left too", function() return stopped end)
  end)

  it("keeps its calls over a reload, and forgets what is no more", function()
    local gate = moonpool.semaphore(10)
    local hold = false
    local up = rig.serve(function(seen)
      if hold then gate:acquire() end
      return { json = rig.embeddings(seen.body.input) }
    end)
    local other = rig.embedder()
    local g = gateway.start { upstreams = { a = { base_url = up.url } } }
    ask(g, "1")
    for _ = 1, 10 do gate:acquire() end
    hold = true
    local status
    moonpool.scope(function(scope)
      scope:spawn(function() status = ask(g, "2") end)
      rig.until_true("the service has it", function() return #up.log == 2 end)
      assert.is_true(g.gateway:reload { upstreams = { b = { base_url = other.url } } })
      assert.equal(200, (ask(g, "3")))
      assert.equal(200, (ask(g, "4")))
      assert.equal(2, #other.log)
      gate:release()
    end)
    assert.equal(200, status)
    assert.is_true(g.gateway:reload {
      upstreams = { b = { base_url = other.url } }, keys = { ["sk-one-two-three"] = { name = "k" } },
    })
    assert.equal(401, (ask(g, "5")))
    assert.equal(2, #other.log)
    local ok, why = g.gateway:reload { upstreams = {} }
    assert.is_nil(ok)
    assert.matches("upstreams", why)
    assert.equal(401, (ask(g, "5")))
  end)

  it("is counted like the rest", function()
    local up = rig.embedder()
    local g = gateway.start { upstreams = { a = { base_url = up.url } }, models = { m = { upstream = "a" } } }
    for i = 1, 5 do assert.equal(200, (ask(g, { tostring(i), "2" }))) end
    local _, text = g.ask("GET", "/metrics")
    local function says(line) assert.truthy(text:find(line, 1, true), line .. "\n" .. text) end
    says 'moonpool_gateway_requests_total{key="",model="m",path="/v1/embeddings",status="200"} 5'
    says "moonpool_gateway_rows_total 10"
    says 'moonpool_gateway_duration_seconds_count{path="/v1/embeddings"} 5'
    says 'moonpool_gateway_upstream_rows_total{upstream="a"} 10'
  end)
end)
