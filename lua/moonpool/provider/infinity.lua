-- moonpool.provider.infinity: Infinity: OpenAI-like without a version in its paths, rerank and classify
-- besides.
local common = require "moonpool.provider.common"

return {
  name = "infinity",
  base_url = "http://127.0.0.1:7997",
  key_env = { "INFINITY_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/embeddings",
    rows = "input",
    items = common.tokens,
    fields = { model = "model", dimensions = "dimensions", user = "user", modality = "modality" },
    options = { modality = { "text", "image", "audio" } },
    encoding = "encoding_format",
    reply = { list = "data", vector = "embedding", index = "index" },
    limits = { inputs = 2048 },
  },
  rerank = {
    path = "/rerank",
    query = "query",
    rows = "documents",
    top_n = "top_n",
    fields = { model = "model", raw_scores = "raw_scores", return_documents = "return_documents" },
    options = { return_documents = "boolean" },
    reply = { list = "results", index = "index", score = "relevance_score" },
    limits = { inputs = 2048 },
  },
  classify = {
    path = "/classify",
    rows = "input",
    fields = { model = "model", raw_scores = "raw_scores" },
    reply = { list = "data", label = "label", score = "score" },
    limits = { inputs = 2048 },
  },
}
