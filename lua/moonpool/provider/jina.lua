-- moonpool.provider.jina: Jina AI: OpenAI-like, with tasks and types of vectors. With late_chunking the
-- inputs of a request are read as one text, so that splitting it would change every vector: it never
-- is.
local common = require "moonpool.provider.common"

local WINDOW = 8192 -- tokens that late chunking reads at once

local function late(o) return o.late_chunking == true end

local function limits(o)
  return { inputs = 2048, tokens = late(o) and WINDOW or nil }
end

local function prepare(fields, o)
  local format = o.encoding_format
  if format == nil then
    format = "base64"
  end
  fields.embedding_type = o.embedding_type or format or nil
end

local function shape(fields)
  return { list = "data", vector = "embedding", index = "index",
    dtype = common.dtypes[fields.embedding_type] }
end

return {
  name = "jina",
  base_url = "https://api.jina.ai",
  key_env = { "JINA_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/v1/embeddings",
    rows = "input",
    items = common.objects("text", "image"),
    fields = { model = "model", dimensions = "dimensions", task = "task", truncate = "truncate",
      late_chunking = "late_chunking", normalized = "normalized" },
    options = {
      task = "text", late_chunking = "boolean", truncate = "boolean", normalized = "boolean",
      embedding_type = { "float", "base64", "binary", "ubinary" },
    },
    prepare = prepare,
    shape = shape,
    limits = limits,
    split = function(_, o) return not late(o) end,
  },
  embed_all = { -- ColBERT: a vector a token
    path = "/v1/multi-vector",
    rows = "input",
    fields = { model = "model", dimensions = "dimensions", input_type = "input_type" },
    options = { input_type = { "document", "query" } },
    fixed = { embedding_type = "float" },
    reply = { list = "data", index = "index", vectors = "embeddings" },
    limits = { inputs = 2048 },
  },
  rerank = {
    path = "/v1/rerank",
    query = "query",
    rows = "documents",
    items = common.objects("text", "image"),
    top_n = "top_n",
    fields = { model = "model", return_documents = "return_documents" },
    options = { return_documents = "boolean" },
    reply = { list = "results", index = "index", score = "relevance_score" },
    limits = { inputs = 2048 },
  },
}
