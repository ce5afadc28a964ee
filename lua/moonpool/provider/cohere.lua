-- moonpool.provider.cohere: Cohere v2: vectors keyed by type and without an index, 96 texts a request.
local common = require "moonpool.provider.common"

local types = { "float", "int8", "uint8", "binary", "ubinary", "base64" }

local function one_type(value)
  if type(value) == "table" then
    if #value ~= 1 then
      return "one type a call: its vectors are one matrix"
    end
    value = value[1]
  end
  if not common.dtypes[value] then
    return "must be one of " .. table.concat(types, ", ")
  end
end

local function prepare(fields, o)
  local chosen = o.embedding_type or o.embedding_types or o.encoding_format or "float"
  fields.embedding_types = type(chosen) == "table" and chosen or { chosen }
end

local function shape(fields)
  local chosen = fields.embedding_types[1]
  return { list = "embeddings." .. chosen, dtype = common.dtypes[chosen] }
end

return {
  name = "cohere",
  base_url = "https://api.cohere.com",
  base_env = "CO_API_URL",
  key_env = { "COHERE_API_KEY", "CO_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/v2/embed",
    rows = "texts",
    fields = { model = "model", dimensions = "output_dimension", input_type = "input_type",
      truncate = "truncate", max_tokens = "max_tokens", priority = "priority" },
    options = {
      input_type = { "search_document", "search_query", "classification", "clustering", "image" },
      truncate = { "NONE", "START", "END" }, max_tokens = "count", priority = "number",
      embedding_type = one_type, embedding_types = one_type,
    },
    fixed = { input_type = "search_document" },
    prepare = prepare,
    shape = shape,
    limits = { inputs = 96 },
  },
  rerank = {
    path = "/v2/rerank",
    query = "query",
    rows = "documents",
    top_n = "top_n",
    fields = { model = "model", max_tokens_per_doc = "max_tokens_per_doc", priority = "priority" },
    options = { max_tokens_per_doc = "count", priority = "number" },
    reply = { list = "results", index = "index", score = "relevance_score" },
    limits = { inputs = 1000 },
  },
}
