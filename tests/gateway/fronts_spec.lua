-- Every front over every provider: the same vectors as asked directly, and every fault of the service
-- an error in the caller's own words.

local gateway = require "gateway_rig"
local moonpool = require "moonpool"
local rig = require "client_rig"

after_each(rig.close_all)

local null = moonpool.json.null

-- ---- fronts: how a request is written, and the vectors read from its reply --------------------------

local fronts = {
  openai = {
    path = "/v1/embeddings",
    body = function(o)
      return { model = "local-demo", input = o.input, dimensions = o.dimensions, encoding_format = o.format }
    end,
    rows = function(doc)
      local rows = {}
      for i, item in ipairs(doc.data) do
        assert.equal(i - 1, item.index)
        rows[i] = item.embedding
      end
      return rows
    end,
    says = function(doc) return doc.error and doc.error.message, doc.error and doc.error.type end,
  },
  cohere = {
    path = "/v2/embed",
    body = function(o)
      local texts = type(o.input) == "string" and { o.input } or o.input
      return {
        model = "local-demo", texts = texts, output_dimension = o.dimensions, input_type = "search_document",
        embedding_types = { o.format or "float" },
      }
    end,
    rows = function(doc) return doc.embeddings.float or doc.embeddings.base64 end,
    says = function(doc) return doc.message end,
  },
  tei = {
    path = "/embed",
    body = function(o) return { inputs = o.input, dimensions = o.dimensions } end,
    rows = function(doc) return doc end,
    says = function(doc) return doc.error, doc.error_type end,
  },
  ollama = {
    path = "/api/embed",
    body = function(o) return { model = "local-demo", input = o.input, dimensions = o.dimensions } end,
    rows = function(doc) return doc.embeddings end,
    says = function(doc) return doc.error end,
  },
}

local providers = { "openai", "tei", "cohere", "voyage", "jina" }
-- Where two services have the same path, the mock answers each under its own name too.
local function base_of(mock, provider)
  local own = provider == "voyage" or provider == "jina"
  return own and mock.url .. "/" .. provider or mock.url
end

local function config_for(provider, mock)
  return {
    upstreams = { a = { base_url = base_of(mock, provider), provider = provider, model = "local-demo" } },
  }
end

local texts = { "a first text", "another", "ünïcode \u{1F600} \"quoted\"", "x", "a first text" }

local function same_vectors(direct, rows, format)
  assert.equal(#direct, #rows)
  for i, row in ipairs(rows) do
    if format == "base64" then
      assert.equal(direct[i]:bytes(), rig.unbase64(row))
    else
      assert.equal(moonpool.matrix.from({ row }):bytes(), direct[i]:bytes())
    end
  end
end

function rig.unbase64(text)
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local bits, n, out = 0, 0, {}
  for c in text:gmatch "[^=]" do
    bits = (bits << 6 | alphabet:find(c, 1, true) - 1) & 0xffffff
    n = n + 6
    if n >= 8 then
      n = n - 8
      out[#out + 1] = string.char(bits >> n & 0xff)
    end
  end
  return table.concat(out)
end

describe("gateway: fronts over providers", function()
  for _, provider in ipairs(providers) do
    it("give what " .. provider .. " gives directly", function()
      local mock = rig.mock { dim = 32 }
      local client = rig.client(base_of(mock, provider), { provider = provider, model = "local-demo" })
      local g = gateway.start(config_for(provider, mock))
      local list = assert(client:embed { input = texts })
      local one = assert(client:embed { input = texts[3] })
      for name, front in pairs(fronts) do
        local status, doc = g.post(front.path, front.body { input = texts })
        assert.equal(200, status, name)
        same_vectors(list, front.rows(doc))
        status, doc = g.post(front.path, front.body { input = texts[3] })
        assert.equal(200, status, name)
        same_vectors(one, front.rows(doc))
        if name == "openai" or name == "cohere" then
          status, doc = g.post(front.path, front.body { input = texts, format = "base64" })
          assert.equal(200, status, name)
          same_vectors(list, front.rows(doc), "base64")
        end
      end
    end)

    it("cut the vectors of " .. provider .. " to the dimensions asked for", function()
      local mock = rig.mock { dim = 1024 }
      local g = gateway.start(config_for(provider, mock))
      for name, front in pairs(fronts) do
        local status, doc = g.post(front.path, front.body { input = texts, dimensions = 256 })
        assert.equal(200, status, name)
        for _, row in ipairs(front.rows(doc)) do
          assert.equal(256, #row)
          local sum = 0
          for _, v in ipairs(row) do sum = sum + v * v end
          assert.is_true(sum == 0 or math.abs(sum - 1) < 1e-5, name)
        end
        status = g.post(front.path, front.body { input = texts, dimensions = 5000 })
        assert.is_true(status >= 400 and status < 500, name .. status)
      end
    end)
  end

  it("take token ids where the service does, and say so where it does not", function()
    local mock = rig.mock { dim = 8 }
    local client = rig.client(mock.url, { model = "local-demo" })
    local g = gateway.start { upstreams = { a = { base_url = mock.url } } }
    local ids = { { 1, 2, 3 }, { 7 } }
    local direct = assert(client:embed { input = ids })
    local status, doc = g.post("/v1/embeddings", { model = "local-demo", input = ids })
    assert.equal(200, status)
    same_vectors(direct, fronts.openai.rows(doc))
    status, doc = g.post("/v1/embeddings", { model = "local-demo", input = { 1, 2, 3 } })
    assert.equal(200, status)
    same_vectors(assert(client:embed { input = { 1, 2, 3 } }), fronts.openai.rows(doc))
    g = gateway.start { upstreams = { a = { base_url = mock.url, provider = "cohere" } } }
    status, doc = g.post("/v1/embeddings", { model = "local-demo", input = ids })
    assert.equal(400, status)
    assert.matches("token ids", doc.error.message)
  end)
end)

describe("gateway: a service that", function()
  -- What a service may do to a reply of three rows; nil: it is right all the same.
  local wrongs = {
    ["shuffles by index"] = { ok = true, change = function(data) data[1], data[3] = data[3], data[1] end },
    ["gives a row too few"] = { change = function(data) data[3] = nil end },
    ["gives a row twice"] = { change = function(data) data[3].index = 0 end },
    ["gives a row too many"] = {
      change = function(data) data[4] = { index = 3, embedding = { 1, 2, 3 } } end,
    },
    ["gives null for a row"] = { change = function(data) data[2].embedding = null end },
    ["gives null in a row"] = { change = function(data) data[2].embedding = { 1, null, 3 } end },
    ["gives a shorter row"] = { change = function(data) data[2].embedding = { 1, 2 } end },
    ["gives no list"] = { change = function(_, doc) doc.data = null end },
    ["gives an index out of range"] = { change = function(data) data[2].index = 17 end },
  }

  for what, wrong in pairs(wrongs) do
    it(what .. " never makes a wrong row", function()
      local up = rig.serve(function(seen)
        local doc = rig.embeddings(seen.body.input)
        wrong.change(doc.data, doc)
        return { json = doc }
      end)
      local g = gateway.start { upstreams = { a = { base_url = up.url, retry = false } } }
      for name, front in pairs(fronts) do
        local status, doc = g.post(front.path, front.body { input = { "1", "2", "3" } })
        if wrong.ok then
          assert.equal(200, status, name)
          for i, row in ipairs(front.rows(doc)) do assert.same(rig.vector(tostring(i)), row) end
        else
          assert.equal(502, status, name)
          assert.is_string(front.says(doc))
        end
      end
    end)
  end

  it("refuses, is not there or is slow is told in the caller's words", function()
    local status_now = 400
    local up = rig.serve(function()
      return {
        status = status_now, headers = { ["retry-after"] = status_now == 429 and "7" or nil },
        json = { error = { message = "the service says " .. status_now, type = "x", code = "its_code" } },
      }
    end)
    local g = gateway.start { upstreams = { a = { base_url = up.url, retry = false, breaker = false } } }
    for _, status in ipairs { 400, 401, 403, 404, 413, 422, 429, 500, 503 } do
      status_now = status
      for name, front in pairs(fronts) do
        local got, doc, err = g.post(front.path, front.body { input = "1" })
        assert.equal(status, got, name)
        local message = front.says(doc)
        assert.matches("the service says " .. status, message)
        if status == 429 then assert.equal(7, err.retry_after) end
      end
    end
    g = gateway.start { upstreams = { a = { base_url = rig.dead_url(), retry = false } } }
    for name, front in pairs(fronts) do
      local got, doc = g.post(front.path, front.body { input = "1" })
      assert.equal(502, got, name)
      assert.is_string(front.says(doc))
    end
    local slow = rig.serve(function() moonpool.sleep(30) return { json = {} } end)
    g = gateway.start { timeout = 0.05, upstreams = { a = { base_url = slow.url, retry = false } } }
    for name, front in pairs(fronts) do
      local got, doc = g.post(front.path, front.body { input = "1" })
      assert.equal(504, got, name)
      assert.is_string(front.says(doc))
    end
  end)
end)

describe("gateway: requests that make no sense", function()
  it("are refused before anything is sent, naming the field", function()
    local up = rig.embedder()
    local g = gateway.start { upstreams = { a = { base_url = up.url } }, max_inputs = 4 }
    local cases = {
      { "/v1/embeddings", "{", 400, "not JSON" },
      { "/v1/embeddings", "[]", 400, "JSON object" },
      { "/v1/embeddings", '"x"', 400, "JSON object" },
      { "/v1/embeddings", { model = "m" }, 400, "'input' is missing" },
      { "/v1/embeddings", '{"input":null}', 400, "'input' is missing" },
      { "/v1/embeddings", '{"input":[]}', 400, "must not be empty" },
      { "/v1/embeddings", '{"input":{"a":1}}', 400, "'input'" },
      { "/v1/embeddings", '{"input":["a",3]}', 400, "input%[1%]" },
      { "/v1/embeddings", '{"input":["a",null]}', 400, "input%[1%]" },
      { "/v1/embeddings", '{"input":[[1],[]]}', 400, "input%[1%]" },
      { "/v1/embeddings", '{"input":[1,-2]}', 400, "token ids" },
      { "/v1/embeddings", '{"input":[1.5]}', 400, "token ids" },
      { "/v1/embeddings", '{"input":true}', 400, "'input'" },
      { "/v1/embeddings", { input = "a", encoding_format = "hex" }, 400, "encoding_format" },
      { "/v1/embeddings", { input = "a", dimensions = 0 }, 400, "dimensions" },
      { "/v1/embeddings", { input = "a", dimensions = "8" }, 400, "dimensions" },
      { "/v1/embeddings", { input = "a", model = 3 }, 400, "model" },
      { "/v1/embeddings", { input = { "1", "2", "3", "4", "5" } }, 413, "5 inputs" },
      { "/v2/embed", { texts = { "a" }, embedding_types = { "int8" } }, 400, "embedding_types" },
      { "/v2/embed", { texts = {} }, 400, "texts" },
      { "/v2/rerank", { documents = { "a" } }, 400, "query" },
      { "/v2/rerank", { query = "q", documents = {} }, 400, "documents" },
      { "/v1/rerank", { query = "q", documents = { 1 } }, 400, "documents%[0%]" },
      { "/rerank", { query = "q" }, 400, "texts" },
      { "/predict", { inputs = { { "a", "b", "c" } } }, 400, "inputs%[0%]" },
      { "/api/embed", { input = { { 1 } } }, 400, "input" },
      { "/nowhere", {}, 404, "/nowhere" },
    }
    for _, case in ipairs(cases) do
      local status, doc = g.post(case[1], case[2])
      local said = type(doc.error) == "table" and doc.error.message or doc.error or doc.message
      assert.equal(case[3], status, said)
      assert.matches(case[4], said)
    end
    assert.equal(405, (g.ask("GET", "/v1/embeddings")))
    assert.equal(415, (g.post("/v1/embeddings", "x", { ["content-encoding"] = "gzip" })))
    assert.equal(0, #up.log)
  end)
end)

describe("gateway: rerank and predict", function()
  it("are answered in the words of their fronts", function()
    local mock = rig.mock { dim = 8 }
    local client = rig.client(mock.url, { model = "local-demo" })
    local docs = { "apples and pears", "the moon", "pears" }
    local direct = assert(client:rerank { query = "pears", texts = docs })
    for _, provider in ipairs { "openai", "tei", "cohere", "voyage", "jina" } do
      local g = gateway.start(config_for(provider, mock))
      for _, path in ipairs { "/v1/rerank", "/v2/rerank" } do
        local status, doc = g.post(path, {
          model = "local-demo", query = "pears", documents = docs, top_n = 2, return_documents = true,
        })
        assert.equal(200, status, provider)
        assert.equal(2, #doc.results)
        assert.equal(direct.results[1].index - 1, doc.results[1].index)
        assert.equal(docs[doc.results[1].index + 1], doc.results[1].document.text)
        assert.is_number(doc.results[1].relevance_score)
      end
      local status, doc = g.post("/rerank", { query = "pears", texts = docs, return_text = true })
      assert.equal(200, status, provider)
      assert.equal(3, #doc)
      assert.equal(docs[doc[1].index + 1], doc[1].text)
    end
    local g = gateway.start { upstreams = { a = { base_url = mock.url } } }
    local status, doc = g.post("/predict", { inputs = "good" })
    assert.equal(200, status)
    assert.is_string(doc[1].label)
    status, doc = g.post("/predict", { inputs = { { "good" }, { "bad" } } })
    assert.equal(200, status)
    assert.equal(2, #doc)
    assert.is_string(doc[2][1].label)
    status, doc = g.post("/api/embeddings", { model = "local-demo", prompt = "x" })
    assert.equal(200, status)
    assert.equal(8, #doc.embedding)
  end)
end)
