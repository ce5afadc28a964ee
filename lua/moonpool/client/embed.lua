-- moonpool.client.embed: client:embed and its result.
local bodies = require "moonpool.client.body"
local core = require "moonpool.core"
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local long = require "moonpool.client.long"
local options = require "moonpool.options"
local R = options.rule

local M = {}

local rules = call.rules {
  input = R.either(R.string, R.table),
  dimensions = function(v)
    if math.type(v) ~= "integer" or v < 1 or v > 1000000 then
      return "must be a whole number from 1 to 1,000,000"
    end
  end,
  trust = R.boolean,
  encoding_format = R.either(R.off, R.one_of("float", "base64", "bytes")),
  user = function(v)
    if type(v) ~= "string" then
      return "string expected"
    end
    if #v > 1000 then
      return "must not be longer than 1000 bytes"
    end
  end,
}

for name, rule in pairs(long.rules) do rules[name] = rule end

-- ---- result -------------------------------------------------------------------------------------------

local lazy = {}

function lazy.requests(res)
  return call.requests(res._raw, res._info)
end

function lazy.individual_request_times(res)
  local t = {}
  for k, r in ipairs(res.requests) do t[k] = r.time end
  return t
end

lazy.individual_batch_request_times = lazy.individual_request_times -- the name in a seed's README

function lazy.response_headers(res)
  local t = {}
  for k, r in ipairs(res.requests) do t[k] = r.headers end
  return t
end

-- The seeds' list of {index, embedding, object}; indices count from 1, as everywhere in Lua.
function lazy.data(res)
  local t = {}
  for i = 1, res._info.rows do
    t[i] = { object = "embedding", index = i, embedding = res[i] and res[i]:totable() }
  end
  return t
end

function lazy.object() return "list" end

local meta = { __name = "moonpool.embeddings" }

function meta.__index(res, name)
  if math.type(name) == "integer" then
    local m = rawget(res, "matrix")
    if m and name >= 1 and name <= #m then
      return m:row(name)
    end
    return nil
  end
  local make = lazy[name]
  if not make then
    return nil
  end
  local value = make(res)
  rawset(res, name, value)
  return value
end

function meta.__len(res) return res._info.rows end

function meta.__tostring(res)
  return ("embeddings: %d rows x %d, %d failed"):format(res._info.rows, res._info.dimensions, #res.errors)
end

-- A batcher's matrix is shared by everybody in the same request.
local function own_rows(matrix, info)
  if not matrix or #matrix == info.rows and info.first_row == 1 then
    return matrix
  end
  return core.matrix_cut(matrix, info.first_row, info.rows, matrix:cols())
end

function M.result(state, r)
  local info = call.info(state, r)
  local errors, first = {}, nil
  if info.rows_ok < info.rows then
    errors, first = call.errors(state, r, info)
  end
  local res = setmetatable({
    ok = #errors == 0, errors = errors, matrix = own_rows(core.result_matrix(r), info), model = info.model,
    total_time = info.total_time, rows_cut = info.rows_cut, _raw = r, _info = info,
  }, meta)
  if info.prompt_tokens or info.total_tokens then
    res.usage = {
      prompt_tokens = info.prompt_tokens or info.total_tokens,
      total_tokens = info.total_tokens or info.prompt_tokens,
    }
  end
  if info.rows_ok == 0 or info.kind == "cancelled" or info.kind == "closed" then
    return call.failure(info, errors, first, info.rows_ok > 0 and res or nil)
  end
  return res
end

-- ---- call ----------------------------------------------------------------------------------------------

local function texts_of(input, level)
  if type(input) == "string" then
    return { input }
  end
  if type(input) ~= "table" then
    error("embed: input: a string or a list of strings is needed", level + 1)
  end
  if #input == 0 then
    error("embed: input: must not be empty", level + 1)
  end
  -- one input of token ids
  if type(input[1]) == "number" then
    return { input }
  end
  return input
end

-- Inputs that must stay together and are too many: refused, for splitting would change the vectors.
local function check_whole(rows, limits, where)
  if limits.inputs and #rows > limits.inputs then
    return call.error("too_large", ("%s: %d inputs must stay in one request, which takes %d")
      :format(where, #rows, limits.inputs))
  end
  local bytes = 0
  for i = 1, #rows do bytes = bytes + #rows[i] end
  -- A token has 4 bytes on average; at 8 it is beyond doubt too much, the rest the server decides.
  if limits.tokens and bytes > 8 * limits.tokens then
    return call.error("too_large", ("%s: %d bytes of input must stay in one request of %d tokens")
      :format(where, bytes, limits.tokens))
  end
end

--- Raises for options that no embed call can take; returns the provider's description.
function M.check(self, opts, where, level)
  level = (level or 2) + 1
  local prov = client.state(self, level).provider
  if not prov.embed then
    error(("%s: provider '%s' has no embed call"):format(where, prov.name), level)
  end
  options.check(where, opts, call.with_provider(rules, prov.embed), level, call.secrets)
  return prov.embed
end

-- What is asked for, by a field of the body; false: the service decides. Bytes only of who has them.
local function encoding_of(state, desc, o, where, level)
  local format = o.encoding_format
  if format == nil then
    format = desc.encoding_default or "base64"
  end
  if format == "bytes" and not desc.bytes then
    error(("%s: encoding_format: provider '%s' sends no bytes"):format(where, state.provider.name), level + 1)
  end
  if format == "bytes" and state.no_bytes then
    format = "base64"
  end
  return format
end

-- A length that the service cannot be asked for would only fail every row.
local function check_dimensions(state, desc, opts, level)
  local of_rows = desc.wrap and desc.wrap.fields or {}
  if opts.dimensions and not (desc.fields or {}).dimensions and not of_rows.dimensions then
    error(("embed: dimensions: provider '%s' takes its model's"):format(state.provider.name), level + 1)
  end
end

-- ---- plans: calls without their rows ----------------------------------------------------------------------

--- A call without its rows, its policy compiled: made once, and used by all batches of embed_each and by
--- calls with the same options. What the options say is checked here.
function M.plan(self, opts, level)
  level = (level or 2) + 1
  local state = client.state(self, level)
  local desc = M.check(self, opts, "embed", level)
  if opts.long then
    error("embed: long: only of client:embed, whose rows are all there", level)
  end
  local model = opts.model or state.options.model
  if desc.variant then
    desc = desc.variant(model, state.options)
  end
  local limits = call.limits(state, self, desc, setmetatable({ model = model }, { __index = opts }))
  check_dimensions(state, desc, opts, level)
  local spec, o = call.spec(state, opts, limits, "embed", level)
  if o.model == nil and model then
    o = setmetatable({ model = model }, { __index = o })
  end
  local fields, shared = bodies.fields(desc, o), bodies.row_fields(desc, o)
  if desc.learn then
    o = setmetatable({ learnt = call.learnt(state, self, desc, o) }, { __index = o })
  end
  local encoding = encoding_of(state, desc, o, "embed", level)
  if desc.encoding and fields[desc.encoding] == nil then
    fields[desc.encoding] = encoding or nil
  end
  if desc.prepare then
    desc.prepare(fields, o, state.options, shared)
  end
  spec.path, spec.service_path = call.path(desc, o, state), true
  bodies.surround(spec, desc, fields)
  local shape = desc.shape and desc.shape(fields, o, state.options) or desc.reply
  spec.vectors = { dimensions = o.dimensions }
  for name, value in pairs(shape) do spec.vectors[name] = value end
  spec.packed, spec.limits = encoding == "bytes", limits
  if desc.encoding and not spec.packed then
    spec.optional_at, spec.optional_n = bodies.member(spec.suffix, desc.encoding, fields[desc.encoding])
  end
  spec.trust = o.trust == nil and state.options.trust or o.trust
  local split = desc.split
  if type(split) == "function" then
    split = split(fields, o)
  end
  if split == false then
    spec.one_request, spec.no_split = true, true
  end
  return {
    spec = spec, state = state, desc = desc, shared = shared, limits = limits, meta = { __index = spec },
    -- Its key is asked for, its server's limits are sought, at every call.
    passing = state.dynamic_key or type(o.api_key) == "function" or desc.learn ~= nil
      or state.provider.discover ~= nil and not state.discovered,
  }
end

--- The spec of a plan's call for these inputs. spec.refused: why it must not be sent.
function M.planned(plan, input, level)
  level = (level or 2) + 1
  local spec = setmetatable({}, plan.meta)
  bodies.put_rows(spec, texts_of(input, level), plan.desc, plan.shared, "embed: input", level)
  if plan.spec.no_split then
    spec.refused = check_whole(spec.rows, plan.limits, "embed")
  end
  return spec
end

local plain = { string = true, number = true, boolean = true }

-- What a plan was made of, if that can be compared; tables may have changed since.
local function key_of(opts)
  local key, n = {}, 0
  for name, value in next, opts do
    if name ~= "input" then
      if not plain[type(value)] then
        return nil
      end
      key[name], n = value, n + 1
    end
  end
  return getmetatable(opts) == nil and key or nil, n
end

local function same(opts, key, n)
  for name, value in next, opts do
    if name ~= "input" then
      if key[name] ~= value then
        return false
      end
      n = n - 1
    end
  end
  return n == 0 and getmetatable(opts) == nil
end

local function kept_plan(state, opts)
  local kept = state.plan
  if kept and type(opts) == "table" and (type(opts.input) == "string" or type(opts.input) == "table")
    and same(opts, kept.key, kept.n) and not (kept.plan.spec.packed and state.no_bytes) then
    return kept.plan
  end
end

--- The spec of an embed call and its client's state; spec.refused: why it must not be sent.
function M.spec(self, opts, level)
  level = (level or 2) + 1
  local state = client.state(self, level)
  local plan = kept_plan(state, opts)
  if not plan then
    plan = M.plan(self, opts, level)
    local key, n = key_of(opts)
    state.plan = key and not plan.passing and { plan = plan, key = key, n = n } or nil
  end
  return M.planned(plan, opts.input, level), state
end

-- A call whose long texts are seen to first.
local function embed_long(self, opts, level)
  local desc = M.check(self, opts, "embed", level + 1)
  local state = client.state(self)
  local model = opts.model or state.options.model
  if desc.variant then
    desc = desc.variant(model, state.options)
  end
  local limits = call.limits(state, self, desc, setmetatable({ model = model }, { __index = opts }))
  local texts = texts_of(opts.input, level + 1)
  return long.embed(function(o) return self:embed(o) end, texts, opts, limits, "embed", level + 1)
end

function client.methods.embed(self, opts)
  if type(opts) == "table" and opts.long then
    return embed_long(self, opts, 2)
  end
  local spec, state = M.spec(self, opts, 2)
  if spec.refused then
    return nil, spec.refused
  end
  local r, err = call.run(state, spec)
  if not r then
    return nil, err
  end
  local res, why = M.result(state, r)
  if res or not (spec.packed and (why.status == 400 or why.status == 422)) then
    return res, why
  end
  -- An older server does not know of bytes.
  state.no_bytes = true
  local again, other = self:embed(opts)
  if not again then
    state.no_bytes = nil
  end
  return again, other
end

return M
