-- Keys, budgets, rates, fallbacks, cache, CORS, the log: who may ask for what, and what is said of it.

local gateway = require "gateway_rig"
local limits = require "moonpool.gateway.limits"
local moonpool = require "moonpool"
local rig = require "client_rig"

after_each(rig.close_all)

local function bearer(key)
  return { Authorization = "Bearer " .. key }
end

local function embed(g, headers, more)
  local body = { model = "m", input = "1" }
  for k, v in pairs(more or {}) do body[k] = v end
  return g.post("/v1/embeddings", body, headers)
end

describe("gateway: keys", function()
  it("are asked for, named in no reply, and may be limited to models", function()
    local up = rig.embedder()
    local g = gateway.start {
      upstreams = { a = { base_url = up.url } },
      keys = {
        ["sk-alpha-secret"] = { name = "alpha" }, ["sk-beta-secret"] = { name = "beta", models = { "x" } },
      },
    }
    local status, doc = embed(g)
    assert.equal(401, status)
    assert.equal("invalid_api_key", doc.error.code)
    status, doc = embed(g, bearer "sk-wrong-secret")
    assert.equal(401, status)
    assert.is_nil(doc.error.message:find("sk-wrong", 1, true))
    assert.equal(200, (embed(g, bearer "sk-alpha-secret")))
    assert.equal(200, (embed(g, { ["x-api-key"] = "sk-alpha-secret" })))
    assert.equal(403, (embed(g, bearer "sk-beta-secret")))
    assert.equal(200, (embed(g, bearer "sk-beta-secret", { model = "x" })))
    assert.equal(200, (g.ask("GET", "/health")))
    assert.equal(401, (g.ask("GET", "/v1/models")))
    for _, seen in ipairs(up.log) do
      assert.is_nil((seen.headers.authorization or ""):find("secret", 1, true))
    end
    local _, text = g.ask("GET", "/metrics")
    assert.is_nil(text:find("secret", 1, true))
    assert.truthy(text:find('key="alpha"', 1, true))
  end)

  it("have rates and budgets that slide, and say when to come again", function()
    local g = gateway.start {
      upstreams = { a = { base_url = rig.embedder().url } },
      models = { m = { upstream = "a", price = 1000000 } },
      keys = {
        ["sk-requests"] = { name = "requests", rpm = 2 },
        ["sk-tokens-1"] = { name = "tokens", budget = { tokens = 3, window = 3600 } },
        ["sk-money-12"] = { name = "money", budget = { { usd = 2.5, window = 86400 } } },
      },
    }
    for _ = 1, 2 do assert.equal(200, (embed(g, bearer "sk-requests"))) end
    local status, doc, err = embed(g, bearer "sk-requests")
    assert.equal(429, status)
    assert.equal("rate_limit_exceeded", doc.error.code)
    assert.is_true(err.retry_after >= 55 and err.retry_after <= 62)
    for _ = 1, 3 do assert.equal(200, (embed(g, bearer "sk-tokens-1"))) end
    status, doc = embed(g, bearer "sk-tokens-1")
    assert.equal(429, status)
    assert.equal("insufficient_quota", doc.error.code)
    for _ = 1, 2 do assert.equal(200, (embed(g, bearer "sk-money-12"))) end
    assert.equal(429, (embed(g, bearer "sk-money-12")))
  end)

  it("limit callers without a key by their address or a header", function()
    local g = gateway.start {
      upstreams = { a = { base_url = rig.embedder().url } }, caller = { by = "header:x-team", rpm = 1 },
    }
    assert.equal(200, (embed(g, { ["x-team"] = "a" })))
    assert.equal(429, (embed(g, { ["x-team"] = "a" })))
    assert.equal(200, (embed(g, { ["x-team"] = "b" })))
  end)

  it("give back what a failed request did not use", function()
    local fail = true
    local up = rig.embedder(function() if fail then return { status = 400, body = "no" } end end)
    local g = gateway.start {
      upstreams = { a = { base_url = up.url, retry = false } },
      keys = { ["sk-tokens-1"] = { name = "t", budget = { tokens = 2, window = 60 } } },
    }
    for _ = 1, 4 do assert.equal(400, (embed(g, bearer "sk-tokens-1"))) end
    fail = false
    assert.equal(200, (embed(g, bearer "sk-tokens-1")))
  end)
end)

describe("gateway: a window", function()
  it("lets no stretch of its length have more, and forgets what is past", function()
    local w = limits.window(10, 0.06)
    w:use(10)
    local wait = w:wait(1)
    assert.is_true(wait > 0 and wait <= 0.07)
    assert.is_nil(w:wait(11))
    moonpool.sleep(0.08)
    assert.equal(0, w:wait(10))
    w:use(4)
    assert.equal(0, w:wait(6))
    assert.is_true(w:wait(7) > 0)
    w:use(-4)
    assert.equal(0, w:wait(10))
  end)
end)

describe("gateway: routes", function()
  it("go along a chain where a service fails, within one space only", function()
    local broken = rig.serve(function() return { status = 503, body = "" } end)
    local good = rig.embedder()
    local config = {
      upstreams = { a = { base_url = broken.url, retry = false }, b = { base_url = good.url } },
      models = { m = { chain = { { upstream = "a" }, { upstream = "b" } } } },
    }
    local g = gateway.start(config)
    local status, _, headers = embed(g)
    assert.equal(200, status)
    assert.equal("b", headers["x-moonpool-upstream"])
    assert.equal("2", headers["x-moonpool-attempts"])
    config.models.m.chain[2].model = "another"
    assert.has_error(function() moonpool.gateway(config) end)
    config.models.m.space = "the same"
    moonpool.gateway(config):close()
    good = rig.serve(function() return { status = 400, body = "no" } end)
    g = gateway.start {
      upstreams = { a = { base_url = good.url, retry = false }, b = { base_url = broken.url } },
      models = config.models,
    }
    assert.equal(400, (embed(g))) -- the caller's own fault: nobody else is asked
    status = embed(g, nil, { model = "unknown" })
    assert.equal(404, status)
  end)

  it("pass chat completions on, streaming and untouched", function()
    local up = rig.keep(assert(moonpool.serve { listen = "127.0.0.1:0", handler = function(req)
      if req:json().stream then
        local i = 0
        return { headers = { ["content-type"] = "text/event-stream" }, stream = function()
          i = i + 1
          return ({ 'data: {"n":1}\n\n', 'data: {"n":2}\n\n', "data: [DONE]\n\n" })[i]
        end }
      end
      return { json = { path = req.path, text = req.body } }
    end }))
    local g = gateway.start { upstreams = { a = { base_url = up.url } } }
    local text = '{ "model":"m" , "messages":[{"role":"user","content":"\\u00e9"}],  "x": 1.50 }'
    local status, doc = g.post("/v1/chat/completions", text)
    assert.equal(200, status)
    assert.equal(text, doc.text)
    assert.equal("/v1/chat/completions", doc.path)
    local got = {}
    for event in g.client:stream { path = "/v1/chat/completions", json = { model = "m", stream = true } } do
      got[#got + 1] = event.data
    end
    assert.same({ '{"n":1}', '{"n":2}' }, got)
  end)

  it("are cached by content where asked", function()
    local up = rig.embedder()
    local g = gateway.start { upstreams = { a = { base_url = up.url } }, cache_bytes = 1 << 20 }
    for i = 1, 4 do
      local status, doc, headers = embed(g, nil, { input = { "1", "2" } })
      assert.equal(200, status)
      assert.same(rig.vector "2", doc.data[2].embedding)
      assert.equal(i == 1 and "miss" or "hit", headers["x-moonpool-cache"])
    end
    assert.equal(1, #up.log)
  end)
end)

describe("gateway: pages of others", function()
  it("may call it where CORS says so", function()
    local g = gateway.start {
      upstreams = { a = { base_url = rig.embedder().url } }, cors = { origins = { "https://app.example" } },
    }
    local status, _, headers = g.ask("OPTIONS", "/v1/embeddings", nil, {
      origin = "https://app.example", ["access-control-request-headers"] = "authorization",
    })
    assert.equal(204, status)
    assert.equal("https://app.example", headers["access-control-allow-origin"])
    _, _, headers = embed(g, { origin = "https://app.example" })
    assert.equal("https://app.example", headers["access-control-allow-origin"])
    _, _, headers = embed(g, { origin = "https://evil.example" })
    assert.is_nil(headers["access-control-allow-origin"])
    assert.equal(403, (g.ask("OPTIONS", "/v1/embeddings", nil, { origin = "https://evil.example" })))
  end)
end)

describe("gateway: the log", function()
  it("has a line a request, without keys", function()
    local lines = {}
    local g = gateway.start {
      upstreams = { a = { base_url = rig.embedder().url } },
      keys = { ["sk-alpha-secret"] = { name = "alpha" } },
      log = function(entry) lines[#lines + 1] = entry end,
    }
    embed(g, bearer "sk-alpha-secret")
    embed(g, bearer "sk-nothing-secret")
    assert.equal(2, #lines)
    assert.equal(200, lines[1].status)
    assert.equal("alpha", lines[1].key)
    assert.equal("m", lines[1].model)
    assert.equal(1, lines[1].rows)
    assert.equal(401, lines[2].status)
    assert.is_nil(moonpool.json.encode(lines):find("secret", 1, true))
  end)
end)

describe("gateway: configurations that make no sense", function()
  it("are refused with the place", function()
    for wanted, config in pairs {
      ["upstreams: at least one"] = {},
      ["unknown option 'upstream'"] = { upstream = {} },
      ["there is no upstream"] = { upstreams = { a = { base_url = "http://x" } }, models = { m = "b" } },
      ["models: is needed"] = {
        upstreams = { a = { base_url = "http://x" }, b = { base_url = "http://y" } },
      },
      ["at least 8 bytes"] = { upstreams = { a = { base_url = "http://x" } }, keys = { k = { name = "n" } } },
      ["needs a name"] = { upstreams = { a = { base_url = "http://x" } }, keys = { ["sk-12345"] = {} } },
      ["window %(seconds%) is missing"] = {
        upstreams = { a = { base_url = "http://x" } },
        keys = { ["sk-12345"] = { name = "n", budget = { usd = 1 } } },
      },
      ["upstreams.a"] = { upstreams = { a = { base_url = "http://x", provider = "nobody" } } },
    } do
      local ok, why = pcall(moonpool.gateway, config)
      assert.is_false(ok, wanted)
      assert.matches(wanted, why)
      assert.is_nil(why:find("sk-12345", 1, true))
    end
  end)
end)
