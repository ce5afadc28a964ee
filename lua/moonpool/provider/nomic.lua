-- moonpool.provider.nomic: Nomic Atlas.
return {
  name = "nomic",
  base_url = "https://api-atlas.nomic.ai",
  key_env = { "NOMIC_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/v1/embedding/text",
    rows = "texts",
    fields = { model = "model", task_type = "task_type", dimensions = "dimensionality",
      long_text_mode = "long_text_mode", max_tokens = "max_tokens_per_text" },
    options = {
      task_type = { "search_document", "search_query", "classification", "clustering" },
      long_text_mode = { "truncate", "mean" }, max_tokens = "count",
    },
    fixed = { task_type = "search_document" },
    reply = { list = "embeddings" },
    limits = { inputs = 50 },
  },
}
