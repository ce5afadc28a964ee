-- moonpool.provider.cloudflare: Cloudflare Workers AI: account and model in the path, vectors as a
-- tensor with its sizes. Nothing is told about tokens.
local options = require "moonpool.options"

local function account(client)
  return client.account_id or options.env "CLOUDFLARE_ACCOUNT_ID" or options.env "CF_ACCOUNT_ID"
end

local function path(o, client)
  if not o.model then
    error("cloudflare: model: missing", 0)
  end
  return ("/client/v4/accounts/%s/ai/run/%s"):format(account(client), o.model)
end

return {
  name = "cloudflare",
  base_url = "https://api.cloudflare.com",
  bare = true,
  setup = function(client)
    local id = account(client)
    if not id then
      return nil, "account_id: missing (or CLOUDFLARE_ACCOUNT_ID in the environment)"
    end
    if not id:find "^[%w_-]+$" then
      return nil, "account_id: letters and digits expected"
    end
  end,
  key_env = { "CLOUDFLARE_API_TOKEN", "CLOUDFLARE_AUTH_TOKEN", "CF_AI_API_TOKEN" },
  auth = { header = "Authorization", format = "Bearer %s" },
  options = { account_id = "text" },
  embed = {
    path = path,
    rows = "text",
    fields = { pooling = "pooling", truncate = "truncate_inputs" },
    options = { pooling = { "mean", "cls" }, truncate = "boolean" },
    reply = { list = "result.data", layout = "tensor", dims = "result.shape" },
    limits = { inputs = 100 },
  },
  rerank = {
    path = path,
    rows = "contexts",
    wrap = { before = '"text":' },
    query = "query",
    top_n = "top_k",
    reply = { list = "result.response", index = "id", score = "score" },
    limits = { inputs = 100 },
  },
  classify = {
    path = path,
    rows = "text",
    alone = true,
    reply = { list = "result", label = "label", score = "score" },
    limits = { inputs = 1 },
  },
}
