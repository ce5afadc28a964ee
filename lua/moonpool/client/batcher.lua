-- moonpool.client.batcher: client:batcher: the rows of many tasks in few requests.
--
-- A plan is what the requests of equal options share; it is made once and kept, so that a call costs
-- its rows.
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local core = require "moonpool.core"
local embed = require "moonpool.client.embed"
local json = require "moonpool.json"
local options = require "moonpool.options"
local R = options.rule

local M = {}

local MAX_PLANS = 1024 -- kept of a batcher; `user` is among the options

local batcher_rules = {
  max_batch = R.count, max_wait = R.not_negative, slots = R.count, cache_bytes = R.whole,
  max_tokens = R.count, max_chars = R.count, max_bytes = R.count, max_waiting = R.count,
  single_flight = R.boolean,
}

-- What concerns a submission and not its request.
local own = {
  key = R.string, priority = function(v)
    if v ~= -1 and v ~= 0 and v ~= 1 then
      return "must be -1, 0 or 1"
    end
  end,
  max_wait = R.not_negative, timeout = R.duration, total_timeout = R.duration, cancel_token = call.token,
}

local batcher = {}
local meta = { __name = "moonpool.batcher", __index = batcher }
local states = setmetatable({}, { __mode = "k" })

function meta.__tostring(self)
  return "moonpool.batcher (" .. (states[self].closed and "closed" or tostring(states[self].client)) .. ")"
end

--- client:batcher { max_batch=128, max_wait=0, slots=4, cache_bytes=0, ... }
function client.methods.batcher(self, opts)
  local state = client.state(self, 2)
  opts = opts or {}
  options.check("batcher", opts, batcher_rules, 2)
  if not state.provider.embed then
    error(("batcher: provider '%s' has no embed call"):format(state.provider.name), 2)
  end
  local made = setmetatable({}, meta)
  local size = opts.max_batch or 128
  states[made] = {
    client = self, state = state, plans = {}, nplans = 0, size = size, handles = {}, config = {
      size = size, max_wait = opts.max_wait, slots = opts.slots or (size == 1 and 128 or 4),
      tokens = opts.max_tokens, chars = opts.max_chars, bytes = opts.max_bytes,
      max_waiting = opts.max_waiting, cache_bytes = opts.cache_bytes, single_flight = opts.single_flight,
    },
  }
  return made
end

local function least(a, b)
  if not a or not b then
    return a or b
  end
  return math.min(a, b)
end

-- What one request may carry can depend on the model: a batcher of the engine for each such limit.
local function handle_for(b, limits)
  local c = {}
  for k, v in pairs(b.config) do c[k] = v end
  c.size, c.tokens = least(c.size, limits.inputs), least(c.tokens, limits.tokens)
  c.chars, c.bytes = least(c.chars, limits.chars), least(c.bytes, limits.bytes)
  local name = ("%s %s %s %s"):format(c.size, c.tokens, c.chars, c.bytes)
  if not b.handles[name] then
    b.handles[name] = core.batcher_new(b.state.core, c)
  end
  return b.handles[name]
end

-- ---- plans --------------------------------------------------------------------------------------

local function text_of(value)
  return type(value) == "table" and json.encode(value) or tostring(value)
end

-- A name for the options, the same for the same ones.
local function name_of(opts)
  local names = {}
  for name, value in pairs(opts) do
    if not own[name] then
      names[#names + 1] = name .. "\0" .. text_of(value)
    end
  end
  table.sort(names)
  return table.concat(names, "\0")
end

--- The plan of that name: {core=, style=} made from options of embed and an input like those to come.
function M.plan(self, name, opts, sample, level)
  local b = states[self]
  local found = b.plans[name]
  if found then
    return found
  end
  if b.closed then
    return nil, core.error("closed", "the batcher is closed")
  end
  local o = { input = { sample } }
  for k, v in pairs(opts) do
    if not own[k] then
      o[k] = v
    end
  end
  local spec = embed.spec(b.client, o, (level or 1) + 1)
  found = { style = spec.row_style, alone = spec.one_request }
  if not found.alone then
    found.core = core.batcher_plan(b.state.core, spec)
    found.handle, found.row_of = handle_for(b, spec.limits), spec.row_of
  end
  -- its headers change from call to call
  if b.state.dynamic_key then
    return found
  end
  found.lasting = true
  if b.nplans >= MAX_PLANS then
    b.plans, b.nplans = {}, 0
  end
  b.plans[name], b.nplans = found, b.nplans + 1
  return found
end

-- Rows that are no texts are JSON.
local function rows_of(list, row_of)
  if type(list[1]) == "string" then
    return list
  end
  local rows = {}
  for i = 1, #list do rows[i] = row_of(list[i]) end
  return rows
end

--- For the gateway: the values of core.batcher_embed for a plan. whole: nil and the result always.
function M.submit(self, plan, rows, o, whole)
  local b = states[self]
  if b.closed then
    return nil, core.error("closed", "the batcher is closed")
  end
  rows = rows_of(rows, plan.row_of)
  return core.batcher_embed(plan.handle, plan.core, rows, nil, o.key, o.priority, o.max_wait, o.timeout,
    o.cancel_token, whole)
end

--- What a failed submission's result says: the error of the first row that failed.
function M.error_of(self, r)
  if type(r) ~= "userdata" then
    return r
  end
  local b = states[self]
  local info = call.info(b.state, r)
  local errors, first = call.errors(b.state, r, info)
  local _, err = call.failure(info, errors, first)
  return err
end

-- ---- calls --------------------------------------------------------------------------------------

local function list_of(input, level)
  if type(input) == "string" then
    return { input }
  end
  if type(input) ~= "table" then
    error("batcher: embed: a text or a list of texts is needed", level + 1)
  end
  if #input == 0 then
    error("batcher: embed: must not be empty", level + 1)
  end
  if type(input[1]) == "number" then
    return { input }
  end
  for i = 1, #input do
    if type(input[i]) ~= type(input[1]) then
      error(("batcher: embed: input[%d]: all of a kind expected, got a %s"):format(i, type(input[i])),
        level + 1)
    end
  end
  return input
end

--- batcher:embed(text or texts, {key=, priority=, timeout=, max_wait=, cancel_token=, model=, ...}): the
--- result of embed, or nil, err. Waits; rows that are cancelled before they are sent are dropped.
function batcher:embed(input, opts)
  local b = states[self]
  if not b then
    error("batcher: embed is called with a colon: batcher:embed(texts)", 2)
  end
  opts = opts or {}
  for name, rule in pairs(own) do
    local why = opts[name] ~= nil and rule(opts[name])
    if why then
      error(("batcher: embed: %s: %s"):format(name, why), 2)
    end
  end
  local list = list_of(input, 2)
  local plan, err = M.plan(self, type(list[1]) .. "\0" .. name_of(opts), opts, list[1], 2)
  if not plan then
    return nil, err
  end
  if plan.alone then
    local o = { input = list }
    for k, v in pairs(opts) do o[k] = v end
    o.key, o.priority, o.max_wait = nil, nil, nil
    return b.client:embed(o)
  end
  local timeout = opts.total_timeout or opts.timeout
  local _, r = M.submit(self, plan, list, {
    key = opts.key, priority = opts.priority, max_wait = opts.max_wait, timeout = timeout or nil,
    cancel_token = opts.cancel_token,
  }, true)
  if type(r) ~= "userdata" then
    return nil, r
  end
  return embed.result(b.state, r)
end

--- Counters: submissions, rows, requests, request_rows, largest, hits, misses, shared, waiting, busy, ...
function batcher:stats()
  local sum = {}
  for _, handle in pairs(states[self].handles) do
    for name, n in pairs(core.batcher_stats(handle)) do
      sum[name] = name == "largest" and math.max(sum[name] or 0, n) or (sum[name] or 0) + n
    end
  end
  return sum
end

--- What is open ends with an error of kind closed.
function batcher:close()
  local b = states[self]
  if b.closed then
    return
  end
  b.closed = true
  for _, handle in pairs(b.handles) do core.batcher_close(handle) end
  b.handles = {}
end

meta.__close = batcher.close

return M
