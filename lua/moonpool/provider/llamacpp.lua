-- moonpool.provider.llamacpp: llama.cpp's server: OpenAI's route and rerank. A text over its physical
-- batch is refused, with the numbers in the error's words.
local common = require "moonpool.provider.common"

return {
  name = "llamacpp",
  base_url = "http://127.0.0.1:8080",
  key_env = { "LLAMA_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/v1/embeddings",
    rows = "input",
    items = common.tokens,
    fields = { model = "model", normalize = "embd_normalize" },
    options = { normalize = function(v)
      if math.type(v) ~= "integer" or v < -1 then
        return "a norm is expected: -1 none, 0 max, 1, 2 Euclid"
      end
    end },
    encoding = "encoding_format",
    reply = { list = "data", vector = "embedding", index = "index" },
  },
  rerank = {
    path = "/v1/rerank",
    query = "query",
    rows = "documents",
    top_n = "top_n",
    fields = { model = "model" },
    reply = { list = "results", index = "index", score = "relevance_score" },
  },
}
