-- moonpool.provider: adapters: what differs from service to service, as data. The codec stays generic.
--
-- A provider is a table:
--   name, base_url, base_env                   where it lives; base = function(client options, given)
--                                              makes the base URL, or remakes a given one
--   key_env = {...}, key_check = function(key) where its key is looked for; what is wrong with it
--   auth = { header = "Authorization", format = "Bearer %s", schemes = {name = {header, format}} }
--   options = {name = kind}, defaults = {...}  options of the client that it adds; and presets
--   bare = true                                its paths have versions of their own: a "/v1" at the end
--                                              of a base URL is no part of it
--   sign = function(client options, secret) -> function(view, rewrite) -> headers, for each attempt
--   setup = function(client options)           another provider in its place; or nil, and perhaps what
--                                              is wrong with the options
--   embed = { path, rows = "input", style = "string" | "wrapped", fields = {option = json field},
--             options = {name = kind}, fixed = {json field = value}, encoding = json field or nil,
--             encoding_default = "base64", bytes = true: it can send vectors as bytes,
--             alone = true: one row a request, not in a list,
--             wrap = {before = json, after = json, fields = {option = json field},
--                    items = {name = json field}}: each row an object, of its text between these, of
--             fields that all rows have, and of what an input {text =, name =} has of its own,
--             frame = function(fields, members) -> prefix, suffix, tail: a body of another form; a
--             tail comes behind the number of the request's rows,
--             reply = {list, vector, index, dtype, layout, header, tokens, cut, dims, kind, usage,
--                      tokens_header}: see struct mp_vectors in moonpool.h,
--             limits = {inputs, tokens, bytes, chars, models = {name = limits}},
--             items = function(value) -> what is wrong with an input that is no text,
--             prepare = function(fields, options, client options, fields of each row),
--             shape = function(fields, options, client options) -> reply,
--             split = false: all inputs in one request, or function(fields, options) -> boolean }
--   rerank, classify likewise, with query, top_n; replies described by {list, index,
--             score, text, label}; without index by place; map: the path of {label = score}; probs: the
--             numbers of all labels, of which `label` names the best
--   variant = function(model, client options) -> another description, where models differ in all;
--   elsewhere = function(client options) -> the base URL of rerank, where it lives at another address
--   learn = function(request, options) -> what must be known of a model, once: options.learnt of prepare
--   embed_all, embed_sparse likewise: a reply's {list, index}, vectors = the path of an item's vectors;
--             of sparse ones form = "pairs" or "arrays", places, numbers: their names
--   JSON fields may be dotted: "parameters.dimension".
--   discover = function(request) -> limits that the server tells; {} if it tells none, nil if it is
--             not there
--   error = function(err, body as a value)     completes an error with what its body says
--   methods = {name = function(client, ...)}   more methods of the client
-- A kind is "string", "number", "boolean", "table", "any", a list of allowed values, or a function
-- (value) -> what is wrong. A path may be a function (options, client options), limits a function
-- (options). See lua/docs/providers.md for writing your own.
local options = require "moonpool.options"
local R = options.rule

local M = {}

local builtin = {
  "openai", "azure", "tei", "cohere", "voyage", "jina", "baseten", "bayt", "gemini", "ollama", "vertex",
  "bedrock", "huggingface", "mistral", "nim", "cloudflare", "pinecone", "kserve", "vllm", "llamacpp",
  "infinity", "nomic",
}

local kinds = {
  path = R.either(R.string, R.func), rows = R.string, style = R.one_of("string", "wrapped"),
  fields = R.table, fixed = R.table, encoding = R.string, reply = R.table, items = R.func,
  limits = R.either(R.table, R.func), split = R.either(R.boolean, R.func), query = R.string,
  top_n = R.string, shape = R.func, options = R.table, prepare = R.func, pairs = R.boolean,
  wrap = R.table, alone = R.boolean, frame = R.func, bytes = R.boolean, encoding_default = R.string,
  variant = R.func, elsewhere = R.func, learn = R.func,
}

local wrap_kinds = { before = R.string, after = R.string, fields = R.table, items = R.table }

local rules = {
  name = R.string, base_url = R.string, key_env = R.table, auth = R.either(R.off, R.table),
  embed = R.table, rerank = R.table, classify = R.table, embed_all = R.table, embed_sparse = R.table,
  embed_groups = R.table,
  methods = R.table, discover = R.func,
  headers = R.table, request_id_header = R.string, options = R.table, base_env = R.string,
  deadline_headers = R.boolean, key_check = R.func, error = R.func, defaults = R.table,
  base = R.func, setup = R.func, own_paths = R.func, bare = R.boolean, sign = R.func,
}

local function check(p, level)
  options.check("provider", p, rules, level + 1)
  if type(p.name) ~= "string" then
    error("provider: name: string expected", level + 1)
  end
  for _, call in ipairs { "embed", "rerank", "classify", "embed_all", "embed_sparse", "embed_groups" } do
    if p[call] then
      options.check("provider." .. call, p[call], kinds, level + 1)
      if p[call].wrap then
        options.check("provider." .. call .. ".wrap", p[call].wrap, wrap_kinds, level + 1)
      end
    end
  end
  return p
end

--- The provider of that name, or the table itself, checked.
function M.get(which, level)
  level = (level or 1) + 1
  if which == nil then
    which = "openai"
  end
  if type(which) == "table" then
    return check(which, level)
  end
  if type(which) ~= "string" then
    error("provider: name or table expected, got a " .. type(which), level)
  end
  for _, name in ipairs(builtin) do
    if name == which then
      return require("moonpool.provider." .. name)
    end
  end
  local known = {}
  for _, name in ipairs(builtin) do known[name] = true end
  local near = options.nearest(which, known)
  error(("provider: unknown provider '%s'%s; known: %s"):format(options.masked(which),
    near and (" (did you mean '%s'?)"):format(near) or "", table.concat(builtin, " ")), level)
end

M.names = builtin

--- verify_webhook(body, header, secrets, {tolerance = 300}): is this request to our webhook from
--- Baseten? true and the payload, or nil, err.
function M.verify_webhook(...)
  return require("moonpool.provider.webhook").verify(...)
end

--- Whether vectors of two models may be compared: true; or false and why not.
function M.same_space(a, b)
  return require("moonpool.provider.families").same_space(a, b)
end

return M
