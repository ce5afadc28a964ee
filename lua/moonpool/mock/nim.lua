-- moonpool.mock.nim: NVIDIA NIM's embeddings and ranking.

local core = require "moonpool.core"
local relatives = require "moonpool.mock.relatives"
local strict = require "moonpool.mock.strict"

local M = { needs_key = true }

function M.error(_, message)
  return core.json_encode { object = "error", message = message, detail = core.json_null,
    type = "invalid_request_error" }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "Too Many Requests, please retry in 0.02s")
  elseif status == 401 then
    return core.json_encode { status = 401, title = "Unauthorized", detail = "Authentication failed" }
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.bad_body(why)
  return 422, M.error(422, why)
end

local function refuse(message)
  return nil, 400, M.error(400, message)
end

local truncations = { NONE = true, START = true, END = true }

local function check(mock, body, largest)
  if body.input_type ~= "query" and body.input_type ~= "passage" then
    return "'input_type' parameter is required, query or passage"
  elseif body.truncate ~= nil and not truncations[body.truncate] then
    return "truncate must be NONE, START or END"
  elseif largest > mock.max_input_tokens and (body.truncate or "NONE") == "NONE" then
    return ("Input length %d exceeds maximum allowed token size %d"):format(largest, mock.max_input_tokens)
  end
end

local text_of = strict.field "text"

local function ranking(_, body)
  local texts, err = strict.texts(body.passages, "passages", 512, text_of)
  local query = text_of(body.query)
  if not texts or type(query) ~= "string" or type(body.model) ~= "string" then
    return refuse(err or "model and query.text are required")
  end
  return strict.rerank(query, texts, nil, function(i, score)
    return { index = i, logit = 20 * score - 10 }
  end, function(list)
    return { rankings = list, usage = { prompt_tokens = 1, total_tokens = 1 } }
  end)
end

M.routes = {
  ["/v1/embeddings"] = { POST = relatives.embeddings {
    refuse = refuse, max = 256, check = check,
    allowed = strict.set("model", "input", "input_type", "truncate", "encoding_format", "embedding_type",
      "dimensions", "user"),
  } },
  ["/v1/ranking"] = { POST = ranking },
}

return M
