-- moonpool.mock.huggingface: the serverless inference of Hugging Face, by task.

local core = require "moonpool.core"
local strict = require "moonpool.mock.strict"

local M = { needs_key = true }

function M.error(_, message, seconds)
  return core.json_encode { error = message, estimated_time = seconds }
end

function M.fault(status)
  if status == 503 then
    return M.error(503, "Model moonpool-hash is currently loading", 0.02)
  elseif status == 429 then
    return M.error(429, "Rate limit reached. Please try again in 0.02 seconds.")
  elseif status == 401 then
    return M.error(401, "Invalid username or password.")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.bad_body(why)
  return 400, M.error(400, why)
end

local function refuse(message)
  return nil, 400, M.error(400, message)
end

local embed_fields = strict.set("inputs", "normalize", "prompt_name", "truncate", "truncation_direction")

local function embed(mock, body)
  local odd = strict.unknown(body, embed_fields)
  if odd then
    return refuse("unexpected field: " .. odd)
  end
  local texts, err = strict.texts(body.inputs, "inputs")
  if not texts then
    return refuse(err)
  end
  return strict.job(texts, function(order)
    return "[" .. strict.vectors(mock, texts, mock.dim, order) .. "]"
  end)
end

local function similarity(_, body)
  local asked = type(body.inputs) == "table" and body.inputs or {}
  local texts, err = strict.texts(asked.sentences, "sentences")
  if not texts or type(asked.source_sentence) ~= "string" then
    return refuse(err or "source_sentence is missing")
  end
  return strict.job(texts, function(order)
    local scores = core.mock_scores(asked.source_sentence, texts)
    return core.json_encode(core.json_array(table.move(scores, 1, order and #order or #scores, 1, {})))
  end)
end

local function classify(_, body)
  local texts, err = strict.texts(body.inputs, "inputs")
  if not texts then
    return refuse(err)
  end
  return strict.job(texts, function(order)
    local all = {}
    for i = 1, order and #order or #texts do
      all[i] = core.json_array(strict.labels(texts[i]))
    end
    return core.json_encode(core.json_array(all))
  end)
end

M.patterns = {
  { "^/hf%-inference/models/.+/pipeline/feature%-extraction$", { POST = embed } },
  { "^/hf%-inference/models/.+/pipeline/sentence%-similarity$", { POST = similarity } },
  { "^/hf%-inference/models/[^/]+/?[^/]+$", { POST = classify } },
}
M.routes = {}

return M
