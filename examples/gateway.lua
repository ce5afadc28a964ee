-- moonpool serve examples/gateway.lua [URL] --listen 127.0.0.1:8080
--
-- A service of one's own in front of a model server: POST /nearest with {"query": ..., "texts": [...]}
-- answers with the texts, nearest first. When its caller leaves, the calls made for it are cancelled.
local moonpool = require "moonpool"

local client = moonpool.client {
  base_url = arg[1] or "http://127.0.0.1:8089", model = "local-demo", preset = "gateway",
}

-- The query and the texts of a request, or nil and what is wrong: what comes from outside is checked
-- here, because the client raises for inputs of a wrong type.
local function read(req)
  local body = req:json()
  if type(body) ~= "table" or type(body.query) ~= "string" or type(body.texts) ~= "table" then
    return nil, "a JSON object with query and texts is needed"
  end
  for _, text in ipairs(body.texts) do
    if type(text) ~= "string" then return nil, "texts must be a list of strings" end
  end
  if #body.texts == 0 then return nil, "texts is empty" end
  return body
end

local function nearest(req)
  local body, why = read(req)
  if not body then
    return { status = 400, json = { error = why } }
  end
  local input = { body.query, table.unpack(body.texts) }
  local res, err = client:embed { input = input, total_timeout = 5 }
  if not res or not res.ok then
    err = err or res.errors[1].error
    return { status = err.status == 429 and 429 or 502, json = { error = err.kind } }
  end
  local found = {}
  for _, hit in ipairs(res.matrix:topk(res[1], #input)) do
    if hit.index > 1 then
      found[#found + 1] = { score = hit.score, text = input[hit.index] }
    end
  end
  return { json = { results = found } }
end

return function(req)
  if req.path == "/nearest" and req.method == "POST" then
    return nearest(req)
  end
  return { status = 404, json = { error = "no such thing here; POST /nearest" } }
end
