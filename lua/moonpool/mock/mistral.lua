-- moonpool.mock.mistral: Mistral AI's embeddings and moderations.

local core = require "moonpool.core"
local relatives = require "moonpool.mock.relatives"
local strict = require "moonpool.mock.strict"

local M = { needs_key = true }

function M.error(status, message)
  return core.json_encode { object = "error", message = message, type = "invalid_request_error",
    code = tostring(status) }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "Requests rate limit exceeded. Please retry in 0.02s.")
  elseif status == 401 then
    return core.json_encode { detail = "Unauthorized" }
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.bad_body(why)
  return 422, M.error(422, why)
end

local function refuse(message)
  return nil, 422, M.error(422, message)
end

local function moderate(_, body)
  local texts, err = strict.texts(body.input, "input", 256)
  if not texts then
    return refuse(err)
  end
  return strict.job(texts, function(order)
    local list = {}
    for i = 1, order and #order or #texts do
      local good = core.mock_sentiment(texts[i])
      list[i] = { categories = { hate = good < 0.5 }, category_scores = { hate = 1 - good, pii = 0 } }
    end
    return core.json_encode { id = "mod-mock", model = body.model, results = core.json_array(list) }
  end)
end

M.routes = {
  ["/v1/embeddings"] = { POST = relatives.embeddings {
    refuse = refuse, max = 256, dimension = "output_dimension",
    allowed = strict.set("model", "input", "encoding_format", "output_dimension", "output_dtype", "metadata"),
  } },
  ["/v1/moderations"] = { POST = moderate },
}

return M
