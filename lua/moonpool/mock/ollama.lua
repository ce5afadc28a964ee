-- moonpool.mock.ollama: POST /api/embed.

local core = require "moonpool.core"
local input = require "moonpool.mock.input"
local strict = require "moonpool.mock.strict"

local M = {}

function M.error(_, message)
  return core.json_encode { error = message }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "too many requests, please try again in 20ms")
  end
  return M.error(status, "the mock was asked to answer " .. status)
end

function M.bad_body(why)
  return 400, M.error(400, why)
end

local allowed = strict.set("model", "input", "truncate", "dimensions", "keep_alive", "options")

local function refuse(message, status)
  return nil, status or 400, M.error(400, message)
end

local function embed(mock, body)
  if type(body.model) ~= "string" or body.model == "" then
    return refuse "model is required"
  end
  local odd = strict.unknown(body, allowed)
  if odd then
    return refuse(("unknown field %q"):format(odd))
  end
  local list = type(body.input) == "string" and { body.input } or body.input
  local texts, err = strict.texts(list, "input")
  if not texts then
    return refuse(err)
  end
  local dims = strict.dims(mock, body.dimensions)
  local tokens, largest = input.count_tokens(texts)
  if not dims then
    return refuse "dimensions are out of range"
  elseif largest > mock.max_input_tokens and body.truncate == false then
    return refuse "the input length exceeds the context length"
  end
  return strict.job(texts, function(order)
    return '{"model":' .. input.quote(body.model) .. ',"embeddings":['
      .. strict.vectors(mock, texts, dims, order)
      .. '],"total_duration":1,"load_duration":1,"prompt_eval_count":'
      .. tokens .. "}"
  end)
end

M.routes = { ["/api/embed"] = { POST = embed } }

return M
