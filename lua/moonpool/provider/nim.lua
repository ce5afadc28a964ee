-- moonpool.provider.nim: NVIDIA NIM, one's own or hosted: OpenAI's embeddings that must be told what
-- the texts are, and a ranking whose scores are logits. A text that is too long is refused unless
-- truncate says otherwise.
local hosted = "https://integrate.api.nvidia.com"

-- Hosted rerankers have paths of their own, and dots in names of models are underscores there.
local function ranking(o, client)
  if not (client.base_url or hosted):find "api%.nvidia%.com" then
    return "/v1/ranking"
  end
  if not o.model then
    error("rerank: nim: model: missing", 0)
  end
  return ("/v1/retrieval/%s/reranking"):format((o.model:gsub("%.", "_")))
end

local truncate = { "NONE", "START", "END" }

return {
  name = "nim",
  base_url = hosted,
  key_env = { "NVIDIA_API_KEY", "NGC_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  embed = {
    path = "/v1/embeddings",
    rows = "input",
    fields = { model = "model", dimensions = "dimensions", input_type = "input_type", user = "user",
      truncate = "truncate", embedding_type = "embedding_type" },
    options = { input_type = { "query", "passage" }, truncate = truncate, embedding_type = { "float" } },
    fixed = { input_type = "passage" },
    encoding = "encoding_format",
    reply = { list = "data", vector = "embedding", index = "index" },
    limits = { inputs = 256 },
  },
  rerank = {
    elsewhere = function() return "https://ai.api.nvidia.com" end,
    path = ranking,
    query = "query.text",
    rows = "passages",
    wrap = { before = '"text":' },
    fields = { model = "model", truncate = "truncate" },
    options = { truncate = truncate },
    reply = { list = "rankings", index = "index", score = "logit" },
    limits = { inputs = 512 },
  },
}
