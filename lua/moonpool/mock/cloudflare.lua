-- moonpool.mock.cloudflare: Workers AI by REST: what a model is for is read off its name.

local core = require "moonpool.core"
local strict = require "moonpool.mock.strict"

local M = { needs_key = true }

function M.error(status, message)
  return core.json_encode { result = core.json_null, success = false,
    errors = core.json_array { { code = 1000 + status, message = message } }, messages = core.json_array {} }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "Capacity temporarily exceeded, please try again in 0.02s.")
  elseif status == 401 then
    return M.error(401, "Authentication error")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.bad_body(why)
  return 400, M.error(400, why)
end

local function refuse(message)
  return nil, 400, M.error(400, "AiError: Bad input: " .. message)
end

local function done(result)
  return '{"result":' .. result .. ',"success":true,"errors":[],"messages":[]}'
end

local function embed(mock, body)
  local odd = strict.unknown(body, strict.set("text", "pooling", "truncate_inputs"))
  if odd then
    return refuse("unknown property " .. odd)
  end
  local texts, err = strict.texts(type(body.text) == "string" and { body.text } or body.text, "text", 100)
  if not texts then
    return refuse(err)
  end
  return strict.job(texts, function(order)
    local list = strict.vectors(mock, texts, mock.dim, order)
    return done(('{"shape":[%d,%d],"data":[%s],"pooling":"mean"}')
      :format(order and #order or #texts, mock.dim, list))
  end)
end

local function rerank(_, body)
  local texts, err = strict.texts(body.contexts, "contexts", 100, strict.field "text")
  if not texts or type(body.query) ~= "string" then
    return refuse(err or "query is required")
  end
  return strict.rerank(body.query, texts, body.top_k, function(i, score)
    return { id = i, score = score }
  end, function(list)
    return { result = { response = list }, success = true }
  end)
end

local function classify(_, body)
  if type(body.text) ~= "string" then
    return refuse "text must be a string"
  end
  return strict.job({ body.text }, function()
    return done(core.json_encode(core.json_array(strict.labels(body.text))))
  end)
end

local function run(mock, body, x)
  local model = x.req.path:match "/ai/run/(.*)$"
  return (model:find "rerank" and rerank or model:find "sst" and classify or embed)(mock, body)
end

M.patterns = { { "^/client/v4/accounts/[^/]+/ai/run/@cf/[^/]+/[^/]+$", { POST = run } } }
M.routes = {}

return M
