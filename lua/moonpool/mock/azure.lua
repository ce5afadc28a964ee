-- moonpool.mock.azure: Azure OpenAI's embeddings, by deployment or by its v1 surface.

local core = require "moonpool.core"
local openai = require "moonpool.mock.openai"

local M = { bad_body = openai.bad_body }

function M.error(_, message, code)
  return core.json_encode { error = { code = code or "BadRequest", message = message } }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "Requests to the Embeddings_Create Operation have exceeded the call rate limit.",
      "429")
  elseif status == 401 then
    return M.error(401, "Access denied due to invalid subscription key or wrong API endpoint.", "401")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".", tostring(status))
end

local embed = openai.routes["/v1/embeddings"].POST

local function by_deployment(mock, body, x)
  if not (x.req.query or ""):find "api%-version=[%w-]+" then
    return nil, 404, M.error(404, "Resource not found", "404")
  end
  return embed(mock, body, x)
end

M.patterns = { { "^/openai/deployments/[^/]+/embeddings$", { POST = by_deployment } } }
M.routes = { ["/openai/v1/embeddings"] = { POST = embed } }

return M
