-- moonpool.provider.gemini: Google's Gemini API: each text is a request of its own inside one call, 100
-- at most; its errors say in their bodies when to come back. Vectors of fewer dimensions than the
-- model's own are not normalised.
local common = require "moonpool.provider.common"

local function model_of(o)
  if not o.model then
    error("embed: gemini: model: missing", 0)
  end
  return (o.model:gsub("^models/", ""))
end

return {
  name = "gemini",
  base_url = "https://generativelanguage.googleapis.com",
  key_env = { "GEMINI_API_KEY", "GOOGLE_API_KEY" },
  auth = { header = "x-goog-api-key", format = "%s" },
  bare = true,
  embed = {
    path = function(o) return ("/v1beta/models/%s:batchEmbedContents"):format(common.escape(model_of(o))) end,
    rows = "requests",
    wrap = {
      before = '"content":{"parts":[{"text":', after = "}]}",
      fields = { task_type = "taskType", title = "title", dimensions = "outputDimensionality" },
      items = { title = "title" },
    },
    options = {
      task_type = {
        "RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY", "CLASSIFICATION", "CLUSTERING",
        "QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY",
      },
      title = "text",
    },
    prepare = function(_, o, _, row) row.model = "models/" .. model_of(o) end,
    reply = { list = "embeddings", vector = "values", usage = "usageMetadata.promptTokenCount" },
    limits = { inputs = 100, text = { tokens = 2048 } },
  },
}
