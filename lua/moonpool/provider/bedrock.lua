-- moonpool.provider.bedrock: Amazon Bedrock: what a body looks like depends on whose model it is. By
-- API key (a bearer token), or signed with an access key where there is no API key.
local common = require "moonpool.provider.common"
local options = require "moonpool.options"
local sigv4 = require "moonpool.provider.sigv4"

local function region(client)
  return client.region or options.env "AWS_REGION" or options.env "AWS_DEFAULT_REGION" or "us-east-1"
end

local function path(o) return ("/model/%s/invoke"):format(common.escape(o.model)) end

local titan = {
  path = path,
  rows = "inputText",
  alone = true,
  fields = { dimensions = "dimensions", normalize = "normalize" },
  reply = { list = "embedding", layout = "one", usage = "inputTextTokenCount" },
  limits = { inputs = 1, text = { tokens = 8192 } },
}

-- v4 has other words for the end that is cut.
local v4 = { START = "LEFT", END = "RIGHT", LEFT = "LEFT", RIGHT = "RIGHT" }
local v3 = { LEFT = "START", RIGHT = "END", START = "START", END = "END" }

local cohere = {
  path = path,
  rows = "texts",
  fields = { input_type = "input_type", truncate = "truncate", dimensions = "output_dimension",
    max_tokens = "max_tokens" },
  fixed = { input_type = "search_document" },
  prepare = function(fields, o)
    local words = o.model:find "embed%-v4" and v4 or v3
    fields.truncate = words[fields.truncate] or fields.truncate
    if o.embedding_type then
      fields.embedding_types = { o.embedding_type }
    end
  end,
  shape = function(_, o)
    local kind = o.embedding_type or "float"
    return { list = "embeddings|embeddings." .. kind, dtype = common.dtypes[kind],
      tokens_header = "x-amzn-bedrock-input-token-count" }
  end,
  limits = function(o)
    return { inputs = 96, text = o.model:find "embed%-v4" and { tokens = 128000 } or { chars = 2048 } }
  end,
}

local function variant(model)
  if not model then
    error("embed: bedrock: model: missing", 0)
  end
  if model:find "cohere%.embed" then
    return cohere
  end
  if model:find "amazon%.titan%-embed" then
    return titan
  end
  error(("embed: bedrock: model '%s': one of amazon.titan-embed or cohere.embed expected"):format(model), 0)
end

local function keys_of(client)
  local keys = {
    access_key_id = client.access_key_id or options.env "AWS_ACCESS_KEY_ID",
    secret_access_key = client.secret_access_key or options.env "AWS_SECRET_ACCESS_KEY",
    session_token = client.session_token or options.env "AWS_SESSION_TOKEN",
  }
  return keys.access_key_id and keys.secret_access_key and keys
end

return {
  name = "bedrock",
  base = function(client) return ("https://bedrock-runtime.%s.amazonaws.com"):format(region(client)) end,
  bare = true,
  setup = function(client)
    if not region(client):find "^[%w-]+$" then
      return nil, "region: letters, digits and '-' expected"
    end
  end,
  key_env = { "AWS_BEARER_TOKEN_BEDROCK" },
  auth = { header = "Authorization", format = "Bearer %s" },
  options = { region = "text", access_key_id = "text", secret_access_key = "text", session_token = "text" },
  sign = function(client, secret)
    local keys = keys_of(client)
    local given = client.access_key_id and client.secret_access_key
    if not keys or client.api_key or (options.env "AWS_BEARER_TOKEN_BEDROCK" and not given) then
      return nil
    end
    secret(keys.secret_access_key)
    if keys.session_token then
      secret(keys.session_token)
    end
    return sigv4.signer(keys, { region = region(client), service = "bedrock" })
  end,
  embed = {
    variant = variant,
    options = {
      normalize = "boolean",
      input_type = { "search_document", "search_query", "classification", "clustering" },
      truncate = { "NONE", "START", "END", "LEFT", "RIGHT" }, max_tokens = "count",
      embedding_type = { "float", "int8", "uint8", "binary", "ubinary" },
    },
  },
  rerank = {
    elsewhere = function(client)
      return ("https://bedrock-agent-runtime.%s.amazonaws.com"):format(region(client))
    end,
    path = "/rerank",
    rows = "sources",
    wrap = {
      before = '"type":"INLINE","inlineDocumentSource":{"type":"TEXT","textDocument":{"text":', after = "}}",
    },
    query = "query",
    top_n = "numberOfResults",
    prepare = function(fields, o, client)
      if not o.model then
        error("rerank: bedrock: model: missing", 0)
      end
      local arn = o.model:find "^arn:" and o.model
        or ("arn:aws:bedrock:%s::foundation-model/%s"):format(region(client), o.model)
      fields.modelConfiguration = { modelArn = arn }
      fields.queries = { { type = "TEXT", textQuery = { text = fields.query } } }
      fields.query = nil
    end,
    -- How many the service gives unasked is its own affair: all are asked for.
    frame = function(fields, members)
      local head = members { queries = fields.queries }
      local model = members { modelConfiguration = fields.modelConfiguration }
      local before = '],"rerankingConfiguration":{"type":"BEDROCK_RERANKING_MODEL",'
        .. '"bedrockRerankingConfiguration":{' .. model .. ',"numberOfResults":'
      local top = fields.numberOfResults
      return "{" .. head .. ',"sources":[', before .. (top and top .. "}}}" or ""), not top and "}}}" or nil
    end,
    reply = { list = "results", index = "index", score = "relevanceScore" },
    limits = { inputs = 1000 },
  },
}
