-- Functions in the place of policies, over real sockets: each is asked at its moment with the facts,
-- and what it decides is done.

local moonpool = require "moonpool"
local rig = require "client_rig"
local policy_rig = require "policy_rig"

local facts_of, recorder, script = policy_rig.facts, policy_rig.recorder, policy_rig.script

local function error_reply(status, headers)
  return { status = status, headers = headers, json = { error = { message = "no" } } }
end

local function embed(client, o)
  o = o or {}
  o.input = o.input or { "1", "2" }
  return rig.within(20, client.embed, client, o)
end

describe("hooks", function()
  after_each(rig.close_all)

  describe("retry", function()
    it("is asked about a failure, with the facts", function()
      local seen = {}
      local client = rig.client(script { error_reply(503, { ["x-why"] = "tired" }) }, {
        retry = recorder(seen, function(view)
          seen.why = view:header "X-Why"
          return "retry", 0.001
        end),
      })
      assert(embed(client, { tag = { "mine" }, total_timeout = 10 }))
      assert.equal(1, #seen)
      local v = seen[1]
      assert.equal("retry", v.hook)
      assert.equal("tired", seen.why)
      assert.equal(503, v.status)
      assert.equal("http", v.kind)
      assert.equal("transient", v.class)
      assert.equal(1, v.attempts)
      assert.equal(0, v.hedges)
      assert.equal(1, v.first)
      assert.equal(2, v.count)
      assert.equal(1, v.endpoint)
      assert.equal(1, v.endpoints)
      assert.equal(1, v.last_endpoint)
      assert.same({ "mine" }, v.tag)
      assert.equal("POST", v.method)
      assert.equal("/v1/embeddings", v.path)
      assert.truthy(v.body:find "no")
      assert.truthy(v.message)
      assert.is_false(v.never_sent)
      assert.truthy(v.delay and v.delay >= 0)
      assert.truthy(v.deadline_left > 5 and v.deadline_left <= 10)
      assert.truthy(v.elapsed >= 0 and v.time >= 0)
      assert.truthy(v.budget > 9)
      assert.truthy(math.type(v.id) == "integer")
    end)

    it("is not asked when nothing fails", function()
      local seen = {}
      local client = rig.client(rig.embedder(), { retry = recorder(seen) })
      assert(embed(client))
      assert.equal(0, #seen)
      assert.equal(0, policy_rig.hooks(client).calls)
    end)

    it("retries what the policy would not", function()
      local server = script { error_reply(404), error_reply(404) }
      local client = rig.client(server, { retry = function(view)
        if view.status == 404 then return "retry", 0.001 end
      end })
      assert(embed(client))
      assert.equal(3, #server.log)
    end)

    it("fails what the policy would retry", function()
      local server = script { error_reply(500) }
      local client = rig.client(server, { retry = function() return "fail" end })
      local _, err = embed(client)
      assert.equal(500, err.status)
      assert.equal(1, #server.log)
    end)

    it("takes true, false and a bare delay", function()
      local server = script { error_reply(404), error_reply(404), error_reply(404) }
      local verdicts = { true, 0.001, false }
      local client = rig.client(server, { retry = function(view) return verdicts[view.attempts] end })
      local _, err = embed(client)
      assert.equal(404, err.status)
      assert.equal(3, #server.log)
      assert.equal(0, policy_rig.hooks(client).bad_verdicts)
    end)

    it("stays within max_attempts of the table beside it", function()
      local server = rig.serve(function() return error_reply(400) end)
      local client = rig.client(server,
        { retry = { max_attempts = 3, base = 0.001, hook = function() return true end } })
      local _, err = embed(client, { input = { "1" } })
      assert.equal(3, #server.log)
      assert.equal(3, err.attempts)
    end)

    it("waits no shorter than the server asked", function()
      local server = script { error_reply(429, { ["retry-after-ms"] = "120" }) }
      local client = rig.client(server, { retry = function() return "retry", 0 end })
      assert(embed(client))
      assert.truthy(server.log[2].at - server.log[1].done >= 0.11)
    end)
  end)

  describe("classify", function()
    it("sees good replies too, with their usage", function()
      local seen = {}
      local client = rig.client(rig.embedder(), { classify = recorder(seen) })
      assert(embed(client))
      assert.equal("ok", seen[1].class)
      assert.equal(200, seen[1].status)
      assert.equal(2, seen[1].tokens_used)
      assert.is_nil(seen[1].kind)
      assert.is_nil(seen[1].body) -- vectors are decoded as they come
      assert.truthy(seen[1].received > 10)
    end)

    it("makes a failure another failure", function()
      local server = script { error_reply(404) }
      local client = rig.client(server, { classify = function(view)
        if view.body and view.body:find "no" then return "transient", 0.001 end
      end })
      assert(embed(client))
      assert.equal(2, #server.log)
    end)

    it("cannot make a failure a success, nor a good reply a failure", function()
      local client = rig.client(script { error_reply(404) }, { classify = function(view)
        return view.class == "ok" and "fatal" or "ok"
      end })
      local _, err = embed(client)
      assert.equal(404, err.status)
      assert(embed(client))
      assert.equal(2, policy_rig.hooks(client).classify.bad_verdicts)
    end)
  end)

  describe("hedge", function()
    -- The first request is slow until the test lets go of it, others are answered.
    local function slow_first()
      local go = { false }
      return rig.embedder(function(_, n)
        if n == 1 then rig.until_true("let go", function() return go[1] end) end
      end), go
    end

    it("says after how long a second copy goes", function()
      local seen = {}
      local server, go = slow_first()
      local client = rig.client(server, { hedge = recorder(seen, function() return 0.02 end) })
      local res = assert(embed(client))
      go[1] = true
      assert.equal(1, res.requests[1].hedges)
      assert.equal(1, #seen)
      assert.equal(1, seen[1].attempts)
      assert.is_nil(seen[1].delay) -- too few samples for the default to know
    end)

    it("says that none goes", function()
      local server = rig.embedder(function(_, n)
        if n == 1 then moonpool.sleep(0.08) end
      end)
      local client = rig.client(server, { hedge = { delay = 0.01, hook = function(view)
        assert(view.delay == 0.01)
        return false
      end } })
      local res = assert(embed(client))
      assert.equal(0, res.requests[1].hedges)
      assert.equal(0, policy_rig.hooks(client).errors)
    end)
  end)

  describe("route", function()
    it("chooses among several endpoints; its retry too", function()
      local one, two = script { error_reply(500) }, rig.embedder()
      local seen = {}
      local client = rig.keep(moonpool.client {
        endpoints = { { base_url = one.url }, { base_url = two.url } },
        route = recorder(seen, function(view)
          local in_flight, sound = view:load(1)
          seen.load = { in_flight, sound }
          if view.attempts == 0 then return 1 end
          return "route", 2
        end),
        retry = rig.quick,
      })
      local res = assert(embed(client))
      assert.equal(1, #one.log)
      assert.equal(1, #two.log)
      assert.equal(2, res.requests[1].endpoint_index or res.requests[1].endpoint)
      assert.equal(2, seen[1].endpoints)
      assert.is_nil(seen[1].endpoint)
      assert.is_nil(seen[1].last_endpoint)
      assert.equal(1, seen[#seen].last_endpoint)
      assert.equal(seen[1].id, seen[#seen].id)
    end)

    it("is not asked where there is no choice", function()
      local seen = {}
      local client = rig.client(rig.embedder(), { route = recorder(seen) })
      assert(embed(client))
      assert.equal(0, #seen)
    end)

    it("an endpoint that does not exist is a bad verdict", function()
      local one, two = rig.embedder(), rig.embedder()
      for _, wrong in ipairs { 3, 0, 1.5, -1, "x", 0 / 0 } do
        local client = rig.keep(moonpool.client {
          endpoints = { { base_url = one.url }, { base_url = two.url } },
          route = function() return wrong end,
        })
        assert(embed(client))
        assert.equal(1, policy_rig.hooks(client).bad_verdicts, tostring(wrong))
      end
    end)
  end)

  describe("rate, concurrency, breaker", function()
    it("a wait is waited, then it goes", function()
      local asked = 0
      local client = rig.client(rig.embedder(), { rate = function()
        asked = asked + 1
        if asked < 4 then return 0.005 end
      end })
      assert(embed(client))
      assert.equal(4, asked)
    end)

    it("what rate lets through goes: one yes an attempt", function()
      local yes = 0
      local server = script { error_reply(503), [4] = error_reply(503) }
      local client = rig.client(server, { concurrency = 2, rate = function() yes = yes + 1 end })
      assert(embed(client, { input = rig.texts(20), batch_size = 2 }))
      assert.equal(#server.log, yes)
    end)

    it("fail ends the request with kind budget, the others go on", function()
      local server = rig.embedder()
      local client = rig.client(server, { rate = function(view)
        if view.first == 3 then return "fail" end
      end })
      local res = assert(embed(client, { input = rig.texts(6), batch_size = 2 }))
      assert.is_false(res.ok)
      assert.same({ 3, 4 }, { res.errors[1].index, res.errors[2].index })
      assert.equal("budget", res.errors[1].error.kind)
      assert.equal(2, #server.log)
    end)

    it("concurrency bounds what is in flight", function()
      local now, most = 0, 0
      local server = rig.embedder(function()
        now = now + 1
        most = math.max(most, now)
        moonpool.sleep(0.005)
        now = now - 1
      end)
      local client = rig.client(server, { concurrency = function() return 3 end })
      assert(embed(client, { input = rig.texts(24), batch_size = 1 }))
      assert.equal(24, #server.log)
      assert.equal(3, most)
    end)

    it("breaker keeps requests back", function()
      local asked = 0
      local client = rig.client(rig.embedder(), { breaker = function()
        asked = asked + 1
        return asked < 3
      end })
      assert(embed(client))
      assert.equal(3, asked)
      client = rig.client(rig.embedder(), { breaker = function() return "fail" end })
      local _, err = embed(client)
      assert.equal("breaker_open", err.kind)
    end)
  end)

  describe("batch and estimate_tokens", function()
    it("a batch may be made smaller, rows can be looked at", function()
      local server, seen = rig.embedder(), {}
      local client = rig.client(server, { batch_size = 4, batch = recorder(seen, function(view)
        for i = 2, view.count do
          if #view:row(i) ~= #view:row(1) then return i - 1 end
        end
      end) })
      local texts = { "1", "2", "10", "11", "12", "3" }
      local res = assert(embed(client, { input = texts }))
      assert.is_nil(rig.wrong_row(res, texts))
      local sizes = {}
      for i, r in ipairs(server.log) do sizes[i] = #r.body.input end
      table.sort(sizes)
      assert.same({ 1, 2, 3 }, sizes)
      assert.equal(6, seen[1].left)
      assert.equal(4, seen[1].count)
      assert.equal(3, seen[2].first)
    end)

    it("a larger one is made as large as the policy allows", function()
      local server = rig.embedder()
      local client = rig.client(server, { batch_size = 2, batch = function() return 100 end })
      assert(embed(client, { input = rig.texts(4) }))
      assert.equal(2, #server.log)
    end)

    it("tokens are those of the script, for limits and views", function()
      local server, seen, asked = rig.embedder(), {}, {}
      local client = rig.client(server, {
        batch = { tokens = 20 }, rate = recorder(seen),
        estimate_tokens = function(text)
          asked[#asked + 1] = text
          return 10
        end,
      })
      assert(embed(client, { input = rig.texts(4) }))
      assert.equal(2, #server.log)
      assert.equal(20, seen[1].tokens)
      assert.equal("1", asked[1])
    end)

    it("sees payloads of other calls", function()
      local server, got = rig.serve(function() return { json = {} } end), {}
      local client = rig.client(server, { estimate_tokens = function(payload)
        got[#got + 1] = payload
        return 5
      end })
      assert(client:batch_post { path = "/x", payloads = { { n = 1 }, "raw" } })
      assert.equal(1, got[1].n)
      assert.equal("raw", got[2])
    end)
  end)

  describe("before_request", function()
    it("adds, replaces and removes headers, the body and the path", function()
      local server, seen = rig.serve(function() return { json = {} } end), {}
      local client = rig.client(server, {
        headers = { ["X-Gone"] = "1", ["X-Kept"] = "2" },
        before_request = recorder(seen, function(view)
          return {
            path = "/elsewhere?n=" .. view.attempts, body = view.body:gsub("old", "new"):rep(1),
            headers = { ["X-Gone"] = false, ["X-Signature"] = "abc", ["X-Number"] = 7 },
          }
        end),
      })
      assert(client:request { path = "/p", json = { word = "old" }, headers = { ["X-Call"] = "3" } })
      local r = server.log[1]
      assert.equal("/elsewhere", r.path)
      assert.equal("n=1", r.query)
      assert.equal("new", r.body.word)
      assert.equal("abc", r.headers["x-signature"])
      assert.equal("7", r.headers["x-number"])
      assert.is_nil(r.headers["x-gone"])
      assert.equal("2", r.headers["x-kept"])
      assert.equal("3", r.headers["x-call"])
      assert.equal('{"word":"old"}', seen[1].body)
      assert.equal(server.url .. "/p", seen[1].url)
      assert.equal("127.0.0.1", seen[1].host)
      assert.is_false(seen[1].is_hedge)
    end)

    it("runs for every attempt, from the request as it was", function()
      local server = rig.serve(function(_, n)
        return n < 3 and error_reply(503) or { json = {} }
      end)
      local client = rig.client(server, { before_request = function(view)
        return { body = view.body .. view.attempts }
      end })
      assert(client:request { path = "/p", body = "n" })
      assert.same({ "n1", "n2", "n3" }, { server.log[1].text, server.log[2].text, server.log[3].text })
    end)

    it("keeps the headers of single payloads", function()
      local server = rig.serve(function() return { json = {} } end)
      local client = rig.client(server,
        { before_request = function() return { headers = { ["X-All"] = "a" } } end })
      assert(client:batch_post { path = "/x", payloads = { "1", "2" },
        payload_headers = { { ["X-One"] = "first" }, { ["X-One"] = "second" } } })
      for _, r in ipairs(server.log) do
        assert.equal("a", r.headers["x-all"])
        assert.equal(r.text == "1" and "first" or "second", r.headers["x-one"])
      end
    end)

    it("a large body grows without waiting for a 100 Continue", function()
      local server = rig.serve(function() return { json = {} } end)
      local big = ("x"):rep(3 << 20)
      local client = rig.client(server, { before_request = function() return { body = big } end })
      assert(client:request { path = "/p", body = "small" })
      assert.equal(#big, #server.log[1].text)
      assert.is_nil(server.log[1].headers.expect)
    end)

    it("a header that would break out of its line is a bad verdict, the request goes as it was", function()
      local server = rig.serve(function() return { json = {} } end)
      local wrong = {
        { headers = { ["X-A"] = "1\r\nX-B: 2" } }, { headers = { ["X A"] = "1" } }, { headers = { 1 } },
        { headers = 5 }, { body = {} }, { path = "no-slash" }, { path = "/a b" }, { other = 1 }, 5,
      }
      for _, verdict in ipairs(wrong) do
        local client = rig.client(server, { before_request = function() return verdict end })
        assert(client:request { path = "/p", body = "b" })
        local r = server.log[#server.log]
        assert.equal("/p", r.path)
        assert.equal("b", r.text)
        assert.is_nil(r.headers["x-b"])
        assert.equal(1, policy_rig.hooks(client).before_request.bad_verdicts)
      end
    end)
  end)

  describe("after_response", function()
    it("sees status, headers and the kept body", function()
      local seen = {}
      local server = rig.serve(function() return { headers = { ["x-cost"] = "12" }, json = { n = 1 } } end)
      local client = rig.client(server, { after_response = recorder(seen, function(view)
        seen.cost = view:header "x-cost"
        seen.none = view:header "x-none"
      end) })
      assert(client:request { path = "/p" })
      assert.equal("12", seen.cost)
      assert.is_nil(seen.none)
      assert.equal(200, seen[1].status)
      assert.equal('{"n":1}', seen[1].body)
      assert.truthy(seen[1].request_id:find "moonpool")
      assert.truthy(seen[1].time > 0)
    end)

    it("refuses a reply, which is tried again like a broken one", function()
      local server = rig.serve(function(_, n) return { json = { n = n } } end)
      local client = rig.client(server, { after_response = function(view)
        if view.body == '{"n":1}' then return "fail", "not the first" end
      end })
      assert.equal(2, client:request { path = "/p" }.data.n)
      client = rig.client(server, { after_response = function() return "fail", "never good" end })
      local _, err = client:request { path = "/p" }
      assert.equal("decode", err.kind)
      assert.truthy(err.message:find "never good")
      client = rig.client(rig.embedder(), { after_response = function() return "fail" end })
      _, err = embed(client)
      assert.equal("decode", err.kind)
    end)

    it("rewrites a kept body; vectors are gone by then", function()
      local server = rig.serve(function() return { json = { n = 1 } } end)
      local client = rig.client(server, { after_response = function() return "body", '{"n":5}' end })
      assert.equal(5, client:request({ path = "/p" }).data.n)
      client = rig.client(rig.embedder(), { after_response = function() return "body", "{}" end })
      assert.is_nil(rig.wrong_row(assert(embed(client)), { "1", "2" }))
      assert.equal(1, policy_rig.hooks(client).bad_verdicts)
    end)
  end)

  it("on_giveup hears of every request that failed for good, once", function()
    local seen = {}
    local server = rig.serve(function() return error_reply(500) end)
    local client = rig.client(server,
      { retry = { max_attempts = 2, base = 0.001 }, on_giveup = recorder(seen) })
    embed(client, { input = { "1" } })
    assert.equal(1, #seen)
    assert.equal("http", seen[1].kind)
    assert.equal(500, seen[1].status)
    assert.equal(2, seen[1].attempts)
    seen[1] = nil
    client = rig.client(rig.dead_url(), { retry = false, on_giveup = recorder(seen) })
    embed(client, { input = { "1" } })
    assert.equal("connect", seen[1].kind)
    assert.is_true(facts_of ~= nil and seen[1].status == nil)
  end)

  describe("of a call", function()
    it("replaces the client's, and false switches one off", function()
      local said = {}
      local function say(word) return function() said[#said + 1] = word end end
      local client = rig.client(rig.embedder(), { classify = say "client", rate = say "gate" })
      assert(embed(client, { classify = say "call" }))
      assert.same({ "gate", "call" }, said)
      said = {}
      assert(embed(client, { classify = false, rate = false }))
      assert.same({}, said)
      assert(embed(client))
      assert.same({ "gate", "client" }, said)
      assert.equal(4, policy_rig.hooks(client).calls)
    end)

    it("is enough: the client need not have any", function()
      local server = script { error_reply(404) }
      local client = rig.client(server)
      assert(embed(client, { retry = function() return true end }))
      assert.equal(2, #server.log)
      assert.equal(1, policy_rig.hooks(client).retry.calls)
    end)
  end)
end)
