-- each.lua - client:embed_each: an endless source in, finished batches out, bounded in between.
--
-- At most `max_concurrent_requests` batches are in flight; the source is asked for more only when one
-- of them has been taken, so a slow consumer slows the source and memory does not grow.
local core = require "moonpool.core"
local call = require "moonpool.call"
local client = require "moonpool.client"
local embed = require "moonpool.embed"
local options = require "moonpool.options"
local R = options.rule

local M = {}

-- ---- the source ------------------------------------------------------------------------------------------

local function list_source(list)
  local i = 0
  return function()
    i = i + 1
    return list[i]
  end
end

local function source_of(from)
  if type(from) == "table" and not (getmetatable(from) or {}).__call then return list_source(from) end
  if type(from) ~= "function" and type(from) ~= "table" and type(from) ~= "userdata" then
    error("embed_each: an iterator function or a list expected, got a " .. type(from), 3)
  end
  return from
end

-- How an item becomes a text: itself, its field `text` (or opts.field), or opts.text(item).
local function text_of(opts)
  if opts.text then return opts.text end
  local field = opts.field or "text"
  return function(item)
    if type(item) == "table" then return item[field] end
    return item
  end
end

-- ---- one batch -------------------------------------------------------------------------------------------

local function not_a_text(item, text)
  return core.error("invalid", ("no text to embed: %s"):format(
    type(item) == "table" and "the record's text is a " .. type(text) or "a " .. type(text)))
end

-- Gathers up to `size` items; those without a text keep their place as errors.
local function gather(next_item, size, text)
  local batch = { items = {}, texts = {}, at = {}, errors = {} }
  while #batch.items < size do
    local item = next_item()
    if item == nil then
      batch.last = true
      break
    end
    local n = #batch.items + 1
    batch.items[n] = item
    local t = text(item)
    if type(t) == "string" then
      batch.texts[#batch.texts + 1] = t
      batch.at[#batch.texts] = n
    else
      batch.errors[#batch.errors + 1] = { index = n, error = not_a_text(item, t) }
    end
  end
  return batch
end

local function start(self, batch, opts, state)
  if #batch.texts == 0 then return end
  opts.input = batch.texts
  local spec = embed.spec(self, opts, 4)
  if spec.no_split then error("embed_each: these options need all inputs in one request", 4) end
  batch.op, batch.failed = core.call_start(state.core, spec)
end

local function finish(state, batch)
  local count = #batch.items
  local res, err
  if batch.op then
    res, err = embed.result(state, batch.raw or core.call_wait(batch.op))
  else
    err = batch.failed
  end
  if err and (err.kind == "cancelled" or err.kind == "closed") then return nil, err end
  local b = {
    first = batch.first, count = count, items = batch.items, errors = batch.errors,
    matrix = res and res.matrix, usage = res and res.usage, model = res and res.model,
    requests = res and res.requests or {}, total_time = res and res.total_time or 0,
  }
  for _, e in ipairs(res and res.errors or err and err.errors or {}) do
    b.errors[#b.errors + 1] = { index = batch.at[e.index], error = e.error }
  end
  if err and not err.errors then
    for _, i in ipairs(batch.at) do b.errors[#b.errors + 1] = { index = i, error = err } end
  end
  table.sort(b.errors, function(x, y) return x.index < y.index end)
  if b.matrix and #batch.texts < count then
    b.matrix = core.matrix_scatter(b.matrix, batch.at, count)
  end
  b.ok = #b.errors == 0
  return b
end

-- ---- the iterator ----------------------------------------------------------------------------------------

local own = { ordered = R.boolean, text = R.func, field = R.string }

-- Which of the batches in flight is to be given next. In the order of the source that is the first;
-- otherwise a task waits for each of them, and the first to end is next.
local function in_order()
  return {
    add = function() end,
    next = function() return 1 end,
    close = function() end,
  }
end

local function as_they_end()
  local scope, ended = core.open_scope(), core.waitlist()
  local done = {}
  return {
    add = function(batch)
      if not batch.op then
        done[batch] = true
        return
      end
      scope:spawn(function()
        batch.raw = core.call_wait(batch.op)
        done[batch] = true
        ended:wake()
      end)
    end,
    next = function(queue)
      while true do
        for i, batch in ipairs(queue) do
          if done[batch] then
            done[batch] = nil
            return i
          end
        end
        ended:wait()
      end
    end,
    close = function() scope:close() end,
  }
end

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
  if limits.inputs and limits.inputs < size then size = limits.inputs end
  return size, opts.max_concurrent_requests or state.max_concurrent_requests or 128
end

--- for batch in client:embed_each(source, opts): source is a list or an iterator (it may wait) of
--- texts or records; batch = {first, count, items, matrix, errors, ok, usage, requests, ...}.
function client.methods.embed_each(self, from, opts)
  local state = client.state(self, 2)
  local next_item = source_of(from)
  local mine, theirs = split_options(opts)
  options.check("embed_each", mine, own, 2)
  embed.check(self, theirs, "embed_each", 2)
  local size, window = sizes(state, self, theirs)
  local text = text_of(mine)
  local order = mine.ordered == false and as_they_end() or in_order()
  local queue, row, ended, failure = {}, 1, false, nil

  local function fill()
    while not ended and not failure and #queue < window do
      local batch = gather(next_item, size, text)
      ended = batch.last
      if #batch.items > 0 then
        batch.first = row
        row = row + #batch.items
        start(self, batch, theirs, state)
        queue[#queue + 1] = batch
        order.add(batch)
      end
    end
  end

  local function cancel()
    for _, batch in ipairs(queue) do
      if batch.op then core.call_cancel(batch.op) end
    end
    queue, ended = {}, true
    order.close()
  end

  local function step()
    if failure then return nil, failure end
    fill()
    if #queue == 0 then return nil end
    local b, err = finish(state, table.remove(queue, order.next(queue)))
    if not b then
      failure = err
      cancel()
      error(err, 0)
    end
    return b
  end

  return step, nil, nil, setmetatable({}, { __close = cancel })
end

return M
