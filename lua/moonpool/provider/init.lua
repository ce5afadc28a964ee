-- provider - adapters: what differs from service to service, as data. The codec stays generic.
--
-- A provider is a table:
--   name, base_url, key_env = {...}            where it lives and where its key is looked for
--   auth = { header = "Authorization", format = "Bearer %s" }
--   embed = { path, rows = "input", style = "string" | "wrapped", fields = {option = json field},
--             fixed = {json field = value}, encoding = "base64" or nil, reply = {list, vector, index},
--             limits = {inputs, tokens, bytes, chars}, split = true }
--   rerank, classify likewise; replies described by {list, index, score, text, label}
-- A path may be a function (options, client options). See lua/README.md for writing your own.
local options = require "moonpool.options"
local R = options.rule

local M = {}

local builtin = { "openai", "azure", "tei", "cohere", "voyage", "jina", "baseten", "bayt" }

local kinds = {
  path = R.either(R.string, R.func), rows = R.string, style = R.one_of("string", "wrapped"),
  fields = R.table, fixed = R.table, encoding = R.string, encodings = R.table, reply = R.table,
  limits = R.table, split = R.boolean, query = R.string, top_n = R.string, shape = R.func,
  options = R.table, prepare = R.func, pairs = R.boolean,
}

local rules = {
  name = R.string, base_url = R.string, key_env = R.table, auth = R.either(R.off, R.table),
  embed = R.table, rerank = R.table, classify = R.table, methods = R.table, discover = R.func,
  headers = R.table, request_id_header = R.string, options = R.table, base_env = R.string,
  deadline_headers = R.boolean, key_check = R.func, error = R.func, timeouts = R.table,
  http_version = R.any, base = R.func,
}

local function check(p, level)
  options.check("provider", p, rules, level + 1)
  if type(p.name) ~= "string" then error("provider: name: string expected", level + 1) end
  for _, call in ipairs { "embed", "rerank", "classify" } do
    if p[call] then options.check("provider." .. call, p[call], kinds, level + 1) end
  end
  return p
end

--- The provider of that name, or the table itself, checked.
function M.get(which, level)
  level = (level or 1) + 1
  if which == nil then which = "openai" end
  if type(which) == "table" then return check(which, level) end
  if type(which) ~= "string" then
    error("provider: name or table expected, got a " .. type(which), level)
  end
  for _, name in ipairs(builtin) do
    if name == which then return require("moonpool.provider." .. name) end
  end
  local known = {}
  for _, name in ipairs(builtin) do known[name] = true end
  local near = options.nearest(which, known)
  error(("provider: unknown provider '%s'%s; known: %s"):format(which,
    near and (" (did you mean '%s'?)"):format(near) or "", table.concat(builtin, " ")), level)
end

M.names = builtin

return M
