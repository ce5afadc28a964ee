-- moonpool.mock.vllm: vLLM's embeddings (bytes too), rerank and classify.

local core = require "moonpool.core"
local relatives = require "moonpool.mock.relatives"
local strict = require "moonpool.mock.strict"

local M = {}

function M.error(status, message)
  return core.json_encode { error = { message = message, type = "BadRequestError", param = core.json_null,
    code = status } }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "The server is busy, please retry in 0.02s")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.bad_body(why)
  return 400, M.error(400, why)
end

local function refuse(message)
  return nil, 400, M.error(400, message)
end

local function check(mock, body, largest)
  if largest > mock.max_input_tokens and body.truncate_prompt_tokens == nil then
    return ("This model's maximum context length is %d tokens. However, you requested %d tokens in the "
      .. "input."):format(mock.max_input_tokens, largest)
  elseif body.embed_dtype ~= nil and body.embed_dtype ~= "float32" or body.endianness == "big" then
    return "the mock packs little-endian float32 only"
  end
end

local function classify(_, body)
  local texts, err = strict.texts(type(body.input) == "string" and { body.input } or body.input, "input")
  if not texts then
    return refuse(err)
  end
  return strict.job(texts, function(order)
    local data = {}
    for i = 1, order and #order or #texts do
      local good = core.mock_sentiment(texts[i])
      data[i] = { index = i - 1, label = good >= 0.5 and "POSITIVE" or "NEGATIVE",
        probs = core.json_array { 1 - good, good }, num_classes = 2 }
    end
    return core.json_encode { object = "list", model = body.model, data = core.json_array(data) }
  end)
end

local function pooling(mock, body)
  local texts, err = strict.texts(type(body.input) == "string" and { body.input } or body.input, "input")
  if not texts then
    return refuse(err)
  end
  return strict.job(texts, function(order)
    return '{"object":"list","data":[' .. strict.words(mock, texts, order, function(i)
      return ('{"object":"pooling","index":%d,"data":'):format(i - 1), "}"
    end) .. '],"usage":{"prompt_tokens":3,"total_tokens":3}}'
  end)
end

local rerank = relatives.rerank(refuse)

M.routes = {
  ["/v1/embeddings"] = { POST = relatives.embeddings {
    refuse = refuse, bytes = true, check = check,
    allowed = strict.set("model", "input", "encoding_format", "dimensions", "user", "priority", "embed_dtype",
      "endianness", "truncate_prompt_tokens", "add_special_tokens", "normalize"),
  } },
  ["/v1/rerank"] = { POST = rerank }, ["/rerank"] = { POST = rerank }, ["/classify"] = { POST = classify },
  ["/pooling"] = { POST = pooling },
}

return M
