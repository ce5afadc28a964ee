-- Hugging Face text-embeddings-inference (and BEI): native routes, limits learnt from /info.
local openai = require "moonpool.provider.openai"

return {
  name = "tei",
  base_url = "http://127.0.0.1:8080",
  key_env = { "TEI_API_KEY", "HF_TOKEN" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/embed",
    rows = "inputs",
    fields = { normalize = "normalize", truncate = "truncate", dimensions = "dimensions",
      truncation_direction = "truncation_direction", prompt_name = "prompt_name" },
    options = { normalize = "boolean", truncate = "boolean", truncation_direction = "string",
      prompt_name = "string" },
    reply = { list = "" },
    limits = { inputs = 32, bytes = 2000000 },
  },
  rerank = openai.rerank,
  classify = openai.classify,

  -- max_client_batch_size is the server's start-up option; 32 is only its default. (info) -> limits
  discover = function(request)
    local res = request { method = "GET", path = "/info" }
    local info = res and res.data
    if type(info) == "table" and math.type(info.max_client_batch_size) == "integer"
      and info.max_client_batch_size > 0 then
      return { inputs = info.max_client_batch_size }
    end
  end,
}
