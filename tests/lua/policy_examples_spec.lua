-- examples/policies: each does what its header says, over real sockets.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local rig = require "client_rig"

local cost_cap = require "examples.policies.cost_cap"
local time_of_day = require "examples.policies.time_of_day"
local tenant_fairness = require "examples.policies.tenant_fairness"
local canary = require "examples.policies.canary"
local model_fallback = require "examples.policies.model_fallback"
local dry_run = require "examples.policies.dry_run"
local hmac_sign = require "examples.policies.hmac_sign"

local function embed(client, o)
  return rig.within(30, client.embed, client, o)
end

local function no_faults(client)
  local hooks = client:stats().hooks
  assert.equal(0, hooks.errors + hooks.bad_verdicts + hooks.stopped, hooks.last_error)
  return hooks
end

local function failing(status)
  return { status = status or 500, json = { error = { message = "no" } } }
end

describe("cost_cap", function()
  after_each(rig.close_all)

  it("stops at the cap, keeps what was paid for and knows the sum", function()
    local told
    -- The rig's usage is one token a row, so a row costs a dollar; the estimate is exact.
    local cap = cost_cap { usd = 10, per_million_tokens = 1e6, on_cap = function(spent) told = spent end }
    local server = rig.embedder()
    local client = rig.client(server, { policy = cap, estimate_tokens = function() return 1 end })
    local res = assert(embed(client, { input = rig.texts(20), batch_size = 4 }))
    assert.equal(2, #server.log)
    assert.equal(12, #res.errors)
    assert.equal("budget", res.errors[1].error.kind)
    assert.same({ 8, 0 }, { cap:spent() })
    assert.equal(8, told)
    local _, err = embed(client, { input = rig.texts(3) })
    assert.equal("budget", err.kind)
    assert(embed(client, { input = rig.texts(2) }))
    assert.equal(10, (cap:spent()))
    no_faults(client)
  end)

  it("estimates of the safe side are waited for, failures are free", function()
    local cap = cost_cap { usd = 4, per_million_tokens = 1e6 }
    local server = rig.embedder(function(_, n) return n == 1 and failing() or nil end)
    local client = rig.client(server, { policy = cap, estimate_tokens = function() return 3 end })
    -- Two of them do not fit by the estimate, but both did when the first had cost one.
    assert(embed(client, { input = { "1" } }))
    local res = assert(embed(client, { input = { "1", "2" }, batch_size = 1 }))
    assert.is_true(#res.errors <= 1)
    local spent, reserved = cap:spent()
    assert.equal(4, #server.log - 1 + 1 + #res.errors)
    assert.equal(#server.log - 1, spent)
    assert.equal(0, reserved)
    no_faults(client)
  end)

  it("reads the usage of replies that are kept as text", function()
    local cap = cost_cap { usd = 1, per_million_tokens = 0.5 }
    local server = rig.serve(function() return { json = { usage = { total_tokens = 500000 } } } end)
    local client = rig.client(server, { policy = cap })
    for _ = 1, 2 do assert(client:request { path = "/v1/chat", json = {} }) end
    assert.equal(0.5, (cap:spent()))
  end)
end)

describe("time_of_day", function()
  after_each(rig.close_all)

  it("slows to the rate of the hour, across midnight too", function()
    local hour = 12
    local hours = time_of_day {
      { from = 8, to = 20, rpm = 6000 }, { from = 22, to = 6, rpm = 600000 },
      clock = function() return hour end,
    }
    local server = rig.embedder()
    local client = rig.client(server, { policy = hours })
    assert(embed(client, { input = rig.texts(2), batch_size = 1 })) -- the burst begins with one
    local began = moonpool.now()
    assert(embed(client, { input = rig.texts(130), batch_size = 1 }))
    -- 100 a second and at most a second's burst: what came in between is not in it.
    assert.truthy(moonpool.now() - began >= 0.25)
    assert.truthy(client:stats().hooks.rate.calls > 130)
    for _, h in ipairs { 23, 3, 7, 21 } do
      hour = h
      assert(embed(client, { input = rig.texts(20), batch_size = 1 }))
    end
    no_faults(client)
  end)

  it("a closed hour waits for the next line", function()
    local hour = 12
    local hours = time_of_day { { from = 0, to = 24, rpm = 0 }, clock = function() return hour end }
    local verdict = { hours.rate { now = 1 }, hours.rate { now = 2 } }
    assert.is_nil(verdict[1]) -- the one it began with
    assert.equal(30, hours.rate { now = 3 })
  end)
end)

describe("tenant_fairness", function()
  after_each(rig.close_all)

  -- The order in which a busy server sees the tenants.
  local function order(weights, jobs)
    local seen = {}
    local server = rig.embedder(function(got)
      seen[#seen + 1] = got.headers["x-tenant"]
      moonpool.sleep(0.002)
    end)
    local client = rig.client(server, { policy = tenant_fairness { weights = weights }, concurrency = 2 })
    moonpool.scope(function(scope)
      for _, job in ipairs(jobs) do
        scope:spawn(function()
          assert(embed(client,
            { input = rig.texts(job.n), batch_size = 1, tag = job.tag,
            headers = { ["X-Tenant"] = job.tag } }))
        end)
      end
    end)
    no_faults(client)
    return seen
  end

  local function count(seen, tag, upto)
    local n = 0
    for i = 1, upto do n = n + (seen[i] == tag and 1 or 0) end
    return n
  end

  it("a small tenant is done long before a large one", function()
    local seen = order({}, {
      { tag = "large", n = 60 }, { tag = "large", n = 60 }, { tag = "large", n = 60 },
      { tag = "small", n = 20 },
    })
    assert.equal(200, #seen)
    -- Without the policy each call has its turn, and the small one a quarter.
    assert.truthy(count(seen, "small", 50) == 20, "of 50: " .. count(seen, "small", 50))
  end)

  it("weights are shares", function()
    local seen = order({ gold = 3 }, { { tag = "gold", n = 90 }, { tag = "free", n = 90 } })
    local gold = count(seen, "gold", 80)
    assert.truthy(gold >= 54 and gold <= 66, "gold of 80: " .. gold)
  end)

  it("one alone gets everything", function()
    assert.equal(30, #order({ gold = 3 }, { { tag = "free", n = 30 } }))
  end)
end)

describe("canary", function()
  after_each(rig.close_all)

  local function pair(o, canary_hook)
    local old, new = rig.embedder(), rig.embedder(canary_hook)
    local client = rig.keep(moonpool.client {
      endpoints = { { base_url = old.url }, { base_url = new.url, weight = 0 } },
      policy = canary(o), retry = { base = 0.001, throttle_base = 0.001 },
    })
    return client, old, new
  end

  it("gets its share", function()
    local client, old, new = pair { share = 0.25 }
    assert(embed(client, { input = rig.texts(400), batch_size = 1 }))
    assert.equal(400, #old.log + #new.log)
    assert.truthy(#new.log > 60 and #new.log < 140, #new.log)
    no_faults(client)
  end)

  it("is left alone when it fails, and no row suffers", function()
    local tripped
    local client, old, new = pair(
      { share = 0.5, least = 5, on_trip = function(failed, of) tripped = { failed, of } end },
      function() return failing() end)
    local res = assert(embed(client, { input = rig.texts(200), batch_size = 1, max_concurrent_requests = 4 }))
    assert.is_true(res.ok)
    assert.truthy(tripped and tripped[1] >= 5)
    assert.truthy(#new.log < 20, #new.log)
    assert.equal(200, #old.log)
    no_faults(client)
  end)
end)

describe("model_fallback", function()
  after_each(rig.close_all)

  -- A server whose big model fails while `broken`.
  local function server_of(broken)
    return rig.serve(function(seen)
      if seen.body.model == "big.4" and broken[1] then return failing(503) end
      return { json = { model = seen.body.model } }
    end)
  end

  it("a request that keeps failing is answered by the smaller model", function()
    local fall = model_fallback { from = "big.4", to = "small%1", tries = 2, failures = 100 }
    local broken = { true }
    local server = server_of(broken)
    local client = rig.client(server, { policy = fall })
    local res = assert(client:request { path = "/v1/chat",
      json = { model = "big.4", prompt = 'say "model":"big.4"' } })
    assert.equal("small%1", res.data.model)
    assert.equal(3, #server.log)
    assert.equal('say "model":"big.4"', server.log[3].body.prompt)
    broken[1] = false
    assert.equal("big.4", client:request({ path = "/v1/chat", json = { model = "big.4" } }).data.model)
    assert.same({ ["big.4"] = 1, ["small%1"] = 1 }, fall:used())
    assert.equal("other", client:request({ path = "/v1/chat", json = { model = "other" } }).data.model)
    no_faults(client)
  end)

  it("a model that fails again and again is left alone", function()
    local fall = model_fallback { from = "big.4", to = "small", tries = 1, failures = 3, pause = 60 }
    local server = server_of { true }
    local client = rig.client(server, { policy = fall })
    for _ = 1, 6 do assert(client:request { path = "/v1/chat", json = { model = "big.4" } }) end
    assert.equal(3 * 2 + 3, #server.log)
    no_faults(client)
  end)
end)

describe("dry_run", function()
  after_each(rig.close_all)

  it("asks everything, decides nothing, and says what would have been", function()
    local heard = {}
    local trial = dry_run({
      name = "strict", retry = { max_attempts = 1, hook = function() return "fail" end },
      rate = function() return "fail" end,
      before_request = function() return { body = "changed" } end,
      classify = function(view) return view.class ~= "ok" and "fatal" or nil end,
    }, function(hook, verdict, _, view) heard[#heard + 1] = hook .. tostring(verdict):sub(1, 5)
    .. view.attempts end)
    local server = rig.serve(function(_, n) return n == 1 and failing() or { json = { fine = true } } end)
    local client = rig.client(server, { policy = trial })
    assert.is_true(client:request({ path = "/p", body = "as it was" }).data.fine)
    assert.equal(2, #server.log)
    assert.equal("as it was", server.log[1].text)
    assert.equal("dry_run of strict", client:stats().policy)
    local report = trial:report()
    for _, line in ipairs {
      "rate fail: 2", "before_request a rewrite: 2", "classify fatal: 1", "classify nil: 1", "retry fail: 1",
    } do
      assert.truthy(report:find(line, 1, true), line .. " in " .. report)
    end
    assert.truthy(#heard == 6)
    no_faults(client)
  end)

  it("of another example", function()
    local trial = dry_run(cost_cap { usd = 0, per_million_tokens = 1 })
    local client = rig.client(rig.embedder(), { policy = trial })
    assert(embed(client, { input = { "1" } }))
    assert.truthy(trial:report():find("rate fail: 1", 1, true))
  end)
end)

describe("hmac_sign", function()
  after_each(rig.close_all)

  it("signs every attempt as it is sent, and shows the secret to nobody", function()
    local now = 1700000000
    local sign = hmac_sign { secret = "canary-secret", clock = function()
      now = now + 1
      return now
    end }
    local server = rig.serve(function(_, n) return n == 1 and failing() or { json = {} } end)
    local client = rig.client(server, { policy = sign })
    assert(client:request { path = "/p", json = { a = 1 } })
    for i, r in ipairs(server.log) do
      assert.equal(("%d"):format(1700000000 + i), r.headers["x-timestamp"])
      local want = core.hmac_sha256("canary-secret", ("%d.POST./p.%s"):format(1700000000 + i, r.text))
      local hex = want:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
      assert.equal(hex, r.headers["x-signature"])
    end
    assert.equal(2, #server.log)
    assert.is_nil(tostring(client):find "canary")
    no_faults(client)
  end)
end)
