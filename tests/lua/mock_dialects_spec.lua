-- The mock's routes, each dialect by its own words, over real sockets.

local moonpool = require "moonpool"
local core = require "moonpool.core"

local null = core.json_null

-- Little-endian float32s in base64.
local function floats_of(base64)
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local value = {}
  for i = 1, #alphabet do
    value[alphabet:byte(i)] = i - 1
  end
  local bytes = base64:gsub("%s", ""):gsub("(.)(.)(.?)(.?)", function(a, b, c, d)
    local n = value[a:byte()] << 18 | value[b:byte()] << 12
      | (value[c:byte()] or 0) << 6 | (value[d:byte()] or 0)
    return string.char(n >> 16, n >> 8 & 255, n & 255):sub(1, c == "=" and 1 or d == "=" and 2 or 3)
  end)
  local out = {}
  for at = 1, #bytes, 4 do
    out[#out + 1] = string.unpack("<f", bytes, at)
  end
  return out
end

local function length(v)
  local sum = 0
  for _, x in ipairs(v) do
    sum = sum + x * x
  end
  return math.sqrt(sum)
end

local function cosine(a, b)
  local sum = 0
  for i, x in ipairs(a) do
    sum = sum + x * b[i]
  end
  return sum / length(a) / length(b)
end

describe("mock", function()
  local mock, client

  setup(function()
    mock = assert(moonpool.mock { dim = 64 })
    client = moonpool.client { base_url = mock.url, retry = false }
  end)

  teardown(function()
    client:close()
    mock:close()
  end)

  -- status, decoded body, headers
  local function post(path, body, opts)
    local res, err = client:request { method = "POST", path = path, json = body,
      headers = opts and opts.headers }
    if res then
      return res.status, res.data, res.headers
    end
    return err.status, err.body and core.json_decode(err.body) or err.body, err.headers, err
  end

  local function vector(text)
    local _, r = post("/v1/embeddings", { input = text, model = "m" })
    return r.data[1].embedding
  end

  describe("OpenAI", function()
    it("embeds a text, a list, ids and lists of ids", function()
      local status, r = post("/v1/embeddings", { input = "hello there", model = "some-model" })
      assert.equal(200, status)
      assert.equal("list", r.object)
      assert.equal("some-model", r.model)
      assert.same({ "embedding", 0 }, { r.data[1].object, r.data[1].index })
      assert.equal(64, #r.data[1].embedding)
      assert.is_true(math.abs(length(r.data[1].embedding) - 1) < 1e-5)
      assert.same({ prompt_tokens = 3, total_tokens = 3 }, r.usage)

      status, r = post("/v1/embeddings", { input = { "a", "b", "hello there" }, model = "m" })
      assert.equal(200, status)
      assert.same({ 0, 1, 2 }, { r.data[1].index, r.data[2].index, r.data[3].index })
      assert.same(vector "hello there", r.data[3].embedding)

      status, r = post("/v1/embeddings", { input = { 1, 2, 3 }, model = "m" })
      assert.equal(200, status)
      assert.equal(1, #r.data)
      assert.equal(3, r.usage.prompt_tokens)
      local _, lists = post("/v1/embeddings", { input = { { 1, 2, 3 }, { 4 } }, model = "m" })
      assert.equal(2, #lists.data)
      assert.equal(4, lists.usage.total_tokens)
      assert.same(r.data[1].embedding, lists.data[1].embedding)
    end)

    it("gives the same floats as base64", function()
      local _, r = post("/v1/embeddings", { input = "hello there", encoding_format = "base64" })
      local floats, plain = floats_of(r.data[1].embedding), vector "hello there"
      assert.equal(64, #floats)
      for i = 1, 64 do
        assert.equal(floats[i], string.unpack("<f", string.pack("<f", plain[i])))
      end
    end)

    it("cuts to the dimensions asked for and scales to length 1", function()
      local text = ("many different words so that each dimension has something "):rep(3)
      local _, r = post("/v1/embeddings", { input = text, dimensions = 16 })
      local cut, full = r.data[1].embedding, vector(text)
      assert.equal(16, #cut)
      assert.is_true(math.abs(length(cut) - 1) < 1e-5)
      assert.is_true(cosine(cut, { table.unpack(full, 1, 16) }) > 0.99999)
    end)

    it("puts related texts nearer than others", function()
      local a, b, c = vector "the cat sat on the mat", vector "a cat sitting on a mat",
        vector "quarterly revenue grew by nine percent"
      assert.is_true(cosine(a, b) > cosine(a, c) + 0.1)
    end)

    local wrong = {
      { {}, "'input' is a required property" },
      { { input = null }, "required" },
      { { input = "" }, "empty string" },
      { { input = { "a", "" } }, "empty string" },
      { { input = core.json_array {} }, "empty array" },
      { { input = { "a", 1 } }, "invalid" },
      { { input = { 1, "a" } }, "invalid" },
      { { input = { 1.5 } }, "invalid" },
      { { input = { { 1 }, "a" } }, "invalid" },
      { { input = 5 }, "invalid" },
      { { input = true }, "invalid" },
      { { input = "a", model = 5 }, "model" },
      { { input = "a", dimensions = 65 }, "dimensions" },
      { { input = "a", dimensions = 0 }, "dimensions" },
      { { input = "a", encoding_format = "hex" }, "encoding_format" },
      { { input = ("x"):rep(40000) }, "maximum context length is 8192 tokens" },
    }
    it("refuses what is wrong with 400 and OpenAI's error body", function()
      for i, case in ipairs(wrong) do
        local status, r = post("/v1/embeddings", case[1])
        assert.equal(400, status, "case " .. i)
        assert.equal("invalid_request_error", r.error.type)
        assert.truthy(r.error.message:find(case[2], 1, true), r.error.message)
        assert.truthy(r.error.param and r.error.code)
      end
      local res, err = client:request { method = "POST", path = "/v1/embeddings", body = "{no json" }
      assert.is_nil(res)
      assert.equal(400, err.status)
    end)

    it("takes 2048 inputs and not one more, nor too many tokens", function()
      local many = {}
      for i = 1, 2049 do
        many[i] = "a"
      end
      local status, r = post("/v1/embeddings", { input = many, dimensions = 8 })
      assert.equal(400, status)
      assert.equal("array_above_max_length", r.error.code)
      many[2049] = nil
      status, r = post("/v1/embeddings", { input = many, dimensions = 8 })
      assert.equal(200, status)
      assert.equal(2048, #r.data)
      for i = 1, 2048 do
        many[i] = ("x"):rep(600)
      end
      status, r = post("/v1/embeddings", { input = many })
      assert.equal(400, status)
      assert.equal("max_tokens_per_request", r.error.code)
    end)

    it("lists its model", function()
      local r = client:request { path = "/v1/models" }
      assert.equal("moonpool-hash", r.data.data[1].id)
    end)

    it("knows nothing of other paths and methods", function()
      local status, r = post("/v1/nothing", {})
      assert.equal(404, status)
      assert.matches("Invalid URL", r.error.message)
      local _, err = client:request { method = "PUT", path = "/v1/embeddings", json = {} }
      assert.equal(405, err.status)
    end)
  end)

  describe("TEI", function()
    it("embeds to bare vectors, the same as OpenAI's", function()
      local status, r = post("/embed", { inputs = { "hello there", "b" } })
      assert.equal(200, status)
      assert.equal(2, #r)
      assert.same(vector "hello there", r[1])
      status, r = post("/embed", { inputs = "hello there", dimensions = 8, normalize = true })
      assert.equal(200, status)
      assert.equal(8, #r[1])
    end)

    it("reranks, sorted by score", function()
      local texts = { "stock prices fell", "a recipe for apple cake", "how to bake a cake with apples" }
      local status, r = post("/rerank", { query = "apple cake recipe", texts = texts })
      assert.equal(200, status)
      assert.equal(3, #r)
      assert.equal(1, r[1].index)
      assert.equal(0, r[3].index)
      assert.is_nil(r[1].text)
      for i = 1, 2 do
        assert.is_true(r[i].score >= r[i + 1].score)
      end
      local _, raw = post("/rerank",
        { query = "apple cake recipe", texts = texts, raw_scores = true, return_text = true })
      assert.equal(texts[2], raw[1].text)
      local s = math.min(math.max(r[1].score, 1e-6), 1 - 1e-6)
      assert.is_true(math.abs(raw[1].score - math.log(s / (1 - s))) < 1e-6)
    end)

    it("predicts texts, pairs and lists of them", function()
      local _, one = post("/predict", { inputs = "what a wonderful, lovely day" })
      assert.equal("POSITIVE", one[1].label)
      assert.is_true(math.abs(one[1].score + one[2].score - 1) < 1e-9)
      local _, bad = post("/predict", { inputs = "awful, horrible and broken" })
      assert.equal("NEGATIVE", bad[1].label)
      local _, pair = post("/predict", { inputs = { "apple cake", "a cake of apples" } })
      assert.is_number(pair[1].score)
      local status, list = post("/predict",
        { inputs = { { "what a wonderful, lovely day" }, { "apple cake", "a cake of apples" } } })
      assert.equal(200, status)
      assert.same({ one, pair }, list)
    end)

    it("describes itself", function()
      local info = client:request({ path = "/info" }).data
      assert.equal(32, info.max_client_batch_size)
      assert.equal("moonpool-hash", info.model_id)
      assert.equal(200, client:request({ path = "/health" }).status)
      local _, tokens = post("/tokenize", { inputs = "two words" })
      assert.equal("words", tokens[1][2].text)
      local status, sims = post("/similarity",
        { inputs = { source_sentence = "apple cake", sentences = { "apple cake", "nothing like it" } } })
      assert.equal(200, status)
      assert.is_true(sims[1] > sims[2])
    end)

    it("refuses what is wrong, by its own statuses", function()
      local function kind(path, body)
        local status, r = post(path, body)
        return status, type(r) == "table" and r.error_type, type(r) == "table" and r.error
      end
      local many = {}
      for i = 1, 33 do
        many[i] = "a"
      end
      local status, error_type, message = kind("/embed", { inputs = many })
      assert.same({ 413, "Validation" }, { status, error_type })
      assert.equal("batch size 33 > maximum allowed batch size 32", message)
      assert.equal(413, (kind("/rerank", { query = "q", texts = many })))
      status, error_type = kind("/embed", { inputs = core.json_array {} })
      assert.same({ 400, "Empty" }, { status, error_type })
      for _, case in ipairs {
        { "/embed", {} }, { "/embed", { inputs = "" } }, { "/embed", { inputs = { "a", 1 } } },
        { "/embed", { inputs = 5 } }, { "/embed", { inputs = "a", truncate = "yes" } },
        { "/embed", { inputs = "a", dimensions = 1000 } }, { "/rerank", { texts = { "a" } } },
        { "/rerank", { query = "q" } }, { "/rerank", { query = "q", texts = { "a" }, raw_scores = 1 } },
        { "/predict", {} }, { "/predict", { inputs = { "a", "b", "c" } } }, { "/predict", { inputs = "" } },
        { "/predict", { inputs = { { "a", "b", "c" } } } },
      } do
        status, error_type = kind(case[1], case[2])
        assert.same({ 422, "Validation" }, { status, error_type })
      end
      local long = ("x"):rep(40000)
      assert.equal(422, (kind("/embed", { inputs = long })))
      assert.equal(200, (post("/embed", { inputs = long, truncate = true })))
    end)
  end)

  describe("Cohere", function()
    it("embeds by type, the same vectors", function()
      local status, r = post("/v2/embed", { model = "m", texts = { "hello there", "b" },
        input_type = "search_document" })
      assert.equal(200, status)
      assert.same(vector "hello there", r.embeddings.float[1])
      assert.same({ "hello there", "b" }, r.texts)
      assert.equal(4, r.meta.billed_units.input_tokens)
      assert.is_string(r.id)
    end)

    it("quantizes", function()
      local types = { "float", "int8", "uint8", "binary", "ubinary", "base64" }
      local _, r = post("/v2/embed", { texts = { "hello there" }, input_type = "search_query",
        embedding_types = types, output_dimension = 16 })
      local e = r.embeddings
      assert.same({ 16, 16, 16, 2, 2 },
        { #e.float[1], #e.int8[1], #e.uint8[1], #e.binary[1], #e.ubinary[1] })
      assert.equal(16, #floats_of(e.base64[1]))
      for i, v in ipairs(e.float[1]) do
        assert.is_true(math.abs(e.int8[1][i] - v * 127) <= 0.5 + 1e-4)
        assert.is_true(math.abs(e.uint8[1][i] - (v + 1) * 127.5) <= 0.5 + 1e-4)
        local bit = e.ubinary[1][(i - 1) // 8 + 1] >> (7 - (i - 1) % 8) & 1
        assert.equal(v > 0 and 1 or 0, bit)
      end
      assert.equal(e.ubinary[1][1] - 128, e.binary[1][1])
    end)

    it("reranks the best top_n", function()
      local status, r = post("/v2/rerank", { query = "apple cake", top_n = 2,
        documents = { "stock prices fell", "apple cake", "cake" } })
      assert.equal(200, status)
      assert.equal(2, #r.results)
      assert.equal(1, r.results[1].index)
      assert.is_true(r.results[1].relevance_score >= r.results[2].relevance_score)
      assert.equal(1, r.meta.billed_units.search_units)
    end)

    it("refuses what is wrong with 400 and a message", function()
      local many = {}
      for i = 1, 97 do
        many[i] = "a"
      end
      local cases = {
        { "/v2/embed", { texts = many, input_type = "search_query" }, "at most 96" },
        { "/v2/embed", { texts = { "a" } }, "input_type" },
        { "/v2/embed", { input_type = "search_query" }, "texts" },
        { "/v2/embed", { texts = { "" }, input_type = "search_query" }, "empty" },
        { "/v2/embed", { texts = { "a" }, input_type = "search_query", embedding_types = { "x" } },
          "embedding_types" },
        { "/v2/embed", { texts = { "a" }, input_type = "search_query", output_dimension = 99 },
          "output_dimension" },
        { "/v2/rerank", { query = "q", documents = core.json_array {} }, "empty" },
        { "/v2/rerank", { documents = { "a" } }, "query" },
        { "/v2/rerank", { query = "q", documents = { "a" }, top_n = 0 }, "top_n" },
      }
      for _, case in ipairs(cases) do
        local status, r = post(case[1], case[2])
        assert.equal(400, status)
        assert.truthy(r.message:find(case[3], 1, true), r.message)
      end
    end)
  end)

  it("answers each dialect under its own name too", function()
    assert.same(vector "a", select(2, post("/openai/v1/embeddings", { input = "a" })).data[1].embedding)
    assert.same(vector "a", select(2, post("/tei/embed", { inputs = "a" }))[1])
    assert.equal(200, (post("/cohere/v2/rerank", { query = "q", documents = { "a" } })))
  end)

  it("gives one vector a text through every dialect and call", function()
    local texts = { "one text", "another, longer text: with punctuation!", "ünïcödé ✓" }
    local all = {}
    for i, provider in ipairs { "openai", "tei", "cohere" } do
      local c <close> = moonpool.client { base_url = mock.url, provider = provider }
      local res = assert(c:embed { input = texts, model = "m" })
      assert.is_true(res.ok)
      all[i] = res.matrix
    end
    for row = 1, #texts do
      for i = 2, 3 do
        assert.same(core.json_encode(all[1]:row(row):totable()), core.json_encode(all[i]:row(row):totable()))
      end
    end
  end)
end)

describe("mock options", function()
  it("api_key: only who knows it is answered, and it is never shown", function()
    local mock <close> = assert(moonpool.mock { api_key = "sesame-key", dim = 8 })
    local without <close> = moonpool.client { base_url = mock.url, api_key = "wrong-key", retry = false }
    local _, err = without:request { method = "POST", path = "/v1/embeddings", json = { input = "a" } }
    assert.equal(401, err.status)
    assert.is_nil(err.body:find("-key", 1, true))
    local with <close> = moonpool.client { base_url = mock.url, api_key = "sesame-key", retry = false }
    local res = with:request { method = "POST", path = "/v1/embeddings", json = { input = "a" } }
    assert.equal(200, res.status)
    local log = core.json_encode(mock:requests())
    assert.is_nil(log:find("sesame", 1, true))
    assert.truthy(log:find("Bearer ***", 1, true))
  end)

  it("batch_status and max_client_batch are TEI's limits", function()
    local mock <close> = assert(moonpool.mock { max_client_batch = 2, batch_status = 422, dim = 8 })
    local client <close> = moonpool.client { base_url = mock.url, retry = false }
    local _, err = client:request { method = "POST", path = "/embed", json = { inputs = { "a", "b", "c" } } }
    assert.equal(422, err.status)
    assert.equal(2, client:request({ path = "/info" }).data.max_client_batch_size)
  end)

  it("refuses what it does not know, naming it", function()
    assert.error_matches(function() moonpool.mock { latncy = "1s" } end, "latency")
    assert.error_matches(function() moonpool.mock { latency = "soon" } end, "latency")
    assert.error_matches(function() moonpool.mock { error = "429" } end, "STATUS:SHARE")
    assert.error_matches(function() moonpool.mock { dim = 0 } end, "dim")
  end)

  it("keeps statistics and the last requests, over HTTP too", function()
    local mock <close> = assert(moonpool.mock { dim = 8, record = 3, record_body = true })
    local client <close> = moonpool.client { base_url = mock.url, retry = false }
    for i = 1, 5 do
      client:request { method = "POST", path = "/v1/embeddings", json = { input = { "a", "t" .. i } },
        headers = { ["X-Number"] = tostring(i) } }
    end
    client:request { method = "POST", path = "/embed", json = {} }
    local stats = client:request({ path = "/stats" }).data
    assert.equal(5, stats.requests["POST /v1/embeddings"])
    assert.equal(1, stats.requests["POST /embed"])
    assert.same({ ["200"] = 5, ["422"] = 1 }, stats.statuses)
    assert.equal(10, stats.inputs)
    assert.equal(1, stats.max_in_flight)
    assert.equal(0, stats.in_flight)
    assert.equal(1, stats.connections_opened)
    local heads = client:request({ path = "/requests?n=2" }).data
    assert.same({ "/v1/embeddings", "/embed" }, { heads[1].path, heads[2].path })
    assert.equal("5", heads[1].headers["x-number"])
    assert.equal('{"input":["a","t5"]}', heads[1].body)
    assert.equal(3, #client:request({ path = "/requests" }).data)
    client:request { method = "POST", path = "/stats/reset", json = {} }
    stats = client:request({ path = "/stats" }).data
    assert.equal(0, stats.inputs)
    assert.same({}, stats.statuses)
  end)
end)
