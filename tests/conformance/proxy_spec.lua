-- The reverse proxy of the seed (C59): what its own tests ask of it, asked of the gateway.

local gateway = require "gateway_rig"
local moonpool = require "moonpool"
local rig = require "client_rig"

after_each(rig.close_all)

local function start(up, more)
  local config = { upstreams = { a = { base_url = up.url, retry = rig.quick } }, batch = { max_batch = 32 } }
  for k, v in pairs(more or {}) do config[k] = v end
  return gateway.start(config)
end

describe("C59 reverse proxy", function()
  it("2 texts are 1 batch, 100 texts at batch 32 are 4, merged in order", function()
    local up = rig.embedder()
    local g = start(up)
    local status, doc = g.post("/v1/embeddings", { model = "m", input = { "1", "2" } })
    assert.equal(200, status)
    assert.equal(1, #up.log)
    assert.equal(2, #doc.data)
    status, doc = g.post("/v1/embeddings", { model = "m", input = rig.texts(100) })
    assert.equal(200, status)
    assert.equal(5, #up.log)
    assert.equal(100, #doc.data)
    for i, row in ipairs(doc.data) do
      assert.equal(i - 1, row.index)
      assert.same(rig.vector(tostring(i)), row.embedding)
    end
    assert.equal(100, doc.usage.total_tokens)
    local sum = 0
    for i = 2, 5 do
      assert.is_true(#up.log[i].body.input <= 32)
      sum = sum + #up.log[i].body.input
    end
    assert.equal(100, sum)
  end)

  it("classify 3, rerank 3 with text", function()
    local mock = rig.mock { dim = 8 }
    local g = start(mock)
    local status, doc = g.post("/predict", { inputs = { { "a" }, { "b" }, { "c" } } })
    assert.equal(200, status)
    assert.equal(3, #doc)
    local texts = { "one", "two", "three" }
    status, doc = g.post("/rerank", { query = "two", texts = texts, return_text = true })
    assert.equal(200, status)
    assert.equal(3, #doc)
    assert.equal("two", doc[1].text)
    for _, hit in ipairs(doc) do assert.equal(texts[hit.index + 1], hit.text) end
  end)

  it("two failures, then success", function()
    local up = rig.embedder(function(_, n)
      if n <= 2 then return { status = 500, body = "no" } end
    end)
    local g = gateway.start {
      upstreams = { a = { base_url = up.url, retry = { max_attempts = 3, base = 0.001, cap = 0.002 } } },
    }
    local status, _, headers = g.post("/v1/embeddings", { model = "m", input = "1" })
    assert.equal(200, status)
    assert.equal(3, #up.log)
    assert.equal("3", headers["x-moonpool-attempts"])
  end)

  it("10 callers at once", function()
    local g = start(rig.embedder())
    local good = 0
    moonpool.scope(function(scope)
      for i = 1, 10 do
        scope:spawn(function()
          local status, doc = g.post("/v1/embeddings", { model = "m", input = { tostring(i), "7" } })
          assert.equal(200, status)
          assert.same(rig.vector(tostring(i)), doc.data[1].embedding)
          assert.same(rig.vector "7", doc.data[2].embedding)
          good = good + 1
        end)
      end
    end)
    assert.equal(10, good)
  end)

  it("health 200", function()
    local g = start(rig.embedder())
    assert.equal(200, (g.ask("GET", "/health")))
  end)
end)
