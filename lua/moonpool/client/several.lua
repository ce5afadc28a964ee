-- moonpool.client.several: client:embed_all, a vector for each token of a text, and client:embed_sparse:
-- split like embed, the rows in one ragged matrix.
local bodies = require "moonpool.client.body"
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local core = require "moonpool.core"
local options = require "moonpool.options"
local ranking = require "moonpool.client.ranking"
require "moonpool.ragged"
local R = options.rule

local rules = call.rules { input = R.either(R.string, R.table), dimensions = R.count }

local meta = { __name = "moonpool.several" }

function meta.__index(res, name)
  if math.type(name) == "integer" then
    local ragged = rawget(res, "ragged")
    return name >= 1 and name <= #ragged and ragged:row(name) or nil
  end
  return ranking.lazy(res, name)
end

function meta.__len(res) return #res.ragged end

local function texts_of(input, where, level)
  if type(input) == "string" then
    input = { input }
  end
  if type(input) ~= "table" or #input == 0 then
    error(where .. ": input: a text or a list of texts is needed", level + 1)
  end
  return input
end

local function embed_several(self, where, opts, level)
  level = level + 1
  local state, desc = ranking.describe(self, where, level)
  options.check(where, opts, call.with_provider(rules, desc), level, call.secrets)
  local texts = texts_of(opts.input, where, level)
  local limits = call.limits(state, self, desc, ranking.with_model(state, opts))
  local spec, o = call.spec(state, opts, limits, where, level)
  o = ranking.with_model(state, o)
  spec.path = call.path(desc, o, state)
  bodies.make(spec, desc, texts, o, state.options, nil, where .. ": input", level)
  local build = core.ragged_build(#texts)
  local res, err = ranking.collect(state, spec, function(body, first, count)
    local ok, why = core.ragged_read(build, body, first, count, desc.reply)
    if not ok then
      return nil, call.error("decode", why)
    end
    return ranking.usage_of(body)
  end)
  if not res then
    return nil, err
  end
  res.ragged = core.ragged_done(build)
  return setmetatable(res, meta)
end

--- embed_all {input =, model =, ...} -> res.ragged, res[i] a matrix of row i's vectors.
function client.methods.embed_all(self, opts)
  return embed_several(self, "embed_all", opts, 2)
end

--- embed_sparse {input =, model =, ...} -> res.ragged, res[i] = {indices =, values =}.
function client.methods.embed_sparse(self, opts)
  return embed_several(self, "embed_sparse", opts, 2)
end
