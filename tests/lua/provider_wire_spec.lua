-- What each adapter sends, byte for byte, and how it reads a reply: fixtures written by hand after the
-- services' own documentation. A server in this process writes down what comes.

local moonpool = require "moonpool"
local rig = require "client_rig"

-- 1.0 and -2.0 as little-endian float32 in base64.
local ONE_MINUS_TWO = "AACAPwAAAMA="

local openai_reply = '{"object":"list","data":[{"object":"embedding","index":1,"embedding":[3,4]},'
  .. '{"object":"embedding","index":0,"embedding":"' .. ONE_MINUS_TWO .. '"}],"model":"m",'
  .. '"usage":{"prompt_tokens":5,"total_tokens":6}}'

-- client: options of it; call: options of embed; path, query, key (header and value), body: what must be
-- sent; reply: the answer; rows: the vectors; usage.
local embeds = {
  openai = {
    client = { provider = "openai", api_key = "key1" },
    call = { input = { "a", "b" }, model = "m", dimensions = 2, user = "u" },
    path = "/v1/embeddings", key = { "authorization", "Bearer key1" },
    body = '{"input":["a","b"],"dimensions":2,"encoding_format":"base64","model":"m","user":"u"}',
    reply = openai_reply, rows = { { 1, -2 }, { 3, 4 } },
    usage = { prompt_tokens = 5, total_tokens = 6 },
  },
  ["openai, token ids"] = {
    client = { provider = "openai" },
    call = { input = { { 1, 2 }, { 3 } }, model = "m", encoding_format = "float" },
    path = "/v1/embeddings",
    body = '{"input":[[1,2],[3]],"encoding_format":"float","model":"m"}',
    reply = openai_reply, rows = { { 1, -2 }, { 3, 4 } },
  },
  azure = {
    client = { provider = "azure", api_key = "key2", deployment = "my dep" },
    call = { input = { "a", "b" }, model = "m" },
    path = "/openai/deployments/my%20dep/embeddings", query = "api-version=2024-10-21",
    key = { "api-key", "key2" },
    body = '{"input":["a","b"],"encoding_format":"base64","model":"m"}',
    reply = openai_reply, rows = { { 1, -2 }, { 3, 4 } },
  },
  ["azure, the model is the deployment, a token of Entra"] = {
    client = { provider = "azure", api_key = "tok", auth_scheme = "bearer", api_version = "2025-01-01" },
    call = { input = { "a", "b" }, model = "large" },
    path = "/openai/deployments/large/embeddings", query = "api-version=2025-01-01",
    key = { "authorization", "Bearer tok" },
    body = '{"input":["a","b"],"encoding_format":"base64","model":"large"}',
    reply = openai_reply, rows = { { 1, -2 }, { 3, 4 } },
  },
  ["azure v1"] = {
    client = { provider = "azure", api_key = "key2", api_version = "v1" },
    call = { input = { "a", "b" }, model = "m" },
    path = "/openai/v1/embeddings", query = "api-version=v1", key = { "api-key", "key2" },
    body = '{"input":["a","b"],"encoding_format":"base64","model":"m"}',
    reply = openai_reply, rows = { { 1, -2 }, { 3, 4 } },
  },
  tei = {
    client = { provider = "tei", api_key = "key3" },
    call = { input = { "a", "b" }, normalize = true, truncate = true, truncation_direction = "Left",
      prompt_name = "query", dimensions = 2 },
    path = "/embed", key = { "authorization", "Bearer key3" },
    body = '{"inputs":["a","b"],"dimensions":2,"normalize":true,"prompt_name":"query","truncate":true,'
      .. '"truncation_direction":"Left"}',
    reply = "[[1,2],[3,4]]", rows = { { 1, 2 }, { 3, 4 } },
  },
  ["tei by its OpenAI route"] = {
    client = { provider = "tei", api = "openai" },
    call = { input = { "a", "b" } },
    path = "/v1/embeddings", body = '{"input":["a","b"],"encoding_format":"base64"}',
    reply = openai_reply, rows = { { 1, -2 }, { 3, 4 } },
  },
  cohere = {
    client = { provider = "cohere", api_key = "key4" },
    call = { input = { "a", "b" }, model = "embed-v4.0", dimensions = 2, truncate = "END",
      max_tokens = 9, priority = 1 },
    path = "/v2/embed", key = { "authorization", "Bearer key4" },
    body = '{"texts":["a","b"],"embedding_types":["float"],"input_type":"search_document","max_tokens":9,'
      .. '"model":"embed-v4.0","output_dimension":2,"priority":1,"truncate":"END"}',
    reply = '{"id":"x","embeddings":{"float":[[1,2],[3,4]]},"texts":["a","b"],'
      .. '"meta":{"billed_units":{"input_tokens":7}},"response_type":"embeddings_by_type"}',
    rows = { { 1, 2 }, { 3, 4 } }, usage = { prompt_tokens = 7, total_tokens = 7 },
  },
  ["cohere int8"] = {
    client = { provider = "cohere" },
    call = { input = { "a", "b" }, model = "e", embedding_type = "int8", input_type = "search_query" },
    path = "/v2/embed",
    body = '{"texts":["a","b"],"embedding_types":["int8"],"input_type":"search_query","model":"e"}',
    reply = '{"embeddings":{"int8":[[-128,127],[0,5]]}}', rows = { { -128, 127 }, { 0, 5 } },
  },
  ["cohere uint8"] = {
    client = { provider = "cohere" },
    call = { input = { "a" }, model = "e", embedding_types = { "uint8" } },
    path = "/v2/embed",
    body = '{"texts":["a"],"embedding_types":["uint8"],"input_type":"search_document","model":"e"}',
    reply = '{"embeddings":{"uint8":[[0,255]]}}', rows = { { 0, 255 } },
  },
  ["cohere ubinary"] = {
    client = { provider = "cohere" }, call = { input = { "a" }, model = "e", embedding_type = "ubinary" },
    path = "/v2/embed",
    body = '{"texts":["a"],"embedding_types":["ubinary"],"input_type":"search_document","model":"e"}',
    reply = '{"embeddings":{"ubinary":[[129]]}}', rows = { { 1, -1, -1, -1, -1, -1, -1, 1 } },
  },
  ["cohere binary"] = { -- the same bits, less 128
    client = { provider = "cohere" }, call = { input = { "a" }, model = "e", embedding_type = "binary" },
    path = "/v2/embed",
    body = '{"texts":["a"],"embedding_types":["binary"],"input_type":"search_document","model":"e"}',
    reply = '{"embeddings":{"binary":[[1]]}}', rows = { { 1, -1, -1, -1, -1, -1, -1, 1 } },
  },
  ["cohere base64"] = {
    client = { provider = "cohere" },
    call = { input = { "a" }, model = "e", encoding_format = "base64" },
    path = "/v2/embed",
    body = '{"texts":["a"],"embedding_types":["base64"],"input_type":"search_document","model":"e"}',
    reply = '{"embeddings":{"base64":["' .. ONE_MINUS_TWO .. '"]}}', rows = { { 1, -2 } },
  },
  voyage = {
    client = { provider = "voyage", api_key = "key5" },
    call = { input = { "a", "b" }, model = "voyage-3.5", input_type = "query", truncation = false,
      dimensions = 2 },
    path = "/v1/embeddings", key = { "authorization", "Bearer key5" },
    body = '{"input":["a","b"],"encoding_format":"base64","input_type":"query","model":"voyage-3.5",'
      .. '"output_dimension":2,"truncation":false}',
    reply = '{"object":"list","data":[{"object":"embedding","embedding":"' .. ONE_MINUS_TWO
      .. '","index":0},{"object":"embedding","embedding":[3,4],"index":1}],"model":"voyage-3.5",'
      .. '"usage":{"total_tokens":8}}',
    rows = { { 1, -2 }, { 3, 4 } }, usage = { prompt_tokens = 8, total_tokens = 8 },
  },
  ["voyage int8 as base64 of bytes"] = {
    client = { provider = "voyage" },
    call = { input = { "a" }, model = "v", output_dtype = "int8" },
    path = "/v1/embeddings",
    body = '{"input":["a"],"encoding_format":"base64","model":"v","output_dtype":"int8"}',
    reply = '{"data":[{"embedding":"/38=","index":0}]}', rows = { { -1, 127 } },
  },
  ["voyage binary as numbers"] = {
    client = { provider = "voyage" },
    call = { input = { "a" }, model = "v", output_dtype = "binary", encoding_format = "float" },
    path = "/v1/embeddings", body = '{"input":["a"],"model":"v","output_dtype":"binary"}',
    reply = '{"data":[{"embedding":[-128],"index":0}]}', rows = { { -1, -1, -1, -1, -1, -1, -1, -1 } },
  },
  jina = {
    client = { provider = "jina", api_key = "key6" },
    call = { input = { "a", "b" }, model = "jina-embeddings-v3", task = "retrieval.query", dimensions = 2,
      truncate = true, normalized = true },
    path = "/v1/embeddings", key = { "authorization", "Bearer key6" },
    body = '{"input":["a","b"],"dimensions":2,"embedding_type":"base64","model":"jina-embeddings-v3",'
      .. '"normalized":true,"task":"retrieval.query","truncate":true}',
    reply = openai_reply, rows = { { 1, -2 }, { 3, 4 } },
  },
  ["jina, images and bits"] = {
    client = { provider = "jina" },
    call = { input = { { image = "https://x/y.png" }, "b" }, model = "clip", embedding_type = "ubinary" },
    path = "/v1/embeddings",
    body = '{"input":[{"image":"https://x/y.png"},"b"],"embedding_type":"ubinary","model":"clip"}',
    reply = '{"data":[{"index":0,"embedding":[0]},{"index":1,"embedding":[255]}],"usage":{"total_tokens":3}}',
    rows = { { -1, -1, -1, -1, -1, -1, -1, -1 }, { 1, 1, 1, 1, 1, 1, 1, 1 } },
  },
  baseten = {
    client = { provider = "baseten", api_key = "key7", environment = "staging" },
    call = { input = { "a", "b" }, model = "m" },
    path = "/environments/staging/sync/v1/embeddings", key = { "authorization", "Bearer key7" },
    body = '{"input":["a","b"],"encoding_format":"base64","model":"m"}',
    reply = openai_reply, rows = { { 1, -2 }, { 3, 4 } },
  },
  ["baseten with the older scheme"] = {
    client = { provider = "baseten", api_key = "key7", auth_scheme = "Api-Key", deployment_id = "d1" },
    call = { input = { "a", "b" }, model = "m" },
    path = "/deployment/d1/sync/v1/embeddings", key = { "authorization", "Api-Key key7" },
    body = '{"input":["a","b"],"encoding_format":"base64","model":"m"}',
    reply = openai_reply, rows = { { 1, -2 }, { 3, 4 } },
  },
}

local function answering(body)
  return rig.serve(function(seen)
    if seen.path == "/info" then
      return { status = 404, json = { error = "no such route" } }
    end
    return { body = body, headers = { ["content-type"] = "application/json" } }
  end)
end

local function last(server)
  return server.log[#server.log]
end

local function sorted(t)
  local names = {}
  for name in pairs(t) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function with(base, more)
  local all = {}
  for name, value in pairs(base) do
    all[name] = value
  end
  for name, value in pairs(more) do
    all[name] = value
  end
  return all
end

describe("on the wire", function()
  after_each(rig.close_all)

  for _, name in ipairs(sorted(embeds)) do
    local case = embeds[name]
    it("embed: " .. name, function()
      local server = answering(case.reply)
      local client = rig.client(server, with({ retry = false }, case.client))
      local res, err = client:embed(case.call)
      assert.is_nil(err)
      local seen = last(server)
      assert.equal("POST", seen.method)
      assert.equal(case.path, seen.path)
      assert.equal(case.query or "", seen.query or "")
      assert.equal(case.body, seen.text)
      assert.equal("application/json", seen.headers["content-type"])
      if case.key then
        assert.equal(case.key[2], seen.headers[case.key[1]])
      end
      for i, row in ipairs(case.rows) do
        assert.same(row, res[i]:totable())
      end
      assert.equal(#case.rows, #res)
      if case.usage then
        assert.same(case.usage, res.usage)
      end
    end)
  end

  local reranks = {
    tei = {
      path = "/rerank",
      body = '{"texts":["a","b"],"query":"q","raw_scores":true,"return_text":true,"truncate":true,'
        .. '"truncation_direction":"Right"}',
      call = { raw_scores = true, return_text = true, truncate = true, truncation_direction = "Right" },
      reply = '[{"index":1,"score":0.9,"text":"b"},{"index":0,"score":0.1,"text":"a"}]',
    },
    cohere = {
      path = "/v2/rerank", call = { top_n = 2, model = "r", max_tokens_per_doc = 100 },
      body = '{"documents":["a","b"],"max_tokens_per_doc":100,"model":"r","query":"q","top_n":2}',
      reply = '{"id":"x","results":[{"index":1,"relevance_score":0.9},{"index":0,"relevance_score":0.1}],'
        .. '"meta":{"billed_units":{"search_units":1}}}',
      usage = { search_units = 1 },
    },
    voyage = {
      path = "/v1/rerank", call = { top_n = 2, model = "r", return_documents = true, truncation = true },
      body = '{"documents":["a","b"],"model":"r","query":"q","return_documents":true,"top_k":2,'
        .. '"truncation":true}',
      reply = '{"object":"list","data":[{"index":1,"relevance_score":0.9,"document":"b"},'
        .. '{"index":0,"relevance_score":0.1,"document":"a"}],"usage":{"total_tokens":26}}',
      usage = { total_tokens = 26 },
    },
    jina = {
      path = "/v1/rerank", call = { top_n = 2, model = "r", return_documents = false },
      body = '{"documents":["a","b"],"model":"r","query":"q","return_documents":false,"top_n":2}',
      reply = '{"model":"r","usage":{"total_tokens":5},"results":[{"index":1,"relevance_score":0.9},'
        .. '{"index":0,"relevance_score":0.1,"document":{"text":"a"}}]}',
      usage = { total_tokens = 5 },
    },
  }

  for _, name in ipairs(sorted(reranks)) do
    local case = reranks[name]
    it("rerank: " .. name, function()
      local server = answering(case.reply)
      local client = rig.client(server, { provider = name, retry = false })
      local res, err = client:rerank(with({ query = "q", texts = { "a", "b" } }, case.call))
      assert.is_nil(err)
      assert.equal(case.path, last(server).path)
      assert.equal(case.body, last(server).text)
      assert.equal(2, res.results[1].index)
      assert.equal(0.9, res.results[1].score)
      assert.equal(1, res.results[2].index)
      assert.same(case.usage, res.usage)
    end)
  end

  it("classify: pairs and texts, under Baseten's sync", function()
    local server = answering('[[{"label":"A","score":0.5}],[{"label":"B","score":0.25}]]')
    local client = rig.client(server, { provider = "baseten", environment = "production", retry = false })
    local res, err = client:classify { inputs = { "x", { "y", "z" } } }
    assert.is_nil(err)
    assert.equal("/environments/production/sync/predict", last(server).path)
    assert.equal('{"inputs":[["x"],["y","z"]]}', last(server).text)
    assert.same({ { label = "B", score = 0.25 } }, res.results[2])
  end)
end)

describe("errors in each dialect's words", function()
  after_each(rig.close_all)

  local cases = {
    { "openai", 400, '{"error":{"message":"too many tokens","type":"invalid_request_error",'
      .. '"code":"max_tokens_per_request"}}', "too many tokens", "max_tokens_per_request" },
    { "azure", 401, '{"error":{"code":"401","message":"Access denied"}}', "Access denied", "401" },
    { "tei", 422, '{"error":"`inputs` must have less","error_type":"Validation"}', "must have less",
      "Validation" },
    { "cohere", 400, '{"id":"1","message":"invalid request: x"}', "invalid request: x" },
    { "voyage", 400, '{"detail":"The max allowed tokens"}', "The max allowed tokens" },
    { "jina", 422, '{"detail":[{"loc":["body"],"msg":"field required"}]}', "field required" },
    { "baseten", 400, '{"error":"bad input","error_code":"client_error"}', "bad input", "client_error" },
  }

  for _, case in ipairs(cases) do
    it(case[1], function()
      local server = rig.serve(function() return { status = case[2], body = case[3],
        headers = { ["content-type"] = "application/json" } } end)
      local client = rig.client(server, { provider = case[1], deployment = case[1] == "azure" and "d" or nil,
        retry = false })
      local res, err = client:embed { input = { "a" }, model = "m" }
      assert.is_nil(res)
      assert.equal("http", err.kind)
      assert.equal(case[2], err.status)
      assert.matches(case[4], err.message, 1, true)
      assert.equal(case[5], err.code)
      assert.equal(server.url, (err.endpoint:gsub("/+$", "")))
    end)
  end

  it("a key that the server repeats is not in the error", function()
    local server = rig.serve(function()
      return { status = 401, headers = { ["content-type"] = "application/json" },
        body = '{"error":{"message":"Incorrect API key provided: canary-123","code":"canary-123"}}' }
    end)
    local client = rig.client(server, { api_key = "canary-123" })
    local _, err = client:embed { input = { "a" } }
    assert.matches("Incorrect API key provided: ***", err.message, 1, true)
    for _, field in ipairs { err.message, err.body, err.code, tostring(err) } do
      assert.is_nil(field:find("canary", 1, true))
    end
    local res = client:batch_post { path = "/x", payloads = { {} } }
    assert.is_nil(tostring(res.errors[1].error):find("canary", 1, true))
  end)
end)

describe("limits", function()
  after_each(rig.close_all)

  local function words(n)
    local list = {}
    for i = 1, n do
      list[i] = "t" .. i
    end
    return list
  end

  -- Sizes of the requests that arrived, largest first.
  local function sizes(server, field)
    local list = {}
    for _, seen in ipairs(server.log) do
      if seen.body then
        list[#list + 1] = #seen.body[field]
      end
    end
    table.sort(list, function(a, b) return a > b end)
    return list
  end

  local function vectors(n)
    local list = {}
    for i = 1, n do
      list[i] = { i, 1 }
    end
    return list
  end

  it("cohere takes 96 texts a request", function()
    local server = rig.serve(function(seen)
      return { json = { embeddings = { float = vectors(#seen.body.texts) } } }
    end)
    local client = rig.client(server, { provider = "cohere" })
    assert(client:embed { input = words(200), model = "e" })
    assert.same({ 96, 96, 8 }, sizes(server, "texts"))
  end)

  it("tei is asked by /info once, for all of its calls", function()
    local infos = 0
    local server = rig.serve(function(seen)
      if seen.path == "/info" then
        infos = infos + 1
        return { json = { max_client_batch_size = 10, model_id = "x" } }
      elseif seen.path == "/embed" then
        return { json = vectors(#seen.body.inputs) }
      end
      local list = {}
      for i = 1, #seen.body.texts do
        list[i] = { index = i - 1, score = 1 / i }
      end
      return { json = list }
    end)
    local client = rig.client(server, { provider = "tei" })
    moonpool.gather { function() assert(client:embed { input = words(25) }) end,
      function() assert(client:embed { input = words(5) }) end }
    assert.same({ 10, 10, 5, 5 }, sizes(server, "inputs"))
    server.log[1] = nil
    assert(client:rerank { query = "q", texts = words(12) })
    assert.equal(1, infos)
    local reranks = 0
    for _, seen in pairs(server.log) do
      reranks = reranks + (seen.path == "/rerank" and 1 or 0)
    end
    assert.equal(2, reranks)
    assert.equal("x", client:info().model_id)
  end)

  it("tei without /info takes 32", function()
    local server = rig.serve(function(seen)
      if seen.path == "/info" then
        return { status = 404, json = {} }
      end
      return { json = vectors(#seen.body.inputs) }
    end)
    local client = rig.client(server, { provider = "tei" })
    assert(client:embed { input = words(33) })
    assert(client:embed { input = words(3) })
    assert.same({ 32, 3, 1 }, sizes(server, "inputs"))
    assert.equal(4, #server.log)
  end)

  it("voyage's tokens a request depend on the model", function()
    local server = rig.embedder()
    server.log = server.log
    local long = {}
    for i = 1, 10 do
      long[i] = ("%d "):format(i) .. ("lorem ipsum "):rep(9000) -- about 25,000 tokens
    end
    local client = rig.client(server, { provider = "voyage" })
    assert(client:embed { input = long, model = "voyage-3.5-lite" })
    local few = #server.log
    assert(client:embed { input = long, model = "voyage-law-2" })
    assert.equal(1, few)
    assert.is_true(#server.log - few >= 2)
  end)

  it("late chunking never splits, and refuses what does not fit", function()
    local server = rig.embedder()
    local client = rig.client(server, { provider = "jina", batch_size = 2 })
    assert(client:embed { input = { "1", "2", "3", "4", "5" }, model = "j", late_chunking = true })
    assert.equal(1, #server.log)
    assert.is_true(server.log[1].body.late_chunking)
    assert(client:embed { input = { "1", "2", "3", "4", "5" }, model = "j" })
    assert.equal(4, #server.log)

    local res, err = client:embed { input = words(3000), model = "j", late_chunking = true }
    assert.is_nil(res)
    assert.equal("too_large", err.kind)
    assert.matches("3000 inputs must stay in one request", err.message)
    res, err = client:embed { input = { ("x"):rep(100000) }, model = "j", late_chunking = true }
    assert.is_nil(res)
    assert.equal("too_large", err.kind)
    assert.equal(4, #server.log)
    assert.has_error(function()
      for _ in client:embed_each({ "1", "2" }, { model = "j", late_chunking = true }) do end
    end)
  end)

  it("a refused late-chunked request is not cut in two", function()
    local server = rig.serve(function() return { status = 400, json = { detail = "no" } } end)
    local client = rig.client(server, { provider = "jina", retry = false })
    local res, err = client:embed { input = { "1", "2", "3", "4" }, model = "j", late_chunking = true }
    assert.is_nil(res)
    assert.equal(400, err.status)
    assert.equal(1, #server.log)
  end)

  it("azure names the reset of its tokens in whole seconds, and no Retry-After", function()
    local server = rig.serve(function()
      return { status = 429, json = { error = { code = "429", message = "slow down" } },
        headers = { ["x-ratelimit-reset-tokens"] = "7", ["x-ratelimit-remaining-tokens"] = "-1" } }
    end)
    local client = rig.client(server, { provider = "azure", deployment = "d", retry = false })
    local _, err = client:embed { input = { "a" } }
    assert.equal("rate_limited", err.kind)
    assert.equal(7, err.retry_after)
  end)
end)

describe("options of a provider", function()
  after_each(rig.close_all)

  local function refused(pattern, provider, opts, call)
    local server = rig.embedder()
    local client = rig.client(server, with({ provider = provider }, opts or {}))
    local ok, err = pcall(client.embed, client, with({ input = { "1" }, model = "m" }, call))
    assert.is_false(ok)
    assert.matches(pattern, tostring(err))
    assert.equal(0, #server.log)
  end

  it("are checked before anything is sent", function()
    refused("input_type: must be one of search_document", "cohere", nil, { input_type = "query" })
    refused("input_type: must be one of query, document", "voyage", nil, { input_type = "search_query" })
    refused("unknown option 'inputtype' %(did you mean 'input_type'", "voyage", nil, { inputtype = "query" })
    refused("unknown option 'task'", "openai", nil, { task = "x" })
    refused("late_chunking: boolean expected", "jina", nil, { late_chunking = "yes" })
    refused("output_dtype: must be one of float", "voyage", nil, { output_dtype = "int4" })
    refused("embedding_types: one type a call", "cohere", nil, { embedding_types = { "float", "int8" } })
    refused("truncation_direction: must be one of Left, Right", "tei", nil, { truncation_direction = "up" })
    refused("input%[1%]: an object with text or image expected", "jina", nil, { input = { { txt = "x" } } })
    refused("input%[2%]: string expected", "cohere", nil, { input = { "1", { 1, 2 } } })
    refused("input%[1%]: a list of token ids expected", "openai", nil, { input = { { 1.5 } } })
    local azure = rig.client(rig.embedder(), { provider = "azure" })
    assert.has_error(function() azure:embed { input = { "1" } } end)
  end)
end)
