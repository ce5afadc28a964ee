-- moonpool.provider.ollama: Ollama's own route. The first call of a model loads it, which takes long:
-- it is waited for, and no copy is sent beside it. Texts that are too long are cut unless truncate =
-- false.
local options = require "moonpool.options"

local function base(o)
  local host = o.base_url or options.env "OLLAMA_HOST"
  if not host or host == "" then
    return "http://127.0.0.1:11434"
  end
  if not host:find "^%a+://" and not host:find "^unix:" then
    host = "http://" .. host
  end
  host = host:gsub("^(%a+://)0%.0%.0%.0", "%1127.0.0.1")
  if host:find "^http://[^/:]+/?$" then
    host = host:gsub("/?$", ":11434", 1)
  end
  return host
end

return {
  name = "ollama",
  base = base,
  bare = true,
  key_env = { "OLLAMA_API_KEY" },
  auth = { header = "Authorization", format = "Bearer %s" },
  defaults = { hedge = false, timeout = { read = 300 } },
  embed = {
    path = "/api/embed",
    rows = "input",
    fields = { model = "model", truncate = "truncate", dimensions = "dimensions",
      keep_alive = "keep_alive", model_options = "options" },
    options = { truncate = "boolean", keep_alive = "any", model_options = "table" },
    reply = { list = "embeddings", usage = "prompt_eval_count" },
  },
}
