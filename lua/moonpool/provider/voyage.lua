-- moonpool.provider.voyage: Voyage AI: OpenAI-like, with types of vectors, and token limits that depend
-- on the model.
local common = require "moonpool.provider.common"

-- Tokens a request; what is not listed is taken for the least.
local LEAST = 120000
local tokens = {
  ["voyage-4-lite"] = 1000000, ["voyage-3.5-lite"] = 1000000,
  ["voyage-4"] = 320000, ["voyage-3.5"] = 320000, ["voyage-2"] = 320000,
}

local function limits(o)
  return { inputs = 1000, tokens = tokens[o.model] or LEAST }
end

-- The only encoding with a name is base64; numbers are what comes without one.
local function prepare(fields, o)
  local format = o.encoding_format
  fields.encoding_format = format ~= "float" and format ~= false and "base64" or nil
end

local function shape(_, o)
  return { list = "data", vector = "embedding", index = "index",
    dtype = common.dtypes[o.output_dtype or "float"] }
end

return {
  name = "voyage",
  base_url = "https://api.voyageai.com",
  key_env = { "VOYAGE_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/v1/embeddings",
    rows = "input",
    fields = { model = "model", dimensions = "output_dimension", input_type = "input_type",
      truncation = "truncation", output_dtype = "output_dtype" },
    options = {
      input_type = { "query", "document" }, truncation = "boolean",
      output_dtype = { "float", "int8", "uint8", "binary", "ubinary" },
    },
    prepare = prepare,
    shape = shape,
    limits = limits,
  },
  embed_groups = { -- contextualized chunks: a group is a document
    path = "/v1/contextualizedembeddings",
    rows = "inputs",
    fields = { model = "model", dimensions = "output_dimension", input_type = "input_type" },
    options = { input_type = { "query", "document" } },
    reply = { list = "data", index = "index", vectors = "data", places = "index", numbers = "embedding" },
    limits = { inputs = 1000, tokens = LEAST },
  },
  rerank = {
    path = "/v1/rerank",
    query = "query",
    rows = "documents",
    top_n = "top_k",
    fields = { model = "model", truncation = "truncation", return_documents = "return_documents" },
    options = { truncation = "boolean", return_documents = "boolean" },
    reply = { list = "data", index = "index", score = "relevance_score" },
    limits = { inputs = 1000 },
  },
}
