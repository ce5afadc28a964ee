-- moonpool.mock.bedrock: InvokeModel of Titan and Cohere, and rerank. Takes an API key, or a signature:
-- of the secret that is the mock's own key, if it has one.

local core = require "moonpool.core"
local input = require "moonpool.mock.input"
local sigv4 = require "moonpool.provider.sigv4"
local strict = require "moonpool.mock.strict"
local webhook = require "moonpool.provider.webhook"

local M = { needs_key = true }

function M.error(_, message)
  return core.json_encode { message = message }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "Too many requests, please wait before trying again. Retry in 0.02s.")
  elseif status == 401 then
    return M.error(403, "The security token included in the request is invalid.")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.bad_body(why)
  return 400, M.error(400, why)
end

local function refuse(message)
  return nil, 400, M.error(400, message)
end

-- Signed with the mock's key at the time the request names.
local function signed(mock, req, given)
  local id, region, service =
    given:match "^AWS4%-HMAC%-SHA256 Credential=([^/]+)/%d+/([%w-]+)/(%w+)/aws4_request, "
  local at = webhook.unix_time((req:header "x-amz-date" or "")
    :gsub("^(%d%d%d%d)(%d%d)(%d%dT%d%d)(%d%d)(%d%dZ)$", "%1-%2-%3:%4:%5"))
  if not id or not at or service ~= "bedrock" then
    return false
  elseif not mock.api_key then
    return given:find "Signature=%x+$" ~= nil
  end
  local want = sigv4.headers({
    method = req.method, path = req.target or req.path, host = req:header "host", body = req.body,
  }, {
    access_key_id = id, secret_access_key = mock.api_key, session_token = req:header "x-amz-security-token",
  }, { region = region, service = service }, math.floor(at))
  return want.Authorization == given
end

function M.authorized(mock, req)
  local given = req:header "authorization" or ""
  if given:find "^AWS4" then
    return signed(mock, req, given)
  end
  local key = given:match "^Bearer (%S+)$"
  return key ~= nil and (not mock.api_key or key == mock.api_key)
end

local titan_fields = strict.set("inputText", "dimensions", "normalize", "embeddingTypes")

local function titan(mock, body)
  local odd = strict.unknown(body, titan_fields)
  if odd or type(body.inputText) ~= "string" or body.inputText == "" then
    local why = odd and ("extraneous key [%s] is not permitted"):format(odd) or "expected inputText, a string"
    return refuse("Malformed input request: " .. why)
  end
  local dims = strict.dims(mock, body.dimensions)
  if not dims then
    return refuse "Malformed input request: dimensions"
  end
  local texts = { body.inputText }
  return strict.job(texts, function(order)
    local vector = core.mock_vectors(texts, mock.dim, dims, "float", false)
    if order and #order == 0 then
      vector = "[]"
    end
    return ('{"embedding":%s,"embeddingsByType":{"float":%s},"inputTextTokenCount":%d}')
      :format(vector, vector, input.tokens(body.inputText))
  end)
end

local cohere_fields = strict.set("texts", "input_type", "truncate", "embedding_types", "output_dimension",
  "max_tokens")
local cuts = { v3 = strict.set("NONE", "START", "END"), v4 = strict.set("NONE", "LEFT", "RIGHT") }

local function cohere(mock, body, model)
  local odd = strict.unknown(body, cohere_fields)
  local texts, err = strict.texts(body.texts, "texts", 96)
  local cut = body.truncate
  if odd or not texts then
    return refuse(err or "extraneous key [" .. odd .. "] is not permitted")
  elseif type(body.input_type) ~= "string" then
    return refuse "input_type is required"
  elseif cut ~= nil and not cuts[model:find "embed%-v4" and "v4" or "v3"][cut] then
    return refuse "truncate: not a valid enum value"
  end
  local dims = strict.dims(mock, body.output_dimension)
  if not dims then
    return refuse "output_dimension is not supported"
  end
  local kind = body.embedding_types and body.embedding_types[1]
  local job = strict.job(texts, function(order)
    local list = "[" .. core.mock_vectors(texts, mock.dim, dims, kind or "float", false, order) .. "]"
    return '{"id":"mock","embeddings":' .. (kind and ('{"%s":%s}'):format(kind, list) or list)
      .. ',"response_type":"embeddings_floats"}'
  end)
  job.headers = { ["x-amzn-bedrock-input-token-count"] = tostring(job.tokens) }
  return job
end

local function invoke(mock, body, x)
  local model = x.req.path:match "/model/([^/]+)/invoke$"
  if model:find "cohere%.embed" then
    return cohere(mock, body, model)
  elseif model:find "titan%-embed" then
    return titan(mock, body)
  end
  return refuse "The provided model identifier is invalid."
end

local function source_text(source)
  local inline = type(source) == "table" and source.type == "INLINE" and source.inlineDocumentSource
  local document = type(inline) == "table" and inline.type == "TEXT" and inline.textDocument
  return type(document) == "table" and document.text or nil
end

local function rerank(_, body)
  local texts, err = strict.texts(body.sources, "sources", 1000, source_text)
  local query = body.queries and body.queries[1] and body.queries[1].textQuery
  local config = body.rerankingConfiguration or {}
  local inner = config.bedrockRerankingConfiguration or {}
  if not texts or not query or config.type ~= "BEDROCK_RERANKING_MODEL" then
    return refuse(err or "queries and rerankingConfiguration are required")
  elseif not (inner.modelConfiguration or {}).modelArn then
    return refuse "modelArn is required"
  end
  return strict.rerank(query.text, texts, inner.numberOfResults, function(i, score)
    return { index = i, relevanceScore = score }
  end, function(list)
    return { results = list }
  end)
end

M.patterns = { { "^/model/[^/]+/invoke$", { POST = invoke } } }
M.routes = { ["/rerank"] = { POST = rerank } }

return M
