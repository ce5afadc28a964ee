-- moonpool.provider.vertex: Google's Vertex AI: a project and a place in the path, a token of OAuth as
-- the key (a function is asked at each call, since tokens last an hour). Each model has its own limits;
-- gemini-embedding takes one text.
local common = require "moonpool.provider.common"
local options = require "moonpool.options"

local function place(client)
  return client.location or options.env "GOOGLE_CLOUD_LOCATION" or options.env "GOOGLE_CLOUD_REGION"
    or "us-central1"
end

local function project(client)
  return client.project or options.env "GOOGLE_CLOUD_PROJECT" or options.env "GOOGLE_PROJECT_ID"
end

local function base(client)
  local at = place(client)
  return ("https://%saiplatform.googleapis.com"):format(at == "global" and "" or at .. "-")
end

local function path(o, client)
  if not o.model then
    error("embed: vertex: model: missing", 0)
  end
  return ("/v1/projects/%s/locations/%s/publishers/google/models/%s:predict"):format(
    common.escape(project(client)), common.escape(place(client)), common.escape(o.model))
end

return {
  name = "vertex",
  base = function(client) return client.base_url or base(client) end,
  bare = true,
  setup = function(client)
    if not project(client) then
      return nil, "project: missing (or GOOGLE_CLOUD_PROJECT in the environment)"
    end
    if not place(client):find "^[%w-]+$" then
      return nil, "location: letters, digits and '-' expected"
    end
  end,
  key_env = { "VERTEX_ACCESS_TOKEN", "GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN" },
  auth = { header = "Authorization", format = "Bearer %s" },
  options = { project = "text", location = "text" },
  embed = {
    path = path,
    rows = "instances",
    wrap = {
      before = '"content":',
      fields = { task_type = "task_type", title = "title" },
      items = { title = "title", task_type = "task_type" },
    },
    fields = { auto_truncate = "parameters.autoTruncate", dimensions = "parameters.outputDimensionality" },
    options = {
      task_type = {
        "RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY", "CLASSIFICATION", "CLUSTERING",
        "QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY",
      },
      title = "text", auto_truncate = "boolean",
    },
    reply = {
      list = "predictions", vector = "embeddings.values",
      tokens = "embeddings.statistics.token_count", cut = "embeddings.statistics.truncated",
    },
    limits = {
      inputs = 250, tokens = 20000, text = { tokens = 2048 },
      models = { ["gemini-embedding-001"] = { inputs = 1 } },
    },
  },
}
