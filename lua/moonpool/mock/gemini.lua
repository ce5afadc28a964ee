-- moonpool.mock.gemini: the Gemini API's batchEmbedContents.

local core = require "moonpool.core"
local strict = require "moonpool.mock.strict"

local M = { needs_key = true }

local names = { [400] = "INVALID_ARGUMENT", [401] = "UNAUTHENTICATED", [403] = "PERMISSION_DENIED",
  [404] = "NOT_FOUND", [429] = "RESOURCE_EXHAUSTED", [500] = "INTERNAL", [503] = "UNAVAILABLE" }

function M.error(status, message, details)
  return core.json_encode { error = { code = status, message = message, status = names[status] or "UNKNOWN",
    details = details } }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "You exceeded your current quota. Please retry in 0.02s.", core.json_array {
      { ["@type"] = "type.googleapis.com/google.rpc.RetryInfo", retryDelay = "0.02s" },
    })
  elseif status == 401 then
    return M.error(403, "Method doesn't allow unregistered callers. Please use API Key.")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.key(req)
  return req:header "x-goog-api-key"
end

function M.bad_body(why)
  return 400, M.error(400, "Invalid JSON payload received. " .. why)
end

local function refuse(message)
  return nil, 400, M.error(400, message)
end

local allowed = strict.set("model", "content", "taskType", "title", "outputDimensionality")
local part_text = strict.field "text"

-- {content = {parts = {{text = }}}} -> its text
local function text_of(request)
  local content = type(request) == "table" and not strict.unknown(request, allowed) and request.content
  local parts = type(content) == "table" and content.parts
  return type(parts) == "table" and #parts == 1 and part_text(parts[1]) or nil
end

local function embed(mock, body, x)
  local model = x.req.path:match "/(models/[^/:]+):"
  local odd = strict.unknown(body, strict.set "requests")
  if odd then
    return refuse(('Unknown name "%s": Cannot find field.'):format(odd))
  elseif type(body.requests) == "table" and #body.requests > 100 then
    return refuse "BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch"
  end
  local texts, err = strict.texts(body.requests, "requests", 100, text_of)
  if not texts then
    return refuse(err)
  end
  local dims
  for i, request in ipairs(body.requests) do
    dims = strict.dims(mock, request.outputDimensionality)
    if request.model ~= model then
      return refuse(("requests[%d].model: must be %s, as in the path"):format(i - 1, model))
    elseif not dims then
      return refuse "outputDimensionality is out of range"
    end
  end
  return strict.job(texts, function(order)
    return '{"embeddings":[' .. strict.vectors(mock, texts, dims, order, function()
      return '{"values":', "}"
    end) .. "]}"
  end)
end

M.patterns = { { "^/v1beta/models/[^/:]+:batchEmbedContents$", { POST = embed } } }
M.routes = {}

return M
