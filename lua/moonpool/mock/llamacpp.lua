-- moonpool.mock.llamacpp: llama.cpp's server. --max-input-tokens stands for its physical batch.

local core = require "moonpool.core"
local relatives = require "moonpool.mock.relatives"
local strict = require "moonpool.mock.strict"

local M = {}

function M.error(status, message)
  return core.json_encode { error = { code = status, message = message,
    type = status >= 500 and "server_error" or "invalid_request_error" } }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "all slots are busy, try again in 0.02s")
  elseif status == 401 then
    return M.error(401, "Invalid API Key")
  end
  return M.error(status, "the mock was asked to answer " .. status)
end

function M.bad_body(why)
  return 400, M.error(400, why)
end

local function refuse(message)
  return nil, 400, M.error(400, message)
end

local function check(mock, _, largest)
  if largest > mock.max_input_tokens then
    return ("input (%d tokens) is too large to process. increase the physical batch size "
      .. "(current batch size: %d)"):format(largest, mock.max_input_tokens)
  end
end

local rerank = relatives.rerank(refuse)
local embeddings = relatives.embeddings {
  refuse = refuse, no_model = true, check = check,
  allowed = strict.set("model", "input", "encoding_format", "embd_normalize"),
}

M.routes = {
  ["/v1/embeddings"] = { POST = embeddings }, ["/embeddings"] = { POST = embeddings },
  ["/v1/rerank"] = { POST = rerank }, ["/rerank"] = { POST = rerank }, ["/reranking"] = { POST = rerank },
}

return M
