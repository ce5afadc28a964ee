-- moonpool.mock.vertex: Vertex AI's predict of embedding models.

local core = require "moonpool.core"
local gemini = require "moonpool.mock.gemini"
local input = require "moonpool.mock.input"
local strict = require "moonpool.mock.strict"

local M = { needs_key = true, error = gemini.error, bad_body = gemini.bad_body }

function M.fault(status)
  if status == 401 then
    return M.error(401, "Request had invalid authentication credentials. Expected OAuth 2 access token.")
  end
  return gemini.fault(status)
end

local function refuse(message)
  return nil, 400, M.error(400, message)
end

local text_of = strict.field("content", "task_type", "title")

local function embed(mock, body, x)
  local model = x.req.path:match "/models/([^/:]+):"
  local most = model:find "^gemini%-embedding" and 1 or 250
  local odd = strict.unknown(body, strict.set("instances", "parameters"))
  if odd then
    return refuse(('Unknown name "%s": Cannot find field.'):format(odd))
  end
  local texts, err = strict.texts(body.instances, "instances", most, text_of)
  if not texts then
    return refuse(err)
  end
  local parameters = input.is_null(body.parameters) and {} or body.parameters
  local dims = strict.dims(mock, parameters.outputDimensionality)
  local tokens, largest = input.count_tokens(texts)
  if not dims then
    return refuse "outputDimensionality is out of range"
  elseif tokens > 20000 then
    return refuse(("Unable to submit request because the input token count is %d but the model supports "
      .. "up to 20000."):format(tokens))
  elseif largest > 2048 and parameters.autoTruncate == false then
    return refuse(("The input token count (%d) exceeds 2048 and autoTruncate is off."):format(largest))
  end
  return strict.job(texts, function(order)
    return '{"predictions":[' .. strict.vectors(mock, texts, dims, order, function(i)
      local n = input.tokens(texts[i])
      return '{"embeddings":{"values":', ',"statistics":' .. core.json_encode {
        token_count = math.min(n, 2048), truncated = n > 2048,
      } .. "}}"
    end) .. '],"metadata":{"billableCharacterCount":0}}'
  end)
end

M.patterns = {
  { "^/v1/projects/[^/]+/locations/[^/]+/publishers/google/models/[^/:]+:predict$", { POST = embed } },
}
M.routes = {}

return M
