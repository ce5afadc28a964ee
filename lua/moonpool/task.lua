-- moonpool.task: the task functions of `moonpool`, over the scheduler in C.
--
-- Everything works in a task and outside one, where a wait runs the loop until it is over.

local core = require "moonpool.core"

local task = {
  scope = core.scope,
  timeout = core.timeout,
  shield = core.shield,
  sleep = core.sleep,
  now = core.now,
  cancel_token = core.cancel_token,
  await = core.await,
  tasks = core.tasks,
}

local function callable(value)
  if type(value) == "function" then
    return true
  end
  local meta = getmetatable(value)
  return type(meta) == "table" and meta.__call ~= nil
end

local function is_task(value)
  local meta = type(value) == "userdata" and getmetatable(value)
  return meta and meta.__name == "moonpool.task"
end

local function check_list(list, who)
  if type(list) ~= "table" then
    error(who .. ": a list of functions or tasks expected, got " .. type(list), 3)
  end
  for i = 1, #list do
    if not is_task(list[i]) and type(list[i]) ~= "function" then
      error(string.format("%s: item %d is a %s, not a function or a task", who, i, type(list[i])), 3)
    end
  end
end

-- gather{fn or task, ...}: runs them at once; a list of their first results, .n of them. The first
-- error cancels the functions that still run, and is raised.
function task.gather(list)
  check_list(list, "gather")
  return core.scope(function(scope)
    local tasks, results = {}, { n = #list }
    for i, item in ipairs(list) do
      tasks[i] = is_task(item) and item or scope:spawn(item)
    end
    for i, child in ipairs(tasks) do
      results[i] = child:await()
    end
    return results
  end)
end

-- race{fn or task, ...}: what the first to end returns or raises; the others are cancelled.
function task.race(list)
  check_list(list, "race")
  if #list == 0 then
    error("race: the list is empty", 2)
  end
  return core.scope(function(scope)
    local list_of_one = core.waitlist()
    local first
    local function run(item)
      local outcome = is_task(item) and table.pack(pcall(core.await, item))
        or table.pack(xpcall(item, core.traceback))
      if not first then
        first = outcome
        list_of_one:wake(1)
      end
    end
    for _, item in ipairs(list) do
      scope:spawn(run, item)
    end
    while not first do
      list_of_one:wait()
    end
    for _, item in ipairs(list) do
      if is_task(item) then
        item:cancel()
      end
    end
    scope:cancel()
    if not first[1] then
      error(first[2], 0)
    end
    return table.unpack(first, 2, first.n)
  end)
end

-- ---- map ------------------------------------------------------------------------------------

-- The next item of a list or an iterator, and its index; nil at the end. An iterator may wait, so
-- only one worker is inside it at a time.
local function puller(source)
  local index = 0
  if type(source) == "table" and not callable(source) then
    return function()
      index = index + 1
      return source[index], index
    end
  end
  local turn, busy, ended = core.waitlist(), false, false
  return function()
    while busy do
      turn:wait()
    end
    if ended then
      return nil
    end
    busy = true
    local item = source()
    busy = false
    if item == nil then
      ended = true
      turn:wake()
      return nil
    end
    turn:wake(1)
    index = index + 1
    return item, index
  end
end

local function map_all(source, window, fn)
  return core.scope(function(scope)
    local pull = puller(source)
    local results = { n = 0 }
    local function worker()
      for item, i in pull do
        results[i] = fn(item, i)
        if i > results.n then
          results.n = i
        end
      end
    end
    local tasks = {}
    for w = 1, window do
      tasks[w] = scope:spawn(worker)
    end
    for _, child in ipairs(tasks) do
      child:await()
    end
    return results
  end)
end

-- Results in the order of their ends, through a queue of at most `window`.
local function map_each(source, window, fn)
  local scope = core.open_scope()
  local pull = puller(source)
  local queue, head, tail = {}, 1, 0
  local filled, room = core.waitlist(), core.waitlist()
  local working, failed, failure = window, false, nil

  local function put(entry)
    while tail - head + 1 >= window do
      room:wait()
    end
    tail = tail + 1
    queue[tail] = entry
    filled:wake(1)
  end
  local function work()
    for item, i in pull do
      put { i, fn(item, i) }
    end
  end
  local function worker()
    local ok, err = xpcall(work, core.traceback)
    working = working - 1
    if not ok and not failed then
      failed, failure = true, err
    end
    filled:wake() -- it needs no memory, so even a worker that ran out of it is heard
  end
  local function next_result()
    while head > tail do
      if failed or working == 0 then
        scope:close()
        return failed and error(failure, 0) or nil
      end
      filled:wait()
    end
    local entry = queue[head]
    queue[head] = nil
    head = head + 1
    room:wake(1)
    return table.unpack(entry, 1, 2)
  end

  for _ = 1, window do
    scope:spawn(worker)
  end
  return next_result, nil, nil, scope
end

local function check_window(opts)
  local window = opts.window or 32
  if math.type(window) ~= "integer" or window < 1 then
    error("map: window must be an integer of at least 1", 3)
  end
  return window
end

-- map(source, {window = 32, ordered = true}, fn): fn(item, index) over a list, or a function that
-- gives the next item until nil, with at most `window` calls at a time. Returns the list of first
-- results in the order of the source, .n of them. With ordered = false it is an iterator instead:
-- `for index, result in map(...)` gives each as it is done, holds at most `window` of them, and
-- leaving the loop cancels the rest. The first error cancels the others and is raised.
function task.map(source, opts, fn)
  if fn == nil then
    opts, fn = {}, opts
  end
  if type(source) ~= "table" and not callable(source) then
    error("map: a list or an iterator function expected, got " .. type(source), 2)
  elseif not callable(fn) then
    error("map: a function expected, got " .. type(fn), 2)
  elseif type(opts) ~= "table" then
    error("map: options must be a table, got " .. type(opts), 2)
  end
  local window = check_window(opts)
  if opts.ordered == false then
    return map_each(source, window, fn)
  end
  if type(source) == "table" and not callable(source) then
    window = math.max(1, math.min(window, #source))
  end
  return map_all(source, window, fn)
end

-- ---- channel --------------------------------------------------------------------------------

local channel = {}
channel.__index = channel
channel.__name = "moonpool.channel"

-- channel(n): a queue of at most n values between tasks; putting waits while it is full.
function task.channel(n)
  n = n or 1
  if math.type(n) ~= "integer" or n < 1 then
    error("channel: the capacity must be an integer of at least 1", 2)
  end
  return setmetatable({
    capacity = n, first = 1, count = 0, closed = false,
    getters = core.waitlist(), putters = core.waitlist(),
  }, channel)
end

-- true, or nil and an error of kind "closed". nil itself cannot be put.
function channel:put(value)
  if value == nil then
    error("channel: nil cannot be put", 2)
  end
  while not self.closed and self.count >= self.capacity do
    self.putters:wait()
  end
  if self.closed then
    return nil, core.error("closed", "the channel is closed")
  end
  self[self.first + self.count] = value
  self.count = self.count + 1
  self.getters:wake(1)
  return true
end

-- The next value; nil once the channel is closed and empty.
function channel:get()
  while self.count == 0 do
    if self.closed then
      return nil
    end
    self.getters:wait()
  end
  local value = self[self.first]
  self[self.first] = nil
  self.first = self.first + 1
  self.count = self.count - 1
  self.putters:wake(1)
  return value
end

-- No more puts; what is inside can still be had.
function channel:close()
  self.closed = true
  self.getters:wake()
  self.putters:wake()
end

channel.__close = channel.close

function channel:__len()
  return self.count
end

-- for value in ch do
function channel:__call()
  return self:get()
end

-- ---- semaphore ------------------------------------------------------------------------------

local semaphore = {}
semaphore.__index = semaphore
semaphore.__name = "moonpool.semaphore"

-- semaphore(n): at most n holders at a time, first come first served.
function task.semaphore(n)
  if math.type(n) ~= "integer" or n < 1 then
    error("semaphore: the count must be an integer of at least 1", 2)
  end
  local self = setmetatable({ free = n, size = n, queue = core.waitlist() }, semaphore)
  self.guard = setmetatable({}, { __close = function() self:release() end })
  return self
end

function semaphore:acquire()
  if self.free > 0 then
    self.free = self.free - 1
  else
    self.queue:wait() -- release hands its place over, so nobody can overtake
  end
end

function semaphore:release()
  if self.queue:wake(1) == 1 then
    return
  end
  if self.free == self.size then
    error("semaphore: released more often than acquired", 2)
  end
  self.free = self.free + 1
end

-- with(fn, ...): fn's results; the place is given back however it ends.
function semaphore:with(fn, ...)
  self:acquire()
  local guard <close> = self.guard -- luacheck: ignore
  return fn(...)
end

return task
