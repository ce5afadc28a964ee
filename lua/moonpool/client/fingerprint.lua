-- moonpool.client.fingerprint: client:fingerprint: is this still the model that it was? Fixed texts are
-- embedded and held against what they were before: services change models under one name.
local client = require "moonpool.client.client"
local matrix = require "moonpool.matrix"

local VERSION = 1
local SAME = 0.999 -- cosine; what rounding and other hardware change stays far above it

-- Of different kinds, so that a change that spares one shows in another. They may never change.
local texts = {
  "The quick brown fox jumps over the lazy dog.",
  "Die Würde des Menschen ist unantastbar.",
  "SELECT name, count(*) FROM orders GROUP BY name HAVING count(*) > 3;",
  "机器学习模型把文本变成向量。",
  "invoice 2024-03-17: 3 pieces at 19.99 EUR, VAT 20 %",
}

-- The options of embed that the caller gives, and the model of what it compares with.
local function options_of(opts)
  local o = {}
  for name, value in pairs(opts) do o[name] = value end
  o.like = nil
  o.input = texts
  if opts.like then
    o.model = o.model or opts.like.model
    o.dimensions = o.dimensions or opts.like.dimensions_asked
  end
  return o
end

local function check_like(like)
  if type(like) ~= "table" or like.version ~= VERSION or type(like.vectors) ~= "table"
    or #like.vectors ~= #texts then
    error("fingerprint: like: what an earlier fingerprint returned is expected", 3)
  end
end

local function cosine(a, b)
  local m = matrix.from { a, b }
  m:normalize()
  return m:row(1):dot(m:row(2))
end

-- The least alike of the texts speaks for the model.
local function compare(now, like)
  if now.dimensions ~= like.dimensions then
    return { cosine = 0, same = false, dimensions = now.dimensions, was = like.dimensions }
  end
  local least = 1
  for i = 1, #texts do least = math.min(least, cosine(now.vectors[i], like.vectors[i])) end
  return { cosine = least, same = least >= SAME, dimensions = now.dimensions, was = like.dimensions }
end

--- fingerprint {model =, ...}: a table to keep, which JSON can hold. {model =, like = earlier}:
--- {cosine =, same =, dimensions =, was =}. Other options are those of embed. nil, err where a text has
--- no vector.
function client.methods.fingerprint(self, opts)
  opts = opts or {}
  if type(opts) ~= "table" then
    error("fingerprint: a table of options is expected", 2)
  end
  local state = client.state(self)
  if opts.like then
    check_like(opts.like)
  end
  local o = options_of(opts)
  local res, err = self:embed(o)
  if not res then
    return nil, err
  end
  if not res.ok then
    return nil, res.errors[1].error
  end
  local now = {
    version = VERSION, provider = state.provider.name, model = o.model or state.options.model,
    dimensions = res.matrix:cols(), dimensions_asked = o.dimensions, vectors = res.matrix:totable(),
  }
  if opts.like then
    return compare(now, opts.like)
  end
  return now
end
