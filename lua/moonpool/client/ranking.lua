-- moonpool.client.ranking: client:rerank and client:classify: split like embed, merged as one list.
local bodies = require "moonpool.client.body"
local core = require "moonpool.core"
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local json = require "moonpool.json"
local options = require "moonpool.options"
local R = options.rule

local M = {}

local shared = {
  raw_scores = R.boolean, truncate = R.any, truncation_direction = R.one_of("Left", "Right", "left", "right"),
}

local function rules(own)
  for k, v in pairs(shared) do own[k] = v end
  return call.rules(own)
end

local rerank_rules = rules {
  query = R.string, texts = R.table, documents = R.table, top_n = R.count, return_text = R.boolean,
}
local classify_rules = rules { inputs = R.either(R.string, R.table) }

-- ---- replies ------------------------------------------------------------------------------------------

local function at_path(doc, path)
  for name in path:gmatch("[^.]+") do
    if type(doc) ~= "table" then
      return nil
    end
    doc = doc[name]
  end
  return doc
end

local VALUES_MAX = 256 * 1024 * 1024 -- bytes that one reply may become

local function bad(message, ...)
  return nil, call.error("decode", message:format(...))
end

local function list_of(body, desc)
  local doc, err, kind = json.decode(body, VALUES_MAX)
  if doc == nil then
    return nil, call.error(kind, ("the reply is not JSON: %s"):format(err))
  end
  local list = at_path(doc, desc.reply.list or "")
  if type(list) ~= "table" then
    return bad("the reply has no list%s", desc.reply.list ~= "" and " '" .. desc.reply.list .. "'" or "")
  end
  return list, doc
end

-- The 0-based position that an item names, nil when it names none; false when it is no position.
local function position(item, name)
  local v = item[name]
  if v == nil or v == json.null or not name then
    return nil
  end
  if type(v) == "string" then
    v = v:find "^%d+$" and tonumber(v)
  end
  return type(v) == "number" and v >= 0 and math.tointeger(v) or false
end

-- The items of a list by their positions, and which came without one.
local function by_position(list, count, desc)
  local at, unnamed = {}, {}
  for k, item in ipairs(list) do
    if type(item) ~= "table" then
      return bad("item %d is no score", k)
    end
    local index = position(item, desc.reply.index)
    if index == false or index and index >= count then
      return bad("item %d: index %s is out of range: %d were sent", k,
        tostring(item[desc.reply.index]), count)
    elseif index == nil then
      unnamed[#unnamed + 1] = k
    elseif at[index] then
      return bad("duplicate index %d", index)
    else
      at[index] = item
    end
  end
  return at, unnamed
end

-- The order stands in for positions that are missing. In a list sorted by score it cannot: but if one
-- item alone lacks its position (a zero left out) it is the one that nobody else names.
local function place_unnamed(at, unnamed, list, count)
  local taken
  for _, k in ipairs(unnamed) do taken = taken or at[k - 1] and k - 1 end
  if taken and #unnamed == 1 and #list == count then
    for i = 0, count - 1 do
      if not at[i] then
        at[i] = list[unnamed[1]]
      end
    end
  elseif taken then
    return bad("duplicate index %d: an item without one stands there", taken)
  else
    for _, k in ipairs(unnamed) do at[k - 1] = list[k] end
  end
  return true
end

-- Bare numbers, where the place is the position, as items.
local function as_items(list, name)
  for k, item in ipairs(list) do
    if type(item) ~= "table" then
      list[k] = { [name] = item }
    end
  end
end

-- The scores of a reply for `count` texts, `wanted` of them at least; {position = what is wrong}.
local function scores(body, count, wanted, desc)
  local list, doc = list_of(body, desc)
  if not list then
    return nil, doc
  end
  if not desc.reply.index then
    as_items(list, desc.reply.score)
  end
  if #list > count then
    return bad("the reply has %d scores, %d were sent", #list, count)
  end
  local at, unnamed = by_position(list, count, desc)
  if not at then
    return nil, unnamed
  end
  local ok, err = place_unnamed(at, unnamed, list, count)
  if not ok then
    return nil, err
  end
  -- The best of all were asked for, or an item without position may be any of the missing.
  if #list < wanted and (wanted < count or #unnamed > 0 or #list == 0) then
    return bad("the reply has %d scores, %d were asked for", #list, wanted)
  end
  local out, wrong = {}, {}
  for i = 0, count - 1 do
    local score = at[i] and at[i][desc.reply.score]
    if type(score) == "number" and score == score then
      out[#out + 1] = { index = i, score = score }
    elseif at[i] then
      wrong[i] = (score == nil or score == json.null) and "the score is null" or "the score is not a number"
    elseif wanted == count then
      wrong[i] = "the reply has no score for it"
    end
  end
  return out, doc, wrong
end

-- The labels of one input, or nil, why.
local function labels_of(item, desc)
  if item == json.null then
    return nil, "the result is null"
  end
  if type(item) ~= "table" or #item == 0 and next(item) ~= nil then
    return nil, "the result is no list of labels"
  end
  local row = {}
  for k, one in ipairs(item) do
    if type(one) ~= "table" then
      return nil, "the result is no list of labels"
    end
    local label, score = one[desc.reply.label], one[desc.reply.score]
    if label == nil or label == json.null then
      return nil, ("label %d is null"):format(k)
    end
    if type(score) ~= "number" or score ~= score then
      return nil, ("the score of label %d is not a number"):format(k)
    end
    row[k] = { label = label, score = score }
  end
  return row
end

-- {label = score}, or the numbers of all labels of which the reply names only the best, as a list.
local function spread(reply, item)
  local out = {}
  if reply.map then
    for label, score in pairs(at_path(item, reply.map) or {}) do
      out[#out + 1] = { label = label, score = score }
    end
  else
    local best = 1
    for k, score in ipairs(item[reply.probs] or {}) do
      out[k] = { label = ("LABEL_%d"):format(k - 1), score = score }
      if type(score) == "number" and score > (tonumber(out[best].score) or -1) then
        best = k
      end
    end
    if out[best] and type(item[reply.label]) == "string" then
      out[best].label = item[reply.label]
    end
  end
  table.sort(out, function(a, b)
    local x, y = tonumber(a.score) or -1, tonumber(b.score) or -1
    return x > y or x == y and tostring(a.label) < tostring(b.label)
  end)
  return out
end

local spread_reply = { reply = { label = "label", score = "score" } }

local function labels(body, count, desc)
  local list, doc = list_of(body, desc)
  if not list then
    return nil, doc
  end
  if desc.reply.map or desc.reply.probs then
    for i, item in ipairs(list) do
      if type(item) == "table" then
        list[i] = spread(desc.reply, item)
      end
    end
    desc = spread_reply
  end
  -- One input alone may be answered without the outer list.
  if count == 1 and type(list[1]) == "table" and list[1][desc.reply.label] ~= nil then
    list = { list }
  end
  if #list ~= count then
    return bad("the reply has %d results, %d were sent", #list, count)
  end
  local out, wrong = {}, {}
  for i, item in ipairs(list) do
    local row, why = labels_of(item, desc)
    if row then
      out[i] = row
    else
      wrong[i - 1] = why
    end
  end
  return out, doc, wrong
end

-- ---- results ---------------------------------------------------------------------------------------------

local lazy = {}
function lazy.requests(res) return call.requests(res._raw, res._info) end
function lazy.data(res) return res.results end
function lazy.object() return "list" end
function lazy.individual_request_times(res)
  local t = {}
  for k, r in ipairs(res.requests) do t[k] = r.time end
  return t
end
function lazy.response_headers(res)
  local t = {}
  for k, r in ipairs(res.requests) do t[k] = r.headers end
  return t
end

local function result_meta(name)
  local meta = { __name = name }
  function meta.__index(res, field)
    if math.type(field) == "integer" then
      return rawget(res, "results")[field]
    end
    return M.lazy(res, field)
  end
  function meta.__len(res) return #res.results end
  return meta
end

local rerank_meta, classify_meta = result_meta "moonpool.rerank", result_meta "moonpool.classification"

local function add_usage(usage, doc)
  if type(doc) ~= "table" then
    return usage
  end
  local u = doc.usage or type(doc.meta) == "table" and doc.meta.billed_units -- Cohere's place
  if type(u) ~= "table" then
    return usage
  end
  for _, name in ipairs { "prompt_tokens", "total_tokens", "search_units" } do
    if type(u[name]) == "number" then
      usage = usage or {}
      usage[name] = (usage[name] or 0) + u[name]
    end
  end
  return usage
end

-- What an exchange knows goes into an error that was found in its reply.
local function of_exchange(state, err, x)
  err.status, err.attempts, err.request_id = x.status, x.attempts, x.request_id
  err.endpoint, err.retryable = state.urls[x.endpoint], true
  return err
end

-- The errors of an exchange whose reply is wrong as a whole, or for single rows ({position = why}).
local function add_errors(state, errors, x, why, wrong)
  local first, n = nil, 0
  for i = 0, x.count - 1 do
    local err = why
    if wrong and wrong[i] then
      err = call.error("decode", wrong[i], { row = x.first + i })
    end
    if err then
      n = n + 1
      errors[#errors + 1] = { index = x.first + i, error = of_exchange(state, err, x) }
      first = first or err
    end
  end
  return n, first
end

-- Runs the spec; `take(body, first, count)` is called for each good exchange and returns the parsed
-- reply's document and {position = what is wrong with the row}, or nil, err. Returns a half-made
-- result, or nil, err.
local function collect(state, spec, take)
  local r, err = call.run(state, spec, 3)
  if not r then
    return nil, err
  end
  local info = call.info(state, r)
  local errors, first = {}, nil
  if info.rows_ok < info.rows then
    errors, first = call.errors(state, r, info)
  end
  local good, usage = 0, nil
  for k = 1, info.exchanges do
    local x = core.result_exchange(r, k)
    if not x.error then
      local doc, more = take(core.result_body(r, k), x.first, x.count)
      local n, fault = add_errors(state, errors, x, not doc and more, doc and more)
      good = good + x.count - n
      first = first or fault
      if doc then
        usage = add_usage(usage, doc)
      end
    end
  end
  table.sort(errors, function(a, b) return a.index < b.index end)
  if good == 0 or info.kind == "cancelled" or info.kind == "closed" then
    return call.failure(info, errors, first)
  end
  return {
    ok = #errors == 0, errors = errors, usage = usage, total_time = info.total_time,
    _raw = r, _info = info,
  }
end

M.collect = collect

local function describe(self, name, level)
  local state = client.state(self, level + 1)
  local desc = state.provider[name]
  if not desc then
    error(("%s: provider '%s' has no %s call"):format(name, state.provider.name, name), level + 1)
  end
  return state, desc
end

local function with_model(state, o)
  if o.model or not state.options.model then
    return o
  end
  return setmetatable({ model = state.options.model }, { __index = o })
end

M.describe, M.with_model = describe, with_model

--- A field of a result that is made when it is asked for.
function M.lazy(res, name)
  local make = lazy[name]
  if not make then
    return nil
  end
  local value = make(res)
  rawset(res, name, value)
  return value
end

--- The document of a reply, for its usage: what stands besides its rows.
function M.usage_of(body)
  local usage = body:match '"usage"%s*:%s*(%b{})'
  return { usage = usage and json.decode(usage) }
end

-- ---- rerank ---------------------------------------------------------------------------------------------

function client.methods.rerank(self, opts)
  local _, desc = describe(self, "rerank", 2)
  self = client.elsewhere(self, desc)
  local state = client.state(self)
  options.check("rerank", opts, call.with_provider(rerank_rules, desc), 2, call.secrets)
  local texts = opts.texts or opts.documents
  if opts.query == nil then
    error("rerank: query: missing", 2)
  end
  if texts == nil or #texts == 0 then
    error("rerank: texts: must not be empty", 2)
  end
  bodies.check_rows(texts, desc, "rerank: texts", 2)
  local limits = call.limits(state, self, desc, with_model(state, opts))
  local spec, o = call.spec(state, opts, limits, "rerank", 2)
  o = with_model(state, o)
  local extra = { [desc.query] = opts.query }
  local batch = opts.batch_size or state.batch_size or 128
  local alone = #texts <= math.min(batch, limits.inputs or batch)
    and not (opts.max_chars_per_request or opts.max_tokens_per_request or opts.max_bytes_per_request)
  local wanted = alone and desc.top_n and opts.top_n or nil
  if wanted then
    extra[desc.top_n] = opts.top_n
    spec.one_request, spec.no_split = true, true -- it would be answered as two lists
  end
  spec.path, spec.service_path = call.path(desc, o, state), true
  bodies.make(spec, desc, texts, o, state.options, extra, "rerank: texts", 2)
  local all = {}
  local res, err = collect(state, spec, function(body, first, count)
    local list, doc, wrong = scores(body, count, math.min(wanted or count, count), desc)
    if not list then
      return nil, doc
    end
    for _, item in ipairs(list) do
      item.index = first + item.index
      if opts.return_text then
        local given = texts[item.index]
        item.text = type(given) == "table" and given.text or given
      end
      all[#all + 1] = item
    end
    return doc, wrong
  end)
  if not res then
    return nil, err
  end
  table.sort(all, function(a, b)
    if a.score ~= b.score then
      return a.score > b.score
    end
    return a.index < b.index
  end)
  for i = #all, (opts.top_n or #all) + 1, -1 do all[i] = nil end
  res.results = all
  return setmetatable(res, rerank_meta)
end

-- ---- classify ---------------------------------------------------------------------------------------------

-- Texts, or pairs of texts {a, b}; a list with a pair in it is sent as JSON rows.
local function rows_of(inputs, desc, level)
  if type(inputs) == "string" then
    inputs = { inputs }
  end
  if inputs == nil or #inputs == 0 then
    error("classify: inputs: must not be empty", level + 1)
  end
  local any = false
  for i, v in ipairs(inputs) do
    if type(v) == "table" then
      any = true
      local fine = #v == 1 or #v == 2 and desc.pairs
      for _, part in ipairs(v) do fine = fine and type(part) == "string" end
      if not fine then
        error(("classify: inputs[%d]: a text or a pair of texts expected"):format(i), level + 1)
      end
    elseif type(v) ~= "string" then
      error(("classify: inputs[%d]: a text or a pair of texts expected, got a %s"):format(i, type(v)),
        level + 1)
    end
  end
  if not any then
    return inputs, desc.style
  end
  local rows = {}
  for i, v in ipairs(inputs) do
    local text, why = json.encode(type(v) == "table" and v or { v })
    if not text then
      error(("classify: inputs[%d]: %s"):format(i, tostring(why)), level + 1)
    end
    rows[i] = text
  end
  return rows, "json"
end

function client.methods.classify(self, opts)
  local state, desc = describe(self, "classify", 2)
  options.check("classify", opts, call.with_provider(classify_rules, desc), 2, call.secrets)
  local rows, style = rows_of(opts.inputs, desc, 2)
  local limits = call.limits(state, self, desc, with_model(state, opts))
  local spec, o = call.spec(state, opts, limits, "classify", 2)
  o = with_model(state, o)
  spec.path, spec.service_path = call.path(desc, o, state), true
  bodies.make(spec, desc, rows, o, state.options, nil, "classify: inputs", 2)
  spec.row_style = style
  local out = {}
  local res, err = collect(state, spec, function(body, first, count)
    local list, doc, wrong = labels(body, count, desc)
    if not list then
      return nil, doc
    end
    for i, row in pairs(list) do out[first + i - 1] = row end
    return doc, wrong
  end)
  if not res then
    return nil, err
  end
  res.results = out
  return setmetatable(res, classify_meta)
end

return M
