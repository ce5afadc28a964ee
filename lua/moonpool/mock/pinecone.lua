-- moonpool.mock.pinecone: Pinecone's inference, dense and sparse.

local core = require "moonpool.core"
local input = require "moonpool.mock.input"
local strict = require "moonpool.mock.strict"

local M = { needs_key = true }

local codes = { [400] = "INVALID_ARGUMENT", [401] = "UNAUTHENTICATED", [429] = "RESOURCE_EXHAUSTED" }

function M.error(status, message)
  return core.json_encode {
    error = { code = codes[status] or "UNKNOWN", message = message }, status = status,
  }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "Too many requests. Please retry in 0.02s.")
  elseif status == 401 then
    return M.error(401, "Invalid API Key")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.key(req)
  return req:header "api-key"
end

function M.bad_body(why)
  return 400, M.error(400, why)
end

local function refuse(message)
  return nil, 400, M.error(400, message)
end

local text_of = strict.field "text"
local allowed = strict.set("model", "inputs", "parameters")
local known = strict.set("input_type", "truncate", "dimension", "return_tokens")

local function check(body, x)
  local odd = strict.unknown(body, allowed)
  local parameters = type(body.parameters) == "table" and body.parameters or {}
  odd = odd or strict.unknown(parameters, known)
  if not x.req:header "x-pinecone-api-version" then
    return "the header X-Pinecone-API-Version is missing"
  elseif odd then
    return "unknown field " .. odd
  elseif type(body.model) ~= "string" then
    return "model is required"
  elseif parameters.input_type ~= "query" and parameters.input_type ~= "passage" then
    return "parameters.input_type must be query or passage"
  end
end

local function sparse(text)
  local indices, values = strict.weights(text)
  return core.json_encode {
    sparse_indices = core.json_array(indices), sparse_values = core.json_array(values),
  }
end

local function sparse_reply(body, texts, order, tokens)
  local list = {}
  for k = 1, order and #order or #texts do list[k] = sparse(texts[order and order[k] or k]) end
  return '{"model":' .. input.quote(body.model) .. ',"vector_type":"sparse","data":['
    .. table.concat(list, ",") .. '],"usage":{"total_tokens":' .. tokens .. "}}"
end

local function embed(mock, body, x)
  local why = check(body, x)
  local texts, err = strict.texts(body.inputs, "inputs", 96, text_of)
  if why or not texts then
    return refuse(why or err)
  end
  local dims = strict.dims(mock, body.parameters.dimension)
  if not dims then
    return refuse "dimension is not supported by this model"
  end
  local tokens = input.count_tokens(texts)
  return strict.job(texts, function(order)
    if body.model:find "sparse" then
      return sparse_reply(body, texts, order, tokens)
    end
    return '{"model":' .. input.quote(body.model) .. ',"vector_type":"dense","data":['
      .. strict.vectors(mock, texts, dims, order, function() return '{"values":', "}" end)
      .. '],"usage":{"total_tokens":' .. tokens .. "}}"
  end)
end

local function rerank(_, body, x)
  local texts, err = strict.texts(body.documents, "documents", 100, text_of)
  if not texts or type(body.query) ~= "string" or not x.req:header "x-pinecone-api-version" then
    return refuse(err or "query and the API's version are required")
  end
  return strict.rerank(body.query, texts, body.top_n, function(i, score)
    return { index = i, score = score }
  end, function(list)
    return { model = body.model, data = list, usage = { rerank_units = 1 } }
  end)
end

M.routes = { ["/embed"] = { POST = embed }, ["/rerank"] = { POST = rerank } }

return M
