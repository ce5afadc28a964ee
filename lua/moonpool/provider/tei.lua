-- moonpool.provider.tei: Hugging Face text-embeddings-inference (and BEI): native routes, limits learnt
-- from /info. With api = "openai" the same server is asked by /v1/embeddings, whose base64 is cheaper
-- to read.
local openai = require "moonpool.provider.openai"

-- 32 inputs are only the default of the server's --max-client-batch-size, which counts for all routes.
local limits = { inputs = 32, bytes = 2000000 }

local function limited(call, options)
  local all = {}
  for name, value in pairs(call) do all[name] = value end
  all.limits = limits
  all.options = options
  return all
end

-- (GET /info) -> limits
local function discover(request)
  local res, err = request { method = "GET", path = "/info" }
  if not res then
    return err.status and {} or nil -- an answer, if not ours: a proxy may hide the route
  end
  local info = res.data
  local inputs = type(info) == "table" and math.tointeger(info.max_client_batch_size)
  local longest = type(info) == "table" and math.tointeger(info.max_input_length)
  return {
    inputs = inputs and inputs > 0 and inputs or nil,
    text = longest and longest > 0 and { tokens = longest } or nil,
  }
end

local function error_of(err, doc)
  if type(doc.error_type) == "string" then
    err.code = doc.error_type
  end
end

local texts = {
  truncate = "truncate", truncation_direction = "truncation_direction", prompt_name = "prompt_name",
}
local text_options = {
  truncate = "boolean", truncation_direction = { "Left", "Right" }, prompt_name = "string",
}

local tei = {
  name = "tei",
  base_url = "http://127.0.0.1:8080",
  key_env = { "TEI_API_KEY", "HF_TOKEN" },
  auth = { header = "Authorization", format = "Bearer %s" },
  options = { api = { "native", "openai" } },
  embed = {
    path = "/embed",
    rows = "inputs",
    fields = { normalize = "normalize", truncate = "truncate", dimensions = "dimensions",
      truncation_direction = "truncation_direction", prompt_name = "prompt_name" },
    options = { normalize = "boolean", truncate = "boolean", truncation_direction = { "Left", "Right" },
      prompt_name = "string" },
    reply = { list = "" },
    limits = limits,
  },
  embed_all = {
    path = "/embed_all", rows = "inputs", fields = texts, options = text_options, reply = { list = "" },
    limits = limits,
  },
  embed_sparse = {
    path = "/embed_sparse", rows = "inputs", fields = texts, options = text_options,
    reply = { list = "", form = "pairs", places = "index", numbers = "value" }, limits = limits,
  },
  rerank = limited(openai.rerank),
  classify = limited(openai.classify),
  discover = discover,
  error = error_of,
  methods = {
    --- The server's /info as a table, or nil, err.
    info = function(self)
      local res, err = self:request { method = "GET", path = "/info" }
      return res and res.data, err
    end,
  },
}

local by_openai = {}
for name, value in pairs(tei) do by_openai[name] = value end
by_openai.embed = limited(openai.embed)

function tei.setup(options)
  return options.api == "openai" and by_openai or nil
end

return tei
