-- moonpool.mock.nomic: Nomic Atlas's text embeddings.

local core = require "moonpool.core"
local strict = require "moonpool.mock.strict"

local M = { needs_key = true }

function M.error(_, message)
  return core.json_encode { detail = message }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "Rate limit exceeded, please retry in 0.02s")
  elseif status == 401 then
    return M.error(401, "Not authenticated")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.bad_body(why)
  return 422, M.error(422, why)
end

local function refuse(message)
  return nil, 422, M.error(422, message)
end

local allowed = strict.set("model", "texts", "task_type", "dimensionality", "long_text_mode",
  "max_tokens_per_text")
local tasks = strict.set("search_document", "search_query", "classification", "clustering")

local function embed(mock, body)
  local odd = strict.unknown(body, allowed)
  local texts, err = strict.texts(body.texts, "texts", 50)
  local dims = strict.dims(mock, body.dimensionality)
  if odd or not texts or not dims then
    return refuse(odd and "unknown field " .. odd or err or "dimensionality is out of range")
  elseif body.task_type ~= nil and not tasks[body.task_type] then
    return refuse "task_type is not known"
  end
  local job
  job = strict.job(texts, function(order)
    return '{"embeddings":[' .. strict.vectors(mock, texts, dims, order) .. ('],"usage":{"prompt_tokens":%d,'
      .. '"total_tokens":%d},"model":"nomic-embed-text-v1.5"}'):format(job.tokens, job.tokens)
  end)
  return job
end

M.routes = { ["/v1/embedding/text"] = { POST = embed } }

return M
