-- moonpool.provider.azure: Azure OpenAI: OpenAI's body under a path that names the deployment, the key
-- in a header of its own. api_version = "v1" is the newer surface without deployments in the path.
local common = require "moonpool.provider.common"
local options = require "moonpool.options"
local openai = require "moonpool.provider.openai"

local DEFAULT_VERSION = "2024-10-21"

local function version_of(client)
  return client.api_version or options.env "OPENAI_API_VERSION" or DEFAULT_VERSION
end

local function path(o, client)
  local version = version_of(client)
  if version == "v1" or version == "preview" then
    return "/openai/v1/embeddings?api-version=" .. version
  end
  local deployment = client.deployment or o.model
  if not deployment then
    error("embed: azure: a deployment (of the client) or a model is needed", 0)
  end
  return ("/openai/deployments/%s/embeddings?api-version=%s"):format(common.escape(deployment),
    common.escape(version))
end

local embed = {}
for name, value in pairs(openai.embed) do embed[name] = value end
embed.path = path

return {
  name = "azure",
  base_env = "AZURE_OPENAI_ENDPOINT",
  key_env = { "AZURE_OPENAI_API_KEY" },
  auth = {
    header = "api-key", format = "%s",
    schemes = { -- bearer: a token of Microsoft Entra, best given as a function
      ["api-key"] = { header = "api-key", format = "%s" },
      bearer = { header = "Authorization", format = "Bearer %s" },
    },
  },
  options = { deployment = "text", api_version = "text" },
  embed = embed,
}
