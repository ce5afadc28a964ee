-- moonpool.mock.infinity: Infinity's embeddings, rerank and classify.

local core = require "moonpool.core"
local relatives = require "moonpool.mock.relatives"
local strict = require "moonpool.mock.strict"

local M = {}

function M.error(status, message)
  return core.json_encode { error = { message = message, type = "invalid_request_error", code = status } }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "model overloaded, please retry in 0.02s")
  elseif status == 401 then
    return M.error(401, "Unauthorized")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.bad_body(why)
  return 422, M.error(422, why)
end

local function refuse(message)
  return nil, 422, M.error(422, message)
end

local function classify(_, body)
  local texts, err = strict.texts(body.input, "input", 2048)
  if not texts then
    return refuse(err)
  end
  return strict.job(texts, function(order)
    local data = {}
    for i = 1, order and #order or #texts do
      data[i] = core.json_array(strict.labels(texts[i]))
    end
    return core.json_encode { object = "classify", model = body.model, data = core.json_array(data) }
  end)
end

M.routes = {
  ["/embeddings"] = { POST = relatives.embeddings {
    refuse = refuse, max = 2048,
    allowed = strict.set("model", "input", "encoding_format", "dimensions", "user", "modality"),
  } },
  ["/rerank"] = { POST = relatives.rerank(refuse) },
  ["/classify"] = { POST = classify },
}

return M
