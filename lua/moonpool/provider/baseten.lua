-- moonpool.provider.baseten: Baseten: models and chains behind hosts of their own, by environment or
-- deployment; container routes such as /v1/embeddings under .../sync; synchronous and asynchronous
-- predict.
--
-- A base URL is taken as it is, for embed as the performance client takes it (".../sync"). What lies
-- beside or above it is reached by "/..", which curl resolves before anything is sent (RFC 3986, 5.2.4).
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local common = require "moonpool.provider.common"
local jobs = require "moonpool.provider.baseten_jobs"
local openai = require "moonpool.provider.openai"
local options = require "moonpool.options"
local webhook = require "moonpool.provider.webhook"
local R = options.rule

local MODEL_APIS = "https://inference.baseten.co"

-- ---- where things are ---------------------------------------------------------------------------------

local function stage(o)
  if o.deployment_id then
    return "/deployment/" .. common.escape(o.deployment_id)
  end
  if o.environment == "development" then
    return "/development"
  end
  if o.environment then
    return "/environments/" .. common.escape(o.environment)
  end
end

local function base(o)
  local kind = o.chain_id and "chain" or o.model_id and "model"
  if not kind then
    return MODEL_APIS
  end
  local name = kind .. "-" .. (o.chain_id or o.model_id) .. (o.region and "-" .. o.region or "")
  return ("https://%s.api.baseten.co"):format(name)
end

local function segments(path)
  return select(2, path:gsub("/[^/]+", ""))
end

local function up(n) return ("/.."):rep(n) end

-- Takes a suffix off a path: the rest, and the suffix or "".
local function cut(path, pattern)
  local at = path:find(pattern .. "$")
  if not at then
    return path, ""
  end
  return path:sub(1, at - 1), path:sub(at)
end

local stages = { "/environments/[^/]+", "/deployment/[^/]+", "/production", "/development" }

-- A base URL's parts: host, the path above the stage, stage, "/sync" and "/v1"; each may be "".
local function parse(url)
  local host, path = url:match "^%a+://([^/]+)(.*)$"
  if not host then
    host, path = "", url:match "^unix:[^:]+:(.*)$" or ""
  end
  local above, v1 = cut(path:gsub("/+$", ""), "/v1")
  local sync
  local given = ""
  above, sync = cut(above, "/sync")
  for _, pattern in ipairs(stages) do
    if given == "" then
      above, given = cut(above, pattern)
    end
  end
  return { host = host, above = above, stage = given, sync = sync, v1 = v1 }
end

local function url_of(o)
  local endpoints = o.endpoints or (o.endpoint_pool and o.endpoint_pool.endpoints)
  return o.base_url or endpoints and endpoints[1] and endpoints[1].base_url or base(o)
end

-- Paths relative to the base URL: sync, of container routes; call, of predict and the like; root, of
-- what a model has once.
local function layout(o)
  local url = parse(url_of(o))
  local beside = up(segments(url.sync .. url.v1))
  local root = beside .. up(segments(url.stage))
  if url.stage ~= "" or url.sync ~= "" or url.v1 ~= "" then
    return { sync = url.sync == "" and url.stage ~= "" and "/sync" or "", call = beside, root = root }
  end
  local own = url.host:find "%.api%.baseten%.co$" ~= nil
  local regional = own and url.host:find "^%a+%-%w+%-" ~= nil
  local prefix = stage(o) or (own and not regional and "/environments/production") or ""
  return { sync = (own or prefix ~= "") and prefix .. "/sync" or "", call = prefix, root = "" }
end

local function setup(o)
  if o.model_id and o.chain_id then
    return nil, "model_id and chain_id exclude each other"
  end
  if o.environment and o.deployment_id then
    return nil, "environment and deployment_id exclude each other"
  end
  if o.region and (o.environment or o.deployment_id) then
    return nil, "region: the name of a regional environment, with no environment or deployment_id besides"
  end
  local url = parse(url_of(o))
  if stage(o) and (url.stage ~= "" or url.sync ~= "" or url.v1 ~= "") then
    return nil, "environment and deployment_id: the base URL says it already"
  end
  for _, name in ipairs { "model_id", "chain_id", "region" } do
    if o[name] and not o[name]:find "^[%w-]+$" then
      return nil, name .. ": letters, digits and '-' expected"
    end
  end
end

-- A call of the OpenAI provider under the container's routes.
local function below_sync(desc)
  local all = {}
  for name, value in pairs(desc) do all[name] = value end
  all.path = function(_, o) return layout(o).sync .. desc.path end
  all.limits = { bytes = 100000000 }
  return all
end

local function is_chain(o)
  return o.chain_id ~= nil or (o.base_url or ""):find "^%a+://chain%-" ~= nil
end

-- ---- methods -----------------------------------------------------------------------------------------

local methods = {}

local predict_rules = call.rules {
  json = R.any, input = R.any, body = R.string, payloads = R.table, payload_headers = R.table,
}

--- The path of predict (of a chain: run_remote), for client:stream and client:batch_post.
function methods.predict_path(self)
  local o = client.state(self, 2).options
  return layout(o).call .. (is_chain(o) and "/run_remote" or "/predict")
end

-- A cold model answers late and a hedge only lengthens its queue: long reads, no hedging.
local function patient(self, opts)
  local state = client.state(self, 3)
  local o = {}
  for name, value in pairs(opts) do o[name] = value end
  local t = call.timeouts(opts.timeout or opts.timeout_s, "predict", 3)
  t.read = t.read or state.read_timeout or 1200
  o.timeout, o.timeout_s = t, nil
  if o.hedge == nil and not o.hedge_delay then
    o.hedge = false
  end
  return o
end

--- One synchronous prediction: predict { json = input } (or body = bytes) -> {data, status, ...};
--- with payloads = {...} many, as client:batch_post.
function methods.predict(self, opts)
  options.check("predict", opts, predict_rules, 2, call.secrets)
  local o = patient(self, opts)
  o.path, o.method = methods.predict_path(self), "POST"
  if o.payloads then
    return self:batch_post(o)
  end
  if o.input ~= nil then
    o.json, o.input = o.input, nil
  end
  if o.json == nil and o.body == nil then
    error("predict: json or body is needed", 2)
  end
  return self:request(o)
end

--- Starts a replica of a model scaled to zero: true, or nil, err. Does not wait for it.
function methods.wake(self)
  local o = client.state(self, 2).options
  local res, err = self:request { method = "POST", path = layout(o).call .. "/wake", hedge = false }
  if not res then
    return nil, err
  end
  return true
end

--- verify_webhook of moonpool.provider with the client's webhook_secrets.
function methods.verify_webhook(self, body, header, opts)
  local o = client.state(self, 2).options
  if not o.webhook_secrets then
    error("verify_webhook: the client has no webhook_secrets", 2)
  end
  return webhook.verify(body, header, o.webhook_secrets, opts)
end

jobs.add(methods, function(o)
  local at = layout(o)
  return at.call .. (is_chain(o) and "/async_run_remote" or "/async_predict"), at.root .. "/async_request/",
    at.call .. "/async_queue_status"
end)

return {
  name = "baseten",
  base = base,
  setup = setup,
  key_env = { "BASETEN_API_KEY", "OPENAI_API_KEY" },
  auth = {
    header = "Authorization", format = "Bearer %s",
    schemes = {
      bearer = { header = "Authorization", format = "Bearer %s" },
      ["api-key"] = { header = "Authorization", format = "Api-Key %s" },
    },
  },
  request_id_header = "x-baseten-customer-request-id",
  deadline_headers = true,
  own_paths = function(o)
    local at = layout(o)
    return { at.call, at.root }
  end,
  options = {
    model_id = "text", chain_id = "text", environment = "text", deployment_id = "text", region = "text",
    webhook_secrets = R.either(R.string, R.table),
  },
  embed = below_sync(openai.embed),
  rerank = below_sync(openai.rerank),
  classify = below_sync(openai.classify),
  methods = methods,
}
