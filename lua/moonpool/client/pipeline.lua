-- moonpool.client.pipeline: from a source that may be slow, batches worked on at once, taken in order.
--
-- A feeder task reads the source, whoever waits for whatever: what is finished comes out while the
-- source still has nothing to say. At most `window` batches are held, so a slow consumer slows the
-- source, and a batch that the source leaves half full is sent after `flush_interval` seconds. The
-- feeder changes tasks once a batch, never once an item.
local core = require "moonpool.core"

local pipeline = {}

local Pipeline = {}
Pipeline.__index = Pipeline

-- ---- batches ------------------------------------------------------------------------------------

local function cancelled(err)
  return core.is_error(err) and err.kind == "cancelled"
end

-- What comes after a batch that could not be started would come in the wrong place.
local function fail(self, err, batch)
  if not self.failure then
    self.failure = { err }
  end
  self.ended = true
  for i = #self.queue, 1, -1 do
    if not batch then
      break
    end
    local other = table.remove(self.queue, i)
    if other == batch then
      break
    end
    self.cancel(other)
  end
  self.filled:wake()
end

local function work(self, batch)
  batch.good, batch.value = xpcall(self.wait, core.traceback, batch)
  batch.ready = true
  self.filled:wake()
end

-- Sends the open batch. Starting may wait; the batch has its place in the queue before that.
local function submit(self)
  local batch = self.open
  self.open = nil
  if self.closed then
    return
  end
  batch.first = self.row
  self.row = self.row + batch.count
  self.queue[#self.queue + 1] = batch
  local ok, err = xpcall(self.start, core.traceback, batch)
  if not ok then
    fail(self, err, batch)
  elseif self.tasks then
    self.scope:spawn(work, self, batch)
  else
    batch.ready = true
    self.filled:wake()
  end
end

local function open_batch(self)
  local batch = self.new()
  batch.items, batch.count, batch.since = {}, 0, core.now()
  self.open = batch
  if self.resting then
    self.resting = false
    self.opened:wake()
  end
  return batch
end

-- Lets others run; `hungry` tells the consumer that the feeder could go on.
local function give_way(self)
  self.hungry = true
  core.sleep(0)
  while #self.queue >= self.window do
    self.room:wait()
  end
  self.hungry = false
end

-- ---- the two tasks of it ------------------------------------------------------------------------

-- The source may wait, and meanwhile the flusher may take the open batch away.
local function read(self)
  local next_item, add, size = self.next_item, self.add, self.size
  while not self.ended do
    local batch
    repeat
      local item, value = next_item()
      if item == nil then
        return
      end
      batch = self.open or open_batch(self)
      local n = batch.count + 1
      batch.count = n
      batch.items[n] = item
      add(batch, n, item, value)
    until n == size
    while #self.queue >= self.window do
      give_way(self) -- the flusher took the last place
    end
    submit(self)
    give_way(self)
  end
end

local function feeder(self)
  local ok, err = xpcall(read, core.traceback, self)
  if self.open and (ok or not cancelled(err)) then
    submit(self) -- what was read before the source failed still counts
  end
  if ok then
    self.ended = true
    self.filled:wake()
  else
    fail(self, err)
  end
end

local function flush(self)
  while not self.ended do
    local batch = self.open
    local left = batch and batch.since + self.flush_interval - core.now()
    if not batch then
      self.resting = true
      self.opened:wait()
    elseif left > 0 then
      core.sleep(left)
    elseif #self.queue >= self.window then
      self.room:wait()
    else
      submit(self)
    end
  end
end

local function flusher(self)
  local ok, err = xpcall(flush, core.traceback, self)
  if not ok and not cancelled(err) then
    fail(self, err)
  end
end

-- ---- the consumer -------------------------------------------------------------------------------

-- Only now, so that the tasks belong to whom takes the batches.
local function open(self)
  self.scope = core.open_scope()
  self.give_way = core.in_task() and core.sleep or core.pause -- outside a task sleep(0) is a timer
  self.scope:spawn(feeder, self)
  if self.flush_interval then
    self.scope:spawn(flusher, self)
  end
end

local function pick(self)
  local queue = self.queue
  for i = 1, self.ordered and 1 or #queue do
    if queue[i] and queue[i].ready then
      return i
    end
  end
end

local function await(self)
  -- Many finished batches in a row would keep the feeder from its work. They go first while there
  -- are enough of them: what is finished takes the most memory.
  if self.hungry and #self.queue <= self.window // 2 then
    self.give_way(0)
  end
  while true do
    local i = pick(self)
    if i or self.ended and #self.queue == 0 then
      return i
    end
    self.filled:wait()
  end
end

--- The next batch and what `wait` returned for it; nil at the end. Raises what the source, `start`
--- or `wait` raised, after the batches before that.
function Pipeline:take()
  if self.closed then
    return nil
  elseif not self.scope then
    open(self)
  end
  local i = await(self)
  if not i then
    local failure = self.failure
    self:close()
    return failure and error(failure[1], 0) or nil
  end
  local batch = self.queue[i]
  local value = batch.value
  if not self.tasks then
    value = self.wait(batch)
  end
  table.remove(self.queue, i)
  self.room:wake()
  if batch.good == false then
    error(value, 0)
  end
  return batch, value
end

local function drop(self)
  self.closed, self.ended = true, true
  for _, batch in ipairs(self.queue) do
    self.cancel(batch)
  end
  self.queue = {}
end

--- Cancels what is under way and waits for its end.
function Pipeline:close()
  if not self.closed then
    drop(self)
    if self.scope then
      self.scope:close()
    end
  end
end

-- An iterator that is dropped without being closed leaves no task behind that waits for ever.
local guard = {
  __close = function(g) g.pipeline:close() end,
  __gc = function(g)
    local self = g.pipeline
    if not self.closed and self.scope then
      drop(self)
      self.scope:cancel()
    end
  end,
}

--- Something to return as the closing value of an iterator over the pipeline; nothing that the
--- pipeline itself holds may refer to it.
function Pipeline:guard()
  return setmetatable({ pipeline = self }, guard)
end

local function nothing() end

--- pipeline.new {
---   next_item = function() -> item[, value] or nil at the end; may wait
---   size, window                  items of a batch, batches at once
---   flush_interval                seconds that an item waits for its batch to fill; false: for ever
---   ordered = true                batches in the order of the source, or as they end
---   new = function() -> batch     then batch.items, batch.count and batch.first are set
---   add = function(batch, i, item, value)
---   start = function(batch)       begins the work; may wait
---   wait = function(batch) -> value
---   tasks = boolean               wait is called in a task for each batch, else when it is taken
---   cancel = function(batch)      for what start began
--- }
function pipeline.new(o)
  local self = setmetatable({}, Pipeline)
  self.next_item, self.size, self.window = o.next_item, o.size, o.window
  self.flush_interval, self.ordered = o.flush_interval, o.ordered ~= false
  self.tasks = o.tasks or not self.ordered
  self.new, self.add, self.start = o.new, o.add, o.start or nothing
  self.wait, self.cancel = o.wait, o.cancel or nothing
  self.queue, self.row = {}, 1
  self.filled, self.room, self.opened = core.waitlist(), core.waitlist(), core.waitlist()
  return self
end

return pipeline
