-- Every provider against every kind of reply, over the mock's strict dialects. As a program it prints
-- the table: build/moonpool run tests/conformance/providers_matrix.lua
--
-- A cell is "ok", "-" where the case does not exist for a provider, or what went wrong.

local moonpool = require "moonpool"
local json = require "moonpool.json"
local provider = require "moonpool.provider"

local M = {}

local DIM = 16
local KEY = "key-of-the-matrix"

-- name, provider, model, client = its options, call = options of embed, most = inputs of a request,
-- placed = rows carry their index, env = true: signed instead of a key
M.rows = {
  { name = "openai", most = 2048, placed = true, base = "" },
  { name = "azure", most = 2048, placed = true, client = { deployment = "d" } },
  { name = "tei", most = 32 },
  { name = "cohere", most = 96, model = "embed-v4.0" },
  { name = "voyage", most = 1000, placed = true, model = "voyage-3.5" },
  { name = "jina", most = 2048, placed = true, model = "jina-embeddings-v3" },
  { name = "baseten", most = 2048, placed = true, base = "/baseten/environments/production/sync" },
  { name = "gemini", most = 100, model = "gemini-embedding-001" },
  { name = "ollama", model = "nomic-embed-text" },
  { name = "vertex", most = 250, model = "text-embedding-005", client = { project = "p" } },
  { name = "vertex, gemini-embedding", most = 1, model = "gemini-embedding-001", client = { project = "p" } },
  { name = "bedrock, titan", most = 1, model = "amazon.titan-embed-text-v2:0" },
  { name = "bedrock, titan signed", most = 1, model = "amazon.titan-embed-text-v2:0", api_key = false,
    client = { access_key_id = "AKIDEXAMPLE", secret_access_key = KEY, region = "eu-west-1" } },
  { name = "bedrock, cohere", most = 96, model = "cohere.embed-v4:0", call = { truncate = "END" } },
  { name = "huggingface", model = "BAAI/bge-small-en-v1.5" },
  { name = "mistral", most = 256, placed = true, model = "mistral-embed" },
  { name = "nim", most = 256, placed = true, model = "nvidia/nv-embedqa-e5-v5" },
  { name = "cloudflare", most = 100, model = "@cf/baai/bge-base-en-v1.5", client = { account_id = "abc" } },
  { name = "pinecone", most = 96, model = "multilingual-e5-large" },
  { name = "kserve", model = "embedder" },
  { name = "kserve, bytes", model = "embedder", call = { encoding_format = "bytes" } },
  { name = "vllm", placed = true, model = "intfloat/e5-small" },
  { name = "vllm, bytes", placed = true, model = "intfloat/e5-small", call = { encoding_format = "bytes" } },
  { name = "llamacpp", placed = true, model = "gguf" },
  { name = "infinity", most = 2048, placed = true, model = "BAAI/bge-small-en-v1.5" },
  { name = "nomic", most = 50, model = "nomic-embed-text-v1.5" },
}
for _, row in ipairs(M.rows) do
  row.provider = row.name:match "^%w+"
  row.model = row.model or "m"
end

local function texts(n)
  local list = {}
  for i = 1, n do
    list[i] = ("text %d of the matrix %s"):format(i, ("word "):rep(i % 5) .. i * 7919 % 1009)
  end
  return list
end

-- ---- one client and one mock -------------------------------------------------------------------------

local function with(row, mock_options, client_options, fn)
  local o = { dim = DIM, api_key = KEY, record = 1000, record_body = true, max_input_tokens = 8192 }
  for name, value in pairs(mock_options) do o[name] = value end
  local mock <close> = assert(moonpool.mock(o))
  local c = {
    base_url = mock.url .. (row.base or "/" .. row.provider), provider = row.provider,
    retry = false,
  }
  if row.api_key ~= false then c.api_key = KEY end
  for name, value in pairs(row.client or {}) do c[name] = value end
  for name, value in pairs(client_options or {}) do c[name] = value end
  local client <close> = moonpool.client(c)
  return fn(client, mock)
end

local function embed(client, row, list, more)
  local call = { input = list, model = row.model }
  for name, value in pairs(row.call or {}) do call[name] = value end
  for name, value in pairs(more or {}) do call[name] = value end
  return client:embed(call)
end

local wanted = {}

-- The vectors that a text has through every dialect, by OpenAI's.
local function vectors(list)
  local key = #list
  if not wanted[key] then
    local mock <close> = assert(moonpool.mock { dim = DIM })
    local client <close> = moonpool.client { base_url = mock.url }
    wanted[key] = assert(client:embed { input = list, model = "m" }).matrix
  end
  return wanted[key]
end

-- What is wrong with the rows that did not fail; nil: nothing. count: how many must be good.
local function wrong_rows(res, list, count)
  local want, failed, good = vectors(list), {}, 0
  for _, e in ipairs(res.errors) do failed[e.index] = true end
  for i = 1, #list do
    if not failed[i] then
      good = good + 1
      local got, expected = res[i], want:row(i)
      for k = 1, DIM do
        if not got or math.abs(got[k] - expected[k]) > 1e-6 then return ("row %d is wrong"):format(i) end
      end
    end
  end
  if count and good ~= count then return ("%d rows are good, not %d"):format(good, count) end
end

local function failed_with(res, err, kind, words)
  if res then return "it passed" end
  if err.kind ~= kind then return ("the error is %s, not %s: %s"):format(err.kind, kind, err.message) end
  if words and not err.message:find(words, 1, true) then return "the error says: " .. err.message end
end

-- ---- the cases ---------------------------------------------------------------------------------------

M.cases = {}

local function case(name, fn)
  M.cases[#M.cases + 1] = { name = name, run = fn }
end

case("one text", function(row)
  return with(row, {}, nil, function(client)
    local list = texts(1)
    local res, err = embed(client, row, list)
    return res and wrong_rows(res, list, 1) or not res and tostring(err) or nil
  end)
end)

local function is_inference(r) return r.method == "POST" end

case("list", function(row)
  return with(row, {}, nil, function(client, mock)
    local list = texts(230)
    local res, err = embed(client, row, list)
    if not res then return tostring(err) end
    local requests = 0
    for _, r in ipairs(mock:requests()) do requests = requests + (is_inference(r) and 1 or 0) end
    local least = row.most and math.ceil(230 / math.min(row.most, 128)) or 2
    if requests ~= least then return ("%d requests instead of %d"):format(requests, least) end
    return wrong_rows(res, list, 230)
  end)
end)

-- Many callers' texts in few requests, never more of them than the service takes.
case("batcher", function(row)
  return with(row, {}, nil, function(client, mock)
    local list, wrong = texts(130), nil
    local want = vectors(list)
    local batcher <close> = client:batcher { slots = 2 }
    moonpool.scope(function(scope)
      for i = 1, #list do
        scope:spawn(function()
          local call = { model = row.model }
          for name, value in pairs(row.call or {}) do call[name] = value end
          local res, err = batcher:embed(list[i], call)
          for k = 1, DIM do
            if not res or math.abs(res[1][k] - want:row(i)[k]) > 1e-6 then
              wrong = wrong or res and ("row %d is wrong"):format(i) or tostring(err)
            end
          end
        end)
      end
    end)
    for status, n in pairs(mock:stats().statuses) do
      if status ~= "200" then return ("%d replies of status %s"):format(n, status) end
    end
    return wrong
  end)
end)

-- More at once than the service takes: split, however much is asked for; and the dialect does refuse it.
case("over the limit", function(row)
  if not row.most or row.most > 300 then return "-" end
  return with(row, {}, { headers = { ["x-keep"] = "1" } }, function(client, mock)
    local list = texts(row.most + 5)
    local res, err = embed(client, row, list, { batch_size = 1000 })
    local why = res and wrong_rows(res, list, #list) or not res and tostring(err)
    if why then return why end
    local requests = mock:requests()
    local last = requests[#requests]
    for _, r in ipairs(requests) do
      if is_inference(r) and #(r.body or "") > #(last.body or "") then last = r end
    end
    return M.refuses_more(row, client, last)
  end)
end)

-- The body of a full request with one row more.
function M.refuses_more(row, client, request)
  local body = json.decode(request.body)
  for _, value in pairs(body) do
    if type(value) == "table" and #value == row.most then value[#value + 1] = value[1] end
  end
  if row.most == 1 and type(body.inputText) == "string" then body.inputText = { body.inputText, "more" } end
  local path = request.path:gsub("^/" .. row.provider, "")
  local res, err = client:request { method = "POST", path = path, json = body }
  if res then return "the mock takes more than the service" end
  if err.status < 400 or err.status >= 500 then return "refused with " .. tostring(err.status) end
end

case("shuffled", function(row)
  if not row.placed then return "-" end
  return with(row, { shuffle = true, seed = 7 }, nil, function(client)
    local list = texts(40)
    local res, err = embed(client, row, list)
    return res and wrong_rows(res, list, 40) or not res and tostring(err) or nil
  end)
end)

case("short reply", function(row)
  return with(row, { short = 1.0 }, nil, function(client)
    local list = texts(5)
    local res, err = embed(client, row, list)
    if not res then return failed_with(nil, err, "decode") end
    if not row.placed then return "rows without a position are kept of a reply that is too short" end
    return wrong_rows(res, list, 4) or #res.errors ~= 1 and "not one error" or nil
  end)
end)

-- The first vector of the reply becomes null: no row may be wrong for it, and its own must fail.
case("null vector", function(row)
  if row.name:find "bytes" then return "-" end
  local function hook(_, _, job)
    local body = job.reply()
    local spoilt, n = body:gsub('%[%-?[%d.e+-]+,[%d.e+-]+,[%d.e,+-]+%]', "null", 1)
    if n == 0 then spoilt, n = body:gsub('("embedding":)"[^"]+"', "%1null", 1) end
    if row.provider == "kserve" then spoilt, n = body:gsub('("data":%[)[^,]+', "%1null", 1) end
    assert(n == 1, body)
    return { status = 200, body = spoilt }
  end
  return with(row, { hook = hook }, nil, function(client)
    local list = texts(3)
    local res, err = embed(client, row, list)
    if not res then return failed_with(nil, err, "decode") end
    local why = wrong_rows(res, list)
    return why or (#res.errors == 0 and "the null vector passed" or nil)
  end)
end)

-- The first vector of a body becomes zeros, in whatever form it comes.
local function zeroed(row, body, headers)
  if row.name == "vllm, bytes" then return ("\0"):rep(4 * DIM) .. body:sub(4 * DIM + 1) end
  if row.name == "kserve, bytes" then
    local head = tonumber(headers["inference-header-content-length"])
    return body:sub(1, head) .. ("\0"):rep(4 * DIM) .. body:sub(head + 4 * DIM + 1)
  end
  local zeros = ("0,"):rep(DIM - 1) .. "0"
  if row.provider == "kserve" then
    return (body:gsub('("data":%[)' .. ("[^,]+,"):rep(DIM), "%1" .. zeros .. ",", 1))
  end
  local out, n = body:gsub('%[%-?[%d.e+-]+,[%d.e+-]+,[%d.e,+-]+%]', "[" .. zeros .. "]", 1)
  if n == 0 then out, n = body:gsub('("embedding":)"[^"]+"', '%1"' .. ("A"):rep(86) .. '=="', 1) end
  assert(n == 1, body)
  return out
end

case("zeros", function(row)
  local function hook(_, _, job)
    local body = job.reply()
    return { status = 200, body = zeroed(row, body, job.headers), headers = job.headers }
  end
  return with(row, { hook = hook }, nil, function(client)
    local list = texts(3)
    local res, err = embed(client, row, list)
    if not res then return failed_with(nil, err, "decode", "all zeros") end
    local why = wrong_rows(res, list)
    if why or #res.errors == 0 then return why or "the zeros passed" end
    return failed_with(nil, res.errors[1].error, "decode", "all zeros")
  end)
end)

-- The answer to the first text for all of them, as a gateway gives that joins a list into one.
case("one vector for all", function(row)
  local first
  local function hook(_, _, job)
    first = first or job.texts[1]
    for i = 1, #job.texts do job.texts[i] = first end
  end
  local why = with(row, { hook = hook }, nil, function(client)
    local res, err = embed(client, row, texts(5))
    if not res then return failed_with(nil, err, "decode", "the same vector for different texts") end
    if row.most ~= 1 or #res.errors ~= 4 then return "the one vector passed" end
    return failed_with(nil, res.errors[1].error, "decode", "the same vector for different texts")
  end)
  if why then return why end
  return with(row, { hook = hook }, { trust = true }, function(client)
    local res = embed(client, row, texts(5))
    return not (res and res.ok) and "not taken though it was trusted" or nil
  end)
end)

case("error body", function(row)
  local dialect = require("moonpool.mock." .. row.provider)
  local function hook() return { status = 400, body = dialect.error(400, "the service's own words") } end
  return with(row, { hook = hook }, { retry = { base = 0.001 } }, function(client, mock)
    local res, err = embed(client, row, texts(1))
    local why = failed_with(res, err, "http", "the service's own words")
    if why then return why end
    if err.status ~= 400 or err.attempts ~= 1 then return "status or attempts" end
    if mock:stats().inference_requests > 2 then return "asked again" end
  end)
end)

case("429 with body hint", function(row)
  local dialect = require("moonpool.mock." .. row.provider)
  local always = true
  local function hook(_, n)
    if n > 1 and not always then return nil end
    local body = dialect.fault(429)
    if not body:find "0%.?02s" and not body:find "0%.02 sec" and not body:find "20ms" then
      body = dialect.error(429, "Rate limit reached. Please try again in 20ms.")
    end
    return { status = 429, body = body }
  end
  local why = with(row, { hook = hook }, { preset = "gateway" }, function(client)
    local res, err = embed(client, row, texts(1))
    local bad = failed_with(res, err, "rate_limited")
    if bad then return bad end
    if err.retry_after ~= 0.02 and math.abs((err.retry_after or 0) - 0.02) > 1e-6 then
      return "retry_after is " .. tostring(err.retry_after)
    end
  end)
  if why then return why end
  always = false
  return with(row, { hook = hook }, { retry = { base = 0.001, cap = 0.01 } }, function(client)
    local list = texts(1)
    local res, err = embed(client, row, list)
    return res and wrong_rows(res, list, 1) or not res and tostring(err) or nil
  end)
end)

case("missing key", function(row)
  local dialect = require("moonpool.mock." .. row.provider)
  local o = { headers = {} }
  if row.api_key == false then o.secret_access_key = "another" else o.api_key = "another" end
  return with(row, {}, o, function(client)
    local res, err = embed(client, row, texts(1))
    if res then return "the mock takes another key" end
    return err.status ~= 401 and "status " .. tostring(err.status) or not dialect.fault(401) and "?" or nil
  end)
end)

-- ---- rerank and classify -----------------------------------------------------------------------------

local RERANKERS = { cloudflare = "@cf/baai/bge-reranker-base", bedrock = "cohere.rerank-v3-5:0" }
local CLASSIFIERS = { cloudflare = "@cf/huggingface/distilbert-sst-2-int8" }

case("rerank", function(row)
  if not provider.get(row.provider).rerank or row.name:find "bytes" then return "-" end
  return with(row, {}, nil, function(client)
    local list = texts(40)
    local model = RERANKERS[row.provider] or row.model
    local res, err = client:rerank { query = list[7], texts = list, model = model, top_n = 5 }
    if not res then return tostring(err) end
    if #res.results ~= 5 or res.results[1].index ~= 7 then return "the best is not the best" end
    for k = 2, 5 do
      if res.results[k].score > res.results[k - 1].score then return "not in order" end
    end
  end)
end)

case("classify", function(row)
  if not provider.get(row.provider).classify or row.name:find "bytes" then return "-" end
  return with(row, {}, nil, function(client)
    local list = texts(40)
    local res, err = client:classify { inputs = list, model = CLASSIFIERS[row.provider] or row.model }
    if not res then return tostring(err) end
    if #res.results ~= 40 then return "results are missing" end
    for i = 1, 40 do
      local first = res.results[i][1]
      if type(first.label) ~= "string" or type(first.score) ~= "number" then return "no label" end
    end
  end)
end)

--- The cell of a row and a case.
function M.run(row, one)
  local ok, why = pcall(one.run, row)
  if not ok then return "raised: " .. tostring(why) end
  return why or "ok"
end

-- ---- as a program ------------------------------------------------------------------------------------

local function print_table()
  local heads, bad = {}, 0
  for i, one in ipairs(M.cases) do heads[i] = one.name end
  print("| provider | " .. table.concat(heads, " | ") .. " |")
  print("| --- |" .. (" --- |"):rep(#heads))
  for _, row in ipairs(M.rows) do
    local cells = {}
    for i, one in ipairs(M.cases) do
      cells[i] = M.run(row, one)
      if cells[i] ~= "ok" and cells[i] ~= "-" then bad = bad + 1 end
    end
    print("| " .. row.name .. " | " .. table.concat(cells, " | ") .. " |")
  end
  if bad > 0 then
    io.stderr:write(bad, " cells are not as they should be\n")
    os.exit(1)
  end
end

if arg and arg[0] and arg[0]:find "providers_matrix%.lua$" then print_table() end

return M
