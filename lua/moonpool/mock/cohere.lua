-- moonpool.mock.cohere: POST /v2/embed and /v2/rerank.

local core = require "moonpool.core"
local input = require "moonpool.mock.input"

local M = {}

function M.error(_, message)
  return core.json_encode { id = "mock", message = message }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "You are past the per minute request limit, please wait and try again later.")
  elseif status == 401 then
    return M.error(401, "invalid api token")
  end
  return M.error(status, status >= 500 and "internal server error"
    or "the mock was asked to answer " .. status)
end

function M.bad_body(why)
  return 400, M.error(400, "invalid request: " .. why)
end

local function refuse(message)
  return nil, 400, M.error(400, "invalid request: " .. message)
end

local kinds = { float = true, base64 = true, int8 = true, uint8 = true, binary = true, ubinary = true }
local input_types = { search_document = true, search_query = true, classification = true,
  clustering = true, image = true }

local function read_texts(body)
  local texts = body.texts
  if input.is_null(texts) then
    return nil, "must provide texts"
  elseif not input.is_list(texts) or not input.all_strings(texts) then
    return nil, "texts must be an array of strings"
  elseif #texts == 0 then
    return nil, "texts must not be empty"
  elseif #texts > 96 then
    return nil, ("total number of texts must be at most 96 - received %d"):format(#texts)
  end
  for i = 1, #texts do
    if texts[i] == "" then
      return nil, ("text at index %d must not be empty"):format(i - 1)
    end
  end
  return texts
end

local function read_types(body, dims)
  local types = body.embedding_types
  if input.is_null(types) then
    return { "float" }
  elseif not input.is_list(types) or #types == 0 then
    return nil, "embedding_types must be a list"
  end
  for _, kind in ipairs(types) do
    if not kinds[kind] then
      return nil, "embedding_types: unknown type"
    elseif kind:find "binary" and dims % 8 ~= 0 then
      return nil, "packed embedding types need a dimension that 8 divides"
    end
  end
  return types
end

local function embeddings(mock, job, order)
  local parts = {}
  for i, kind in ipairs(job.types) do
    parts[i] = '"' .. kind .. '":['
      .. core.mock_vectors(job.texts, mock.dim, job.dims, kind, false, order) .. "]"
  end
  return table.concat(parts, ",")
end

local function embed(mock, body, x)
  local texts, err = read_texts(body)
  if not texts then
    return refuse(err)
  elseif not input_types[body.input_type] then
    return refuse "valid input_type must be provided with the provided model"
  end
  local dims = body.output_dimension
  if input.is_null(dims) then
    dims = mock.dim
  elseif math.type(dims) ~= "integer" or dims < 1 or dims > mock.dim then
    return refuse("output_dimension must be from 1 to " .. mock.dim)
  end
  local job = { texts = texts, rows = #texts, tokens = input.count_tokens(texts), dims = dims }
  job.types, err = read_types(body, dims)
  if not job.types then
    return refuse(err)
  end
  function job.reply(order)
    return '{"id":"' .. x.id .. '","embeddings":{' .. embeddings(mock, job, order) .. '},"texts":'
      .. core.json_encode(texts) .. ',"meta":{"api_version":{"version":"2"},"billed_units":'
      .. '{"input_tokens":' .. job.tokens .. '}},"response_type":"embeddings_by_type"}'
  end
  return job
end

local function read_documents(body)
  local docs = body.documents
  if type(body.query) ~= "string" or body.query == "" then
    return nil, "query must be a non-empty string"
  elseif not input.is_list(docs) or not input.all_strings(docs) then
    return nil, "documents must be an array of strings"
  elseif #docs == 0 then
    return nil, "list of documents must not be empty"
  elseif #docs > 10000 then
    return nil, "list of documents must be at most 10000"
  end
  local top = body.top_n
  if not input.is_null(top) and (math.type(top) ~= "integer" or top < 1) then
    return nil, "top_n must be a positive integer"
  end
  return docs, input.is_null(top) and #docs or math.min(top, #docs)
end

local function best(query, docs, n)
  local list = {}
  for i, score in ipairs(core.mock_scores(query, docs)) do
    list[i] = { index = i - 1, relevance_score = score }
  end
  table.sort(list, function(a, b)
    return a.relevance_score > b.relevance_score
      or a.relevance_score == b.relevance_score and a.index < b.index
  end)
  return table.move(list, 1, n, 1, {})
end

local function rerank(_, body, x)
  local docs, top = read_documents(body)
  if not docs then
    return refuse(top)
  end
  return {
    rows = #docs, tokens = input.count_tokens(docs),
    reply = function(order)
      local n = order and math.min(top, #order) or top
      return core.json_encode {
        id = x.id, results = core.json_array(best(body.query, docs, n)),
        meta = { api_version = { version = "2" }, billed_units = { search_units = 1 } },
      }
    end,
  }
end

M.routes = {
  ["/v2/embed"] = { POST = embed },
  ["/v2/rerank"] = { POST = rerank },
}

return M
