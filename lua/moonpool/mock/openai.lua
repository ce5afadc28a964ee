-- moonpool.mock.openai: POST /v1/embeddings, GET /v1/models and the completions as OpenAI answers them.

local chat = require "moonpool.mock.chat"
local core = require "moonpool.core"
local input = require "moonpool.mock.input"

local M = {}

--- The body of an error reply. kind is OpenAI's "type".
function M.error(_, message, kind, param, code)
  return core.json_encode {
    error = { message = message, type = kind or "invalid_request_error",
      param = param or core.json_null, code = code or core.json_null },
  }
end

--- What a fault's status looks like in this dialect.
function M.fault(status)
  if status == 429 then
    return M.error(429, "Rate limit reached for requests", "requests", nil, "rate_limit_exceeded")
  elseif status == 401 then
    return M.error(401, "Incorrect API key provided.", nil, nil, "invalid_api_key")
  elseif status >= 500 then
    return M.error(status, "The server had an error while processing your request. Sorry about that!",
      "server_error")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

local function refuse(message, param, code)
  return nil, 400, M.error(400, message, nil, param, code)
end

-- One list of ids, or a list of such lists, as texts and token counts.
local function read_ids(list)
  local text, n = input.ids_to_text(list)
  if text then
    return { text }, n, n
  end
  local texts, sum, largest = {}, 0, 0
  for i = 1, #list do
    text, n = input.ids_to_text(list[i])
    if not text then
      return nil
    end
    texts[i] = text
    sum, largest = sum + n, math.max(largest, n)
  end
  return texts, sum, largest
end

local function check_texts(texts)
  for i = 1, #texts do
    if type(texts[i]) ~= "string" then
      return "'$.input' is invalid. Please check the API reference."
    elseif texts[i] == "" then
      return "'$.input' is invalid: an input cannot be an empty string."
    end
  end
end

-- texts, tokens, the largest of an input; or nil, message, code
local function read_input(value, max_inputs)
  if input.is_null(value) then
    return nil, "'input' is a required property"
  elseif type(value) == "string" then
    value = { value }
  elseif not input.is_list(value) then
    return nil, "'$.input' is invalid. Please check the API reference."
  elseif #value == 0 then
    return nil, "'input' cannot be an empty array", "empty_array"
  end
  if type(value[1]) == "number" or type(value[1]) == "table" then
    local texts, sum, largest = read_ids(value)
    if not texts then
      return nil, "'$.input' is invalid. Please check the API reference."
    end
    value = texts
    if #value <= max_inputs then
      return value, sum, largest
    end
  end
  if #value > max_inputs then
    return nil, ("Invalid 'input': array too long. Expected an array with maximum length %d, but got "
      .. "an array with length %d instead."):format(max_inputs, #value), "array_above_max_length"
  end
  local message = check_texts(value)
  if message then
    return nil, message
  end
  return value, input.count_tokens(value)
end

local function check_tokens(mock, tokens, largest)
  if largest > mock.max_input_tokens then
    return ("This model's maximum context length is %d tokens, however you requested %d tokens. "
      .. "Please reduce your prompt."):format(mock.max_input_tokens, largest), "context_length_exceeded"
  elseif tokens > mock.max_request_tokens then
    return ("Requested %d tokens, max %d tokens per request"):format(tokens, mock.max_request_tokens),
      "max_tokens_per_request"
  end
end

local function read_dimensions(value, dim)
  if input.is_null(value) then
    return dim
  end
  if math.type(value) ~= "integer" or value < 1 or value > dim then
    return nil, ("Invalid value for 'dimensions': must be a whole number from 1 to %d."):format(dim)
  end
  return value
end

local function read_format(value)
  if input.is_null(value) then
    return "float"
  elseif value == "float" or value == "base64" then
    return value
  end
  return nil, "Invalid value for 'encoding_format': expected 'float' or 'base64'."
end

--- The parts of an embeddings request that OpenAI's relatives have in common.
function M.read_embeddings(mock, body, max_inputs)
  local texts, tokens, largest = read_input(body.input, max_inputs)
  if not texts then
    return refuse(tokens, "input", largest)
  end
  local message, code = check_tokens(mock, tokens, largest)
  if message then
    return refuse(message, "input", code)
  end
  return { texts = texts, rows = #texts, tokens = tokens }
end

local function embeddings(mock, body)
  if input.is_null(body.model) and mock.require_model then
    return refuse("you must provide a model parameter", "model")
  end
  local model = body.model or mock.model
  if type(model) ~= "string" then
    return refuse("Invalid type for 'model': expected a string.", "model")
  end
  local job, status, reply = M.read_embeddings(mock, body, 2048)
  if not job then
    return nil, status, reply
  end
  local dims, err = read_dimensions(body.dimensions, mock.dim)
  if not dims then
    return refuse(err, "dimensions")
  end
  local format
  format, err = read_format(body.encoding_format)
  if not format then
    return refuse(err, "encoding_format")
  end
  function job.reply(order)
    return '{"object":"list","data":['
      .. core.mock_vectors(job.texts, mock.dim, dims, format, true, order)
      .. '],"model":' .. input.quote(model) .. ',"usage":{"prompt_tokens":' .. job.tokens
      .. ',"total_tokens":' .. job.tokens .. "}}"
  end
  return job
end

local function model_of(id)
  return { id = id, object = "model", created = 0, owned_by = "moonpool" }
end

local function told(value)
  return { rows = 0, tokens = 0, free = true, reply = function() return core.json_encode(value) end }
end

local function models(mock)
  return told { object = "list", data = { model_of(mock.model) } }
end

local function one_model(mock, _, x)
  local id = x.req.path:match "/v1/models/(.+)$"
  if id ~= mock.model then
    local message = ("The model '%s' does not exist"):format(id)
    return nil, 404, M.error(404, message, nil, "model", "model_not_found")
  end
  return told(model_of(id))
end

M.routes = chat.routes(refuse)
M.routes["/v1/embeddings"] = { POST = embeddings }
M.routes["/v1/models"] = { GET = models }
M.patterns = { { "^/v1/models/.+$", { GET = one_model } } }

--- A body that is no JSON object.
function M.bad_body()
  return 400, M.error(400, "We could not parse the JSON body of your request.")
end

return M
