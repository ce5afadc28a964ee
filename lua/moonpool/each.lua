-- each.lua - client:embed_each: an endless source in, finished batches out, bounded in between.
--
-- At most `max_concurrent_requests` batches are in flight; the source is asked for more only when one
-- of them has been taken, so a slow consumer slows the source and memory does not grow.
local core = require "moonpool.core"
local client = require "moonpool.client"
local embed = require "moonpool.embed"

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
  batch.op, batch.failed = core.call_start(state.core, spec)
end

local function finish(state, batch)
  local count = #batch.items
  local res, err
  if batch.op then
    res, err = embed.result(state, core.call_wait(batch.op))
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

local own = { ordered = true, text = true, field = true }

function client.methods.embed_each(self, from, opts)
  local state = client.state(self, 2)
  local next_item = source_of(from)
  opts = opts or {}
  local call_opts = {}
  for k, v in pairs(opts) do
    if not own[k] then call_opts[k] = v end
  end
  local size = call_opts.batch_size or state.batch_size or 128
  local limits = state.provider.embed and state.provider.embed.limits
  if limits and limits.inputs and limits.inputs < size then size = limits.inputs end
  local window = call_opts.max_concurrent_requests or state.max_concurrent_requests or 128
  local text = text_of(opts)
  local queue, row, ended, failure = {}, 1, false, nil

  local function fill()
    while not ended and not failure and #queue < window do
      local batch = gather(next_item, size, text)
      ended = batch.last
      if #batch.items > 0 then
        batch.first = row
        row = row + #batch.items
        start(self, batch, call_opts, state)
        queue[#queue + 1] = batch
      end
    end
  end

  local function cancel()
    for _, batch in ipairs(queue) do
      if batch.op then core.call_cancel(batch.op) end
    end
    queue, ended = {}, true
  end

  local function take()
    local k = 1
    if opts.ordered == false then
      for i, batch in ipairs(queue) do
        if not batch.op or core.call_done(batch.op) then
          k = i
          break
        end
      end
    end
    return table.remove(queue, k)
  end

  local function step()
    if failure then return nil, failure end
    fill()
    if #queue == 0 then return nil end
    local b, err = finish(state, take())
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
