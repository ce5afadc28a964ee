-- moonpool.client.each: client:embed_each: an endless source in, finished batches out, bounded in
-- between.
--
-- At most `max_concurrent_requests` batches are in flight; the source is asked for more only when one
-- of them has been taken, so a slow consumer slows the source and memory does not grow.
local core = require "moonpool.core"
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local embed = require "moonpool.client.embed"
local options = require "moonpool.options"
local pipeline = require "moonpool.client.pipeline"
local R = options.rule

local M = {}

local FLUSH_INTERVAL = 0.2 -- s that a text waits at most for others to fill its request

-- ---- the source ------------------------------------------------------------------------------------------

local function list_source(list)
  local i = 0
  return function()
    i = i + 1
    return list[i]
  end
end

local function source_of(from)
  if type(from) == "table" and not (getmetatable(from) or {}).__call then
    return list_source(from)
  end
  if type(from) ~= "function" and type(from) ~= "table" and type(from) ~= "userdata" then
    error("embed_each: an iterator function or a list expected, got a " .. type(from), 3)
  end
  return from
end

-- Gives each item with its text, when the caller has a function for that; it may wait.
local function with_text(next_item, text)
  if not text then
    return next_item
  end
  return function()
    local item = next_item()
    if item ~= nil then
      return item, text(item)
    end
  end
end

-- ---- one batch -------------------------------------------------------------------------------------------

local function new_batch()
  return { texts = {}, errors = {} }
end

local function not_a_text(item, text)
  return core.error("invalid", ("no text to embed: %s"):format(
    type(item) == "table" and "the record's text is a " .. type(text) or "a " .. type(text)))
end

-- batch.at[k]: the item of text k, once an item without a text has kept its place as an error.
local function add_text(batch, n, item, text)
  local k = #batch.texts + 1
  if type(text) == "string" then
    batch.texts[k] = text
    if batch.at then
      batch.at[k] = n
    end
    return
  end
  batch.errors[#batch.errors + 1] = { index = n, error = not_a_text(item, text) }
  if not batch.at then
    batch.at = {}
    for i = 1, k - 1 do batch.at[i] = i end
  end
end

-- How an item becomes a text: itself, or its field.
local function adder(field)
  return function(batch, n, item)
    return add_text(batch, n, item, type(item) == "table" and item[field] or item)
  end
end

local function result_of(state, batch, raw)
  if batch.op then
    return embed.result(state, raw)
  end
  return nil, batch.refused
end

-- Errors of the texts as errors of the items.
local function add_errors(b, batch, list)
  local at = batch.at
  for _, e in ipairs(list) do
    local index = at and at[e.index] or e.index
    if e.error.row then
      e.error.row = batch.first + index - 1
    end
    b.errors[#b.errors + 1] = { index = index, error = e.error }
  end
  table.sort(b.errors, function(x, y) return x.index < y.index end)
end

local function same_error(batch, err)
  local list = {}
  for i = 1, #batch.texts do list[i] = { index = i, error = err } end
  return list
end

local function finish(state, batch, raw)
  local res, err = result_of(state, batch, raw)
  if err and (err.kind == "cancelled" or err.kind == "closed") then
    return nil, err
  end
  local b = {
    first = batch.first, count = batch.count, items = batch.items, errors = batch.errors,
    matrix = res and res.matrix, usage = res and res.usage, model = res and res.model,
    requests = res and res.requests or {}, total_time = res and res.total_time or 0,
  }
  add_errors(b, batch, res and res.errors or err and (err.errors or same_error(batch, err)) or {})
  if b.matrix and batch.at then
    b.matrix = core.matrix_scatter(b.matrix, batch.at, batch.count)
  end
  b.ok = #b.errors == 0
  return b
end

-- ---- the iterator ----------------------------------------------------------------------------------------

local own = {
  ordered = R.boolean, text = R.func, field = R.string, flush_interval = R.either(R.off, R.positive),
}

local function split_options(opts)
  local mine, theirs = {}, {}
  for name, value in pairs(opts or {}) do
    local to = own[name] and mine or theirs
    to[name] = value
  end
  return mine, theirs
end

-- Texts of a batch and batches in flight at once.
local function sizes(state, self, opts)
  local size = opts.batch_size or state.batch_size or 128
  local desc = state.provider.embed
  local limits = desc and call.limits(state, self, desc, opts) or {}
  if limits.inputs and limits.inputs < size then
    size = limits.inputs
  end
  return size, opts.max_concurrent_requests or state.max_concurrent_requests or 128
end

-- What can be wrong with the options is said before the source is touched.
local function plan_of(self, opts, level)
  local plan = embed.plan(self, opts, level + 1)
  if plan.spec.no_split then
    error("embed_each: these options need all inputs in one request", level + 1)
  end
  return plan
end

local function starter(self, state, plan, opts)
  return function(batch)
    if #batch.texts == 0 then
      return
    end
    if plan.passing or plan.spec.packed and state.no_bytes then
      plan = embed.plan(self, opts)
    end
    batch.op, batch.refused = core.call_start(state.core, embed.planned(plan, batch.texts))
  end
end

local function wait(batch)
  return batch.op and core.call_wait(batch.op) or nil
end

local function cancel(batch)
  if batch.op then
    core.call_cancel(batch.op)
  end
end

--- for batch in client:embed_each(source, opts): source is a list or an iterator (it may wait) of
--- texts or records; batch = {first, count, items, matrix, errors, ok, usage, requests, ...}.
--- Own options: ordered (true), text (function of an item), field ("text"), flush_interval (0.2 s).
function client.methods.embed_each(self, from, opts)
  local state = client.state(self, 2)
  local mine, theirs = split_options(opts)
  local next_item = with_text(source_of(from), mine.text)
  options.check("embed_each", mine, own, 2)
  embed.check(self, theirs, "embed_each", 2)
  local interval = mine.flush_interval
  if interval == nil then
    interval = FLUSH_INTERVAL
  end
  local size, window = sizes(state, self, theirs)
  theirs.max_concurrent_requests = 1 -- a batch that is split must not exceed the window
  local plan = plan_of(self, theirs, 2)
  local line = pipeline.new {
    next_item = next_item, size = size, window = window, flush_interval = interval,
    ordered = mine.ordered, new = new_batch, add = mine.text and add_text or adder(mine.field or "text"),
    start = starter(self, state, plan, theirs), wait = wait, cancel = cancel,
  }
  local guard, failure = line:guard(), nil

  local function step(_, _)
    if failure then
      return nil, failure
    end
    local batch, raw = line:take()
    if not batch then
      return nil
    end
    local b, err = finish(state, batch, raw)
    if not b then
      failure = err
      guard.pipeline:close()
      error(err, 0)
    end
    return b
  end

  return step, nil, nil, guard
end

return M
