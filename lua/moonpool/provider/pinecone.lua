-- moonpool.provider.pinecone: Pinecone's inference: each input an object, what is asked of the model
-- under "parameters".
local truncate = { "END", "NONE" }

return {
  name = "pinecone",
  base_url = "https://api.pinecone.io",
  bare = true,
  key_env = { "PINECONE_API_KEY" },
  auth = { header = "Api-Key", format = "%s" },
  headers = { ["X-Pinecone-API-Version"] = "2025-10" },
  embed = {
    path = "/embed",
    rows = "inputs",
    wrap = { before = '"text":' },
    fields = { model = "model", input_type = "parameters.input_type", truncate = "parameters.truncate",
      dimensions = "parameters.dimension" },
    options = { input_type = { "query", "passage" }, truncate = truncate },
    fixed = { ["parameters.input_type"] = "passage" },
    reply = { list = "data", vector = "values" },
    limits = { inputs = 96 },
  },
  embed_sparse = {
    path = "/embed",
    rows = "inputs",
    wrap = { before = '"text":' },
    fields = { model = "model", input_type = "parameters.input_type", truncate = "parameters.truncate" },
    options = { input_type = { "query", "passage" }, truncate = truncate },
    fixed = { ["parameters.input_type"] = "passage" },
    reply = { list = "data", form = "arrays", places = "sparse_indices", numbers = "sparse_values" },
    limits = { inputs = 96 },
  },
  rerank = {
    path = "/rerank",
    rows = "documents",
    wrap = { before = '"text":' },
    query = "query",
    top_n = "top_n",
    fields = { model = "model", return_documents = "return_documents", truncate = "parameters.truncate" },
    options = { return_documents = "boolean", truncate = truncate },
    fixed = { return_documents = false },
    reply = { list = "data", index = "index", score = "score" },
    limits = { inputs = 100, models = { ["cohere-rerank-3.5"] = { inputs = 200 } } },
  },
}
