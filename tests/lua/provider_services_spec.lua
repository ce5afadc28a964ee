-- What the adapters of the further services send, byte for byte, and how a reply is read: fixtures by
-- hand after the services' own documentation. What is common to all is in tests/conformance.

-- luacheck: no max line length

local moonpool = require "moonpool"
local rig = require "client_rig"

local function packed(...)
  return ("<" .. ("f"):rep(select("#", ...))):pack(...)
end

local kserve_metadata = { name = "e", inputs = { { name = "ids", datatype = "INT64", shape = { -1 } },
  { name = "TEXT", datatype = "BYTES", shape = { -1, 1 } } }, outputs = { { name = "VEC", datatype = "FP32",
  shape = { -1, 2 } } } }

-- client, call: options; path; key: header and value; body; reply: a body, or {body=, headers=}; rows; usage
local embeds = {
  gemini = {
    client = { provider = "gemini", api_key = "g1" },
    call = { input = { "a", { text = "b", title = "T" } }, model = "gemini-embedding-001", dimensions = 2,
      task_type = "RETRIEVAL_DOCUMENT" },
    path = "/v1beta/models/gemini-embedding-001:batchEmbedContents", key = { "x-goog-api-key", "g1" },
    body = '{"requests":[{"content":{"parts":[{"text":"a"}]},"model":"models/gemini-embedding-001",'
      .. '"outputDimensionality":2,"taskType":"RETRIEVAL_DOCUMENT"},{"content":{"parts":[{"text":"b"}]},'
      .. '"model":"models/gemini-embedding-001","outputDimensionality":2,"taskType":"RETRIEVAL_DOCUMENT",'
      .. '"title":"T"}]}',
    reply = '{"embeddings":[{"values":[1,2]},{"values":[3,4]}]}', rows = { { 1, 2 }, { 3, 4 } },
  },
  ollama = {
    client = { provider = "ollama" },
    call = { input = { "a", "b" }, model = "m", truncate = false, keep_alive = "5m",
      model_options = { num_ctx = 512 } },
    path = "/api/embed",
    body = '{"input":["a","b"],"keep_alive":"5m","model":"m","options":{"num_ctx":512},"truncate":false}',
    reply = '{"model":"m","embeddings":[[1,2],[3,4]],"prompt_eval_count":5}', rows = { { 1, 2 }, { 3, 4 } },
    usage = 5,
  },
  vertex = {
    client = { provider = "vertex", api_key = function() return "t1" end, project = "p q", location = "europe-west4" },
    call = { input = { "a", "b" }, model = "text-embedding-005", auto_truncate = false, dimensions = 2 },
    path = "/v1/projects/p%20q/locations/europe-west4/publishers/google/models/text-embedding-005:predict",
    key = { "authorization", "Bearer t1" },
    body = '{"instances":[{"content":"a"},{"content":"b"}],"parameters":{"autoTruncate":false,'
      .. '"outputDimensionality":2}}',
    reply = '{"predictions":[{"embeddings":{"values":[1,2],"statistics":{"token_count":2,"truncated":false}}},'
      .. '{"embeddings":{"statistics":{"token_count":3,"truncated":true},"values":[3,4]}}]}',
    rows = { { 1, 2 }, { 3, 4 } }, usage = 5, rows_cut = 1,
  },
  ["bedrock, titan"] = {
    client = { provider = "bedrock", api_key = "b1" },
    call = { input = "a", model = "amazon.titan-embed-text-v2:0", dimensions = 2, normalize = true },
    path = "/model/amazon.titan-embed-text-v2%3A0/invoke", key = { "authorization", "Bearer b1" },
    body = '{"inputText":"a","dimensions":2,"normalize":true}',
    reply = '{"embedding":[1,2],"embeddingsByType":{"float":[1,2]},"inputTextTokenCount":4}',
    rows = { { 1, 2 } }, usage = 4,
  },
  ["bedrock, cohere v4"] = {
    client = { provider = "bedrock", api_key = "b1" },
    call = { input = { "a", "b" }, model = "eu.cohere.embed-v4:0", truncate = "END", embedding_type = "int8",
      input_type = "search_query", dimensions = 2 },
    path = "/model/eu.cohere.embed-v4%3A0/invoke",
    body = '{"texts":["a","b"],"embedding_types":["int8"],"input_type":"search_query","output_dimension":2,'
      .. '"truncate":"RIGHT"}',
    reply = { body = '{"embeddings":{"int8":[[1,2],[3,4]]},"response_type":"embeddings_by_type"}',
      headers = { ["X-Amzn-Bedrock-Input-Token-Count"] = "9" } },
    rows = { { 1, 2 }, { 3, 4 } }, usage = 9,
  },
  ["bedrock, cohere v3"] = {
    client = { provider = "bedrock", api_key = "b1" },
    call = { input = { "a" }, model = "cohere.embed-english-v3", truncate = "RIGHT" },
    path = "/model/cohere.embed-english-v3/invoke",
    body = '{"texts":["a"],"input_type":"search_document","truncate":"END"}',
    reply = '{"embeddings":[[1,2]],"response_type":"embeddings_floats"}', rows = { { 1, 2 } },
  },
  huggingface = {
    client = { provider = "huggingface", api_key = "h1" },
    call = { input = { "a" }, model = "BAAI/bge-m3", normalize = true, truncation_direction = "Right" },
    path = "/hf-inference/models/BAAI/bge-m3/pipeline/feature-extraction", key = { "authorization", "Bearer h1" },
    body = '{"inputs":["a"],"normalize":true,"truncation_direction":"Right"}', reply = "[[1,2]]",
    rows = { { 1, 2 } },
  },
  mistral = {
    client = { provider = "mistral", api_key = "m1" },
    call = { input = { "a" }, model = "codestral-embed", dimensions = 2, output_dtype = "int8",
      encoding_format = "float" },
    path = "/v1/embeddings", key = { "authorization", "Bearer m1" },
    body = '{"input":["a"],"encoding_format":"float","model":"codestral-embed","output_dimension":2,'
      .. '"output_dtype":"int8"}',
    reply = '{"data":[{"index":0,"embedding":[-3,4]}],"usage":{"prompt_tokens":2,"total_tokens":2}}',
    rows = { { -3, 4 } }, usage = 2,
  },
  nim = {
    client = { provider = "nim", api_key = "n1" },
    call = { input = { "a" }, model = "m", input_type = "query", truncate = "START" },
    path = "/v1/embeddings", key = { "authorization", "Bearer n1" },
    body = '{"input":["a"],"encoding_format":"base64","input_type":"query","model":"m","truncate":"START"}',
    reply = '{"data":[{"index":0,"embedding":[1,2]}]}', rows = { { 1, 2 } },
  },
  cloudflare = {
    client = { provider = "cloudflare", api_key = "c1", account_id = "acc" },
    call = { input = { "a", "b" }, model = "@cf/baai/bge-m3", pooling = "cls" },
    path = "/client/v4/accounts/acc/ai/run/@cf/baai/bge-m3", key = { "authorization", "Bearer c1" },
    body = '{"text":["a","b"],"pooling":"cls"}',
    reply = '{"result":{"shape":[2,2],"data":[[1,2],[3,4]]},"success":true,"errors":[]}',
    rows = { { 1, 2 }, { 3, 4 } },
  },
  pinecone = {
    client = { provider = "pinecone", api_key = "p1" },
    call = { input = { "a" }, model = "m", input_type = "query", truncate = "END", dimensions = 2 },
    path = "/embed", key = { "api-key", "p1" },
    body = '{"inputs":[{"text":"a"}],"model":"m","parameters":{"dimension":2,"input_type":"query",'
      .. '"truncate":"END"}}',
    reply = '{"data":[{"values":[1,2],"vector_type":"dense"}],"usage":{"total_tokens":3}}', rows = { { 1, 2 } },
    usage = 3,
  },
  kserve = {
    client = { provider = "kserve" }, call = { input = { "a", "b" }, model = "e" },
    path = "/v2/models/e/infer",
    body = '{"inputs":[{"datatype":"BYTES","name":"TEXT","data":["a","b"],"shape":[2,1]}],"outputs":[{"name":'
      .. '"VEC","parameters":{"binary_data":false}}]}',
    reply = '{"outputs":[{"name":"VEC","datatype":"FP32","shape":[2,2],"data":[1,2,3,4]}]}',
    rows = { { 1, 2 }, { 3, 4 } },
  },
  ["kserve, names given, bytes"] = {
    client = { provider = "kserve", input_name = "i", output_name = "o", model_version = "3" },
    call = { input = { "a" }, model = "e", encoding_format = "bytes" },
    path = "/v2/models/e/versions/3/infer",
    body = '{"inputs":[{"datatype":"BYTES","name":"i","data":["a"],"shape":[1,1]}],"outputs":[{"name":"o",'
      .. '"parameters":{"binary_data":true}}]}',
    reply = { body = '{"outputs":[{"name":"o","datatype":"FP32","shape":[1,2]}]}' .. packed(1, 2),
      headers = { ["Inference-Header-Content-Length"] = "58", ["content-type"] = "application/octet-stream" } },
    rows = { { 1, 2 } },
  },
  ["vllm, bytes"] = {
    client = { provider = "vllm", api_key = "v1" },
    call = { input = { "a", "b" }, model = "m", encoding_format = "bytes", truncate_prompt_tokens = 8 },
    path = "/v1/embeddings", key = { "authorization", "Bearer v1" },
    body = '{"input":["a","b"],"embed_dtype":"float32","encoding_format":"bytes","endianness":"little",'
      .. '"model":"m","truncate_prompt_tokens":8}',
    reply = { body = packed(1, 2, 3, 4), headers = { ["content-type"] = "application/octet-stream",
      metadata = '{"data": [{"index": 1, "embed_dtype": "float32", "endianness": "little", "start": 0, "end": 8, '
        .. '"shape": [2]}, {"index": 0, "embed_dtype": "float32", "endianness": "little", "start": 8, "end": 16, '
        .. '"shape": [2]}], "usage": {"prompt_tokens": 6, "total_tokens": 6}}' } },
    rows = { { 3, 4 }, { 1, 2 } }, usage = 6,
  },
  infinity = {
    client = { provider = "infinity" }, call = { input = { "http://x/y.png" }, model = "m", modality = "image" },
    path = "/embeddings",
    body = '{"input":["http://x/y.png"],"encoding_format":"base64","modality":"image","model":"m"}',
    reply = '{"data":[{"index":0,"embedding":[1,2]}]}', rows = { { 1, 2 } },
  },
  llamacpp = {
    client = { provider = "llamacpp" }, call = { input = { "a" }, model = "m", normalize = -1 },
    path = "/v1/embeddings", body = '{"input":["a"],"embd_normalize":-1,"encoding_format":"base64","model":"m"}',
    reply = '{"data":[{"index":0,"embedding":[1,2]}]}', rows = { { 1, 2 } },
  },
  nomic = {
    client = { provider = "nomic", api_key = "o1" },
    call = { input = { "a" }, model = "m", task_type = "search_query", dimensions = 2, long_text_mode = "mean" },
    path = "/v1/embedding/text", key = { "authorization", "Bearer o1" },
    body = '{"texts":["a"],"dimensionality":2,"long_text_mode":"mean","model":"m","task_type":"search_query"}',
    reply = '{"embeddings":[[1,2]],"usage":{"prompt_tokens":7,"total_tokens":7}}', rows = { { 1, 2 } }, usage = 7,
  },
}

describe("services", function()
  after_each(rig.close_all)

  for name, want in pairs(embeds) do
    it("embed: " .. name, function()
      local server = rig.serve(function(seen)
        if seen.method == "GET" then return { json = kserve_metadata } end
        local reply = type(want.reply) == "table" and want.reply or { body = want.reply }
        return { body = reply.body, headers = reply.headers or { ["content-type"] = "application/json" } }
      end)
      local res = assert(rig.client(server, want.client):embed(want.call))
      local seen = server.log[#server.log]
      assert.same({ "POST", want.path, want.body }, { seen.method, seen.path, seen.text })
      if want.key then assert.equal(want.key[2], seen.headers[want.key[1]]) end
      if not want.client.api_key then assert.is_nil(seen.headers.authorization) end
      for i, row in ipairs(want.rows) do assert.same(row, res[i]:totable()) end
      assert.equal(want.usage, res.usage and res.usage.total_tokens)
      assert.equal(want.rows_cut, res.rows_cut)
    end)
  end

  it("rerank: nim, bedrock, cloudflare, pinecone, huggingface", function()
    local wants = {
      { { provider = "nim" }, "m", "/v1/ranking",
        '{"passages":[{"text":"x"},{"text":"y"}],"model":"m","query":{"text":"q"}}',
        '{"rankings":[{"index":1,"logit":3},{"index":0,"logit":-2}]}' },
      { { provider = "bedrock", api_key = "k", region = "us-west-2" }, "cohere.rerank-v3-5:0", "/rerank",
        '{"queries":[{"textQuery":{"text":"q"},"type":"TEXT"}],"sources":[{"type":"INLINE",'
        .. '"inlineDocumentSource":{"type":"TEXT","textDocument":{"text":"x"}}},{"type":"INLINE",'
        .. '"inlineDocumentSource":{"type":"TEXT","textDocument":{"text":"y"}}}],"rerankingConfiguration":{"type":'
        .. '"BEDROCK_RERANKING_MODEL","bedrockRerankingConfiguration":{"modelConfiguration":{"modelArn":'
        .. '"arn:aws:bedrock:us-west-2::foundation-model/cohere.rerank-v3-5:0"},"numberOfResults":2}}}',
        '{"results":[{"index":1,"relevanceScore":3},{"index":0,"relevanceScore":-2}]}' },
      { { provider = "cloudflare", account_id = "a" }, "@cf/baai/bge-reranker-base",
        "/client/v4/accounts/a/ai/run/@cf/baai/bge-reranker-base",
        '{"contexts":[{"text":"x"},{"text":"y"}],"query":"q"}',
        '{"result":{"response":[{"id":1,"score":3},{"id":0,"score":-2}]},"success":true}' },
      { { provider = "pinecone" }, "m", "/rerank",
        '{"documents":[{"text":"x"},{"text":"y"}],"model":"m","query":"q","return_documents":false}',
        '{"data":[{"index":1,"score":3},{"index":0,"score":-2}]}' },
      { { provider = "huggingface" }, "o/m", "/hf-inference/models/o/m/pipeline/sentence-similarity",
        '{"inputs":{"sentences":["x","y"],"source_sentence":"q"}}', "[-2,3]" },
    }
    for _, want in ipairs(wants) do
      local server = rig.serve(function() return { body = want[5], headers = { ["content-type"] = "application/json" } } end)
      local res = assert(rig.client(server, want[1]):rerank { query = "q", texts = { "x", "y" }, model = want[2] })
      assert.same({ want[3], want[4] }, { server.log[1].path, server.log[1].text })
      assert.same({ { index = 2, score = 3 }, { index = 1, score = -2 } }, res.results)
    end
  end)

  it("classify: mistral's map, vllm's probabilities, cloudflare one by one", function()
    local function ask(client, reply, inputs)
      local server = rig.serve(function() return { body = reply, headers = { ["content-type"] = "application/json" } } end)
      client.api_key = "k"
      return assert(rig.client(server, client):classify { inputs = inputs, model = "m" }), server
    end
    local res = ask({ provider = "mistral" }, '{"results":[{"category_scores":{"a":0.1,"b":0.9}}]}', { "x" })
    assert.same({ { label = "b", score = 0.9 }, { label = "a", score = 0.1 } }, res.results[1])
    res = ask({ provider = "vllm" }, '{"data":[{"index":0,"label":"Entailed","probs":[0.25,0.75]}]}', { "x" })
    assert.same({ { label = "Entailed", score = 0.75 }, { label = "LABEL_0", score = 0.25 } }, res.results[1])
    local server
    res, server = ask({ provider = "cloudflare", account_id = "a" }, '{"result":[{"label":"POS","score":1}]}',
      { "x", "y" })
    assert.equal(2, #server.log)
    assert.equal('{"text":"x"}', server.log[1].text)
    assert.same({ { label = "POS", score = 1 } }, res.results[2])
  end)

  it("an older vllm is asked for base64 from then on", function()
    local server = rig.serve(function(seen)
      if seen.body.encoding_format == "bytes" then
        return { status = 400, json = { error = { message = "encoding_format: Input should be 'float' or 'base64'" } } }
      end
      return { json = rig.embeddings(seen.body.input) }
    end)
    local client = rig.client(server, { provider = "vllm" })
    for _ = 1, 2 do
      local res = assert(client:embed { input = { "1", "2" }, model = "m", encoding_format = "bytes" })
      assert.is_nil(rig.wrong_row(res, { "1", "2" }))
    end
    local asked = {}
    for i, r in ipairs(server.log) do asked[i] = r.body.encoding_format end
    assert.equal("base64", asked[#asked])
    local bytes = 0
    for _, format in ipairs(asked) do bytes = bytes + (format == "bytes" and 1 or 0) end
    assert.is_true(bytes <= 3, table.concat(asked, " ")) -- the list, and its halves: once
  end)

  it("what a client needs is asked for where it is made, and options are checked", function()
    for pattern, fn in pairs {
      ["project: missing"] = function() moonpool.client { provider = "vertex", base_url = "http://x" } end,
      ["account_id: missing"] = function() moonpool.client { provider = "cloudflare" } end,
      ["region: letters"] = function() moonpool.client { provider = "bedrock", region = "a/b" } end,
      ["unknown option 'projekt' %(did you mean 'project'%?%)"] = function()
        moonpool.client { provider = "vertex", projekt = "p" }
      end,
      ["task_type: "] = function()
        moonpool.client({ provider = "gemini", base_url = "http://127.0.0.1:1" }):embed { input = "a", model = "m",
          task_type = "SOMETHING" }
      end,
      ["sends no bytes"] = function()
        moonpool.client({ base_url = "http://127.0.0.1:1" }):embed { input = "a", model = "m", encoding_format = "bytes" }
      end,
      ["dimensions: provider 'cloudflare' takes its model's"] = function()
        moonpool.client({ provider = "cloudflare", account_id = "a" }):embed { input = "a", model = "m", dimensions = 3 }
      end,
      ["titan%-embed or cohere"] = function()
        moonpool.client({ provider = "bedrock", api_key = "k" }):embed { input = "a", model = "anthropic.claude" }
      end,
    } do
      local ok, err = pcall(fn)
      assert.is_false(ok, pattern)
      assert.matches(pattern, tostring(err))
    end
  end)

  it("base URLs with and without a version are both right", function()
    for _, p in ipairs { { "ollama", "/api/embed" }, { "pinecone", "/embed" } } do
      for _, tail in ipairs { "", "/", "/v1" } do
        local server = rig.serve(function() return { body = '{"embeddings":[[1,2]],"data":[{"values":[1,2]}]}',
          headers = { ["content-type"] = "application/json" } } end)
        assert(rig.client(server.url .. tail, { provider = p[1] }):embed { input = "a", model = "m" })
        assert.equal(p[2], server.log[1].path)
      end
    end
  end)
end)
