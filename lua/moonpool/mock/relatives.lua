-- moonpool.mock.relatives: what the services that speak like OpenAI have in common: their embeddings,
-- of their own limits, field names and words, and the common form of rerank.

local core = require "moonpool.core"
local input = require "moonpool.mock.input"
local strict = require "moonpool.mock.strict"

local M = {}

local function read(o, mock, body)
  local odd = strict.unknown(body, o.allowed)
  if odd then
    return nil, "Extra inputs are not permitted: " .. odd
  elseif type(body.model) ~= "string" and not o.no_model then
    return nil, "model: Field required"
  end
  local list = type(body.input) == "string" and { body.input } or body.input
  local texts, err = strict.texts(list, "input", o.max, function(v)
    return type(v) == "table" and input.ids_to_text(v) or v
  end)
  local dims = strict.dims(mock, body[o.dimension or "dimensions"])
  local format = input.is_null(body.encoding_format) and "float" or body.encoding_format
  if not texts then
    return nil, err
  elseif not dims then
    return nil, "the dimension is out of range"
  elseif format ~= "float" and format ~= "base64" and not (o.bytes and format == "bytes") then
    return nil, "encoding_format is not known"
  end
  local _, largest = input.count_tokens(texts)
  local why = o.check and o.check(mock, body, largest)
  if why then
    return nil, why
  end
  return texts, dims, format
end

-- vLLM's bytes: the vectors one behind the other, and a header that says where each is.
local function bytes_job(mock, body, texts, dims)
  local job = strict.job(texts)
  local headers = { ["content-type"] = "application/octet-stream" }
  job.headers = headers
  function job.reply(order)
    local data, n = {}, 4 * dims
    for k = 1, order and #order or #texts do
      data[k] = { index = (order and order[k] or k) - 1, embed_dtype = "float32", endianness = "little",
        start = (k - 1) * n, ["end"] = k * n, shape = core.json_array { dims } }
    end
    headers.metadata = core.json_encode { id = "embd-mock", created = 0, model = body.model, data = data,
      usage = { prompt_tokens = job.tokens, total_tokens = job.tokens } }
    return core.mock_vectors(texts, mock.dim, dims, "bytes", false, order)
  end
  return job
end

--- A handler of embeddings: o = {refuse, max, allowed, dimension, bytes, check}.
function M.embeddings(o)
  return function(mock, body)
    local texts, dims, format = read(o, mock, body)
    if not texts then
      return o.refuse(dims)
    elseif format == "bytes" then
      return bytes_job(mock, body, texts, dims)
    end
    local tokens = input.count_tokens(texts)
    return strict.job(texts, function(order)
      return '{"object":"list","data":[' .. core.mock_vectors(texts, mock.dim, dims, format, true, order)
        .. '],"model":' .. input.quote(body.model or mock.model) .. ',"usage":{"prompt_tokens":' .. tokens
        .. ',"total_tokens":' .. tokens .. "}}"
    end)
  end
end

--- A handler of rerank: {model, query, documents, top_n} -> {results: [{index, relevance_score}]}.
function M.rerank(refuse)
  return function(_, body)
    local texts, err = strict.texts(body.documents, "documents")
    if not texts or type(body.query) ~= "string" then
      return refuse(err or "query: Field required")
    elseif not strict.count(body.top_n) then
      return refuse "top_n: not a positive whole number"
    end
    local top = not input.is_null(body.top_n) and body.top_n or nil
    return strict.rerank(body.query, texts, top, function(i, score)
      return { index = i, relevance_score = score }
    end, function(list)
      return { id = "rerank-mock", model = body.model, results = list, usage = { total_tokens = 1 } }
    end)
  end
end

return M
