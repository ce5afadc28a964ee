-- moonpool.provider.vllm: vLLM: OpenAI's route with more to say, among it vectors as bytes whose places
-- stand in a header; rerank and classify of its own. Older servers refuse bytes and are asked for
-- base64 then.
local common = require "moonpool.provider.common"

local HEADER = 400 -- inputs whose places still fit in the header that curl takes

local function limits(o)
  return { inputs = o.encoding_format == "bytes" and HEADER or 2048 }
end

-- Beside /v1, also where the base URL ends with it.
local function beside(path)
  return function(_, client)
    return ((client.base_url or ""):find "/v1/*$" and "/.." or "") .. path
  end
end

return {
  name = "vllm",
  base_url = "http://127.0.0.1:8000",
  base_env = "VLLM_BASE_URL",
  key_env = { "VLLM_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/v1/embeddings",
    rows = "input",
    items = common.tokens,
    fields = { model = "model", dimensions = "dimensions", user = "user", priority = "priority",
      truncate_prompt_tokens = "truncate_prompt_tokens", add_special_tokens = "add_special_tokens",
      normalize = "normalize" },
    options = { truncate_prompt_tokens = "any", add_special_tokens = "boolean", priority = "any",
      normalize = "boolean" },
    encoding = "encoding_format",
    bytes = true,
    prepare = function(fields)
      if fields.encoding_format ~= "bytes" then
        return
      end
      fields.embed_dtype, fields.endianness = fields.embed_dtype or "float32", fields.endianness or "little"
    end,
    reply = { list = "data", vector = "embedding", index = "index", layout = "packed", header = "metadata" },
    limits = limits,
  },
  embed_all = { -- what the model's pooler gives, a vector a token
    path = beside "/pooling",
    rows = "input",
    fields = { model = "model", dimensions = "dimensions",
      truncate_prompt_tokens = "truncate_prompt_tokens" },
    options = { truncate_prompt_tokens = "any" },
    fixed = { encoding_format = "float" },
    reply = { list = "data", index = "index", vectors = "data" },
    limits = { inputs = 2048 },
  },
  rerank = {
    path = "/v1/rerank",
    query = "query",
    rows = "documents",
    top_n = "top_n",
    fields = { model = "model", truncate_prompt_tokens = "truncate_prompt_tokens" },
    options = { truncate_prompt_tokens = "any" },
    reply = { list = "results", index = "index", score = "relevance_score" },
  },
  classify = {
    path = beside "/classify",
    rows = "input",
    fields = { model = "model", truncate_prompt_tokens = "truncate_prompt_tokens" },
    options = { truncate_prompt_tokens = "any" },
    reply = { list = "data", label = "label", probs = "probs" },
  },
}
