-- moonpool.provider.openai: OpenAI and everything that speaks its /v1/embeddings. base64 is asked for:
-- it is 2.6 times smaller than decimal text and ten times cheaper to decode; float is accepted all the
-- same.
local common = require "moonpool.provider.common"

return {
  name = "openai",
  base_url = "https://api.openai.com",
  base_env = "OPENAI_BASE_URL",
  key_env = { "OPENAI_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/v1/embeddings",
    rows = "input",
    items = common.tokens,
    fields = { model = "model", dimensions = "dimensions", user = "user" },
    encoding = "encoding_format",
    reply = { list = "data", vector = "embedding", index = "index" },
    limits = { inputs = 2048, tokens = 300000, text = { tokens = 8191 } },
  },
  -- Servers that add the common routes beside /v1/embeddings (BEI, TEI, Infinity).
  rerank = {
    path = "/rerank",
    query = "query",
    rows = "texts",
    fields = { model = "model", raw_scores = "raw_scores", return_text = "return_text",
      truncate = "truncate", truncation_direction = "truncation_direction" },
    reply = { list = "", index = "index", score = "score", text = "text" },
  },
  classify = {
    path = "/predict",
    rows = "inputs",
    style = "wrapped",
    pairs = true,
    fields = { model = "model", raw_scores = "raw_scores", truncate = "truncate",
      truncation_direction = "truncation_direction" },
    reply = { list = "", label = "label", score = "score" },
  },
}
