-- moonpool.client.several: client:embed_all, a vector for each token of a text, and
-- client:embed_sparse: split like embed, the rows in one ragged matrix.
local bodies = require "moonpool.client.body"
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local core = require "moonpool.core"
local json = require "moonpool.json"
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

-- Groups of texts as JSON rows: what is one row is never split.
local function groups_of(input, where, level)
  if type(input) ~= "table" or #input == 0 then
    error(where .. ": input: a list of lists of texts is needed", level + 1)
  end
  local rows, sizes = {}, {}
  for i, group in ipairs(input) do
    local fine = type(group) == "table" and #group > 0
    for _, text in ipairs(fine and group or {}) do
      fine = fine and type(text) == "string"
    end
    local row = fine and json.encode(group)
    if not row then
      error(("%s: input[%d]: a list of texts is needed"):format(where, i), level + 1)
    end
    rows[i], sizes[i] = row, #group
  end
  return rows, sizes
end

-- A reply for groups of a size each: nil, or which row has another number of vectors.
local function wrong_size(ragged, sizes)
  local wrong
  for i, size in ipairs(sizes) do
    local n = ragged:count(i)
    if n ~= size and n > 0 then
      wrong = wrong or {}
      wrong[#wrong + 1] = { index = i, error = call.error("decode",
        ("the group has %d vectors, %d texts were sent"):format(n, size)) }
    end
  end
  return wrong
end

local function embed_several(self, where, opts, level)
  level = level + 1
  local state, desc = ranking.describe(self, where, level)
  options.check(where, opts, call.with_provider(rules, desc), level, call.secrets)
  local texts, sizes
  if where == "embed_groups" then
    texts, sizes = groups_of(opts.input, where, level)
  else
    texts = texts_of(opts.input, where, level)
  end
  local limits = call.limits(state, self, desc, ranking.with_model(state, opts))
  local spec, o = call.spec(state, opts, limits, where, level)
  o = ranking.with_model(state, o)
  spec.path = call.path(desc, o, state)
  bodies.make(spec, desc, texts, o, state.options, nil, where .. ": input", level)
  if sizes then
    spec.row_style = "json"
  end
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
  local wrong = sizes and wrong_size(res.ragged, sizes)
  if wrong then
    return nil, wrong[1].error
  end
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

--- embed_groups {input = {{text, ...}, ...}, model =, ...}: the texts of a group are embedded in each
--- other's context and stay in one request. res.ragged, res[i] a matrix of group i's vectors.
function client.methods.embed_groups(self, opts)
  return embed_several(self, "embed_groups", opts, 2)
end
