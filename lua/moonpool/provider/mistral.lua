-- moonpool.provider.mistral: Mistral AI: OpenAI-like, with dimensions and types of its own names;
-- classify is its moderation.
local common = require "moonpool.provider.common"

return {
  name = "mistral",
  base_url = "https://api.mistral.ai",
  key_env = { "MISTRAL_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/v1/embeddings",
    rows = "input",
    fields = { model = "model", dimensions = "output_dimension", output_dtype = "output_dtype" },
    options = { output_dtype = { "float", "int8", "uint8", "binary", "ubinary" } },
    encoding = "encoding_format",
    shape = function(_, o)
      return { list = "data", vector = "embedding", index = "index",
        dtype = common.dtypes[o.output_dtype or "float"] }
    end,
    limits = { inputs = 256, tokens = 16384 },
  },
  classify = {
    path = "/v1/moderations",
    rows = "input",
    fields = { model = "model" },
    reply = { list = "results", map = "category_scores" },
    limits = { inputs = 256, tokens = 16384 },
  },
}
