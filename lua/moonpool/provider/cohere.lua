-- Cohere v2: vectors keyed by type and without an index, 96 texts a request.
return {
  name = "cohere",
  base_url = "https://api.cohere.com",
  key_env = { "COHERE_API_KEY", "CO_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/v2/embed",
    rows = "texts",
    fields = { model = "model", dimensions = "output_dimension", input_type = "input_type",
      truncate = "truncate", max_tokens = "max_tokens", priority = "priority" },
    options = { input_type = "string", truncate = "string", max_tokens = "number",
      priority = "number" },
    fixed = { embedding_types = { "float" }, input_type = "search_document" },
    reply = { list = "embeddings.float" },
    limits = { inputs = 96 },
  },
  rerank = {
    path = "/v2/rerank",
    query = "query",
    rows = "documents",
    top_n = "top_n",
    fields = { model = "model", max_tokens_per_doc = "max_tokens_per_doc", priority = "priority" },
    options = { max_tokens_per_doc = "number", priority = "number" },
    reply = { list = "results", index = "index", score = "relevance_score" },
    limits = { inputs = 1000 },
  },
}
