-- moonpool.job.store: where the rows of a job go, in any order, so that a kill at any moment costs
-- nothing but what came in the last second.
--
-- A part is filled in .job/: its vectors by position, its lines in a log that is written only after
-- the vectors are on the disk. When all its rows are there it gets its two names in the directory
-- and its place in index.json; only then do the files of .job/ go. Failed rows are rows of NaN.
--
-- One task commits and publishes (`Writer:tend`); everybody else only puts rows. What waits for the
-- disk waits in other threads; with `now` set it is done at once, for a task that may wait no more.
local core = require "moonpool.core"
local json = require "moonpool.json"
local layout = require "moonpool.job.layout"

local store = {}

local check = layout.check
local SHARD_ROWS = 50000
local COMMIT_EVERY = 0.2 -- s
local INDEX_EVERY = 1
local COMMIT_BYTES = 4 << 20 -- of lines in memory
local OPEN_FILES = 32 -- parts with open descriptors
local RESERVE = 64 << 10 -- bytes
local CROWD = 6 -- whole parts that wait to be published

local Writer = {}
Writer.__index = Writer

-- ---- errors -------------------------------------------------------------------------------------

-- Text that came in with broken UTF-8 is written with U+FFFD where it is broken: JSON has no other way.
local function clean(text)
  local out, at = {}, 1
  while true do
    local ok, bad = utf8.len(text, at)
    if ok then
      out[#out + 1] = text:sub(at)
      return table.concat(out)
    end
    out[#out + 1] = text:sub(at, bad - 1)
    out[#out + 1] = "\u{FFFD}"
    at = bad + 1
  end
end

--- What is told of an error. Its row counts within a call, so it stays out.
function store.public_error(err)
  local message = tostring(err.message or err):gsub("^row %d+: ", "")
  return { kind = err.kind or "invalid", message = clean(message), status = err.status }
end
local public_error = store.public_error

-- ---- the index ----------------------------------------------------------------------------------

--- What index.json says.
function Writer:index(complete)
  local index = {
    format = layout.FORMAT, version = 1, complete = complete, rows = 0, failed = 0,
    came_as = self.came_as,
    dim = self.dim or 0, dtype = self.f16 and "float16" or "float32", parts = json.array(),
    shard_rows = self.shard_rows, identity = self.identity, source = self.source, run = self.run,
  }
  for key, value in pairs(self.about) do
    index[key] = value
  end
  for i = 0, math.huge do
    local part = self.published[i]
    if not part then
      break
    end
    index.parts[i + 1] = part
    index.rows, index.failed = index.rows + part.rows, index.failed + part.failed
  end
  return index
end

local function write_index(self, complete, now)
  layout.write_index(self.target, self:index(complete), now)
  self.index_at, self.told_dim = core.now(), self.dim
  for _, number in ipairs(self.to_clean) do
    local base = self.work .. "/" .. layout.part_name(number)
    os.remove(base .. ".npy")
    os.remove(base .. ".log")
    os.remove(base .. ".jsonl")
  end
  self.to_clean = {}
end

-- ---- parts --------------------------------------------------------------------------------------

local function base_of(self, number)
  return self.work .. "/" .. layout.part_name(number)
end

local function open_part(self, number)
  local base = base_of(self, number)
  local part = check(core.job_part {
    npy = base .. ".npy", log = base .. ".log", first = number * self.shard_rows, limit = self.shard_rows,
    cols = self.dim or 0, f16 = self.f16, normalize = self.normalize, text = self.keep_text,
    ledger = self.ledger,
  })
  self.open[number] = part
  self.n_open = self.n_open + 1
  return part
end

local function rest_others(self, number)
  for other, part in pairs(self.open) do
    if other ~= number then
      part:rest()
    end
  end
end

local function part_for(self, number)
  local part = self.open[number]
  if not part then
    if self.n_open >= OPEN_FILES then
      rest_others(self, number)
    end
    part = open_part(self, number)
  end
  return part
end

local function rows_of(self, number)
  local left = self.total and self.total - number * self.shard_rows
  return left and left < self.shard_rows and left or self.shard_rows
end

--- Whether the row has a result already.
function Writer:done(row)
  local number = row // self.shard_rows
  if number ~= self.looked_at then
    self.looked_at, self.looked_published = number, self.published[number] ~= nil
  end
  if self.looked_published or self.published[number] then
    return true
  end
  local part = self.open[number]
  return part ~= nil and part:state(row - number * self.shard_rows) ~= 0
end

--- The first row from `row` on that has no result, or nil where every part that is known has all.
function Writer:next_missing(row)
  while true do
    local number = row // self.shard_rows
    local first = number * self.shard_rows
    if self.published[number] then
      row = first + self.published[number].rows
      if self.published[number].rows < self.shard_rows then
        return row
      end
    elseif self.open[number] then
      local at = self.open[number]:gap(row - first)
      if at < self.shard_rows then
        return first + at
      end
      row = first + self.shard_rows
    else
      return row
    end
  end
end

local function learn_dim(self, cols)
  self.dim = self.truncate_dim or cols
  self.came_as = cols
  for _, part in pairs(self.open) do
    check(part:set_cols(self.dim))
  end
end

-- Parts that were published while no vector was known yet get their rows of NaN.
local function give_vectors(self)
  for i = 0, math.huge do
    local part = self.published[i]
    if not part then
      return
    elseif not part.npy and self.dim then
      local name = layout.part_name(i) .. ".npy"
      local path = self.target .. "/" .. name
      os.remove(path)
      local npy = check(core.npy_create(path, self.dim, { f16 = self.f16 }))
      check(npy:append_nan(part.rows))
      check(npy:sync())
      check(npy:close())
      part.npy = name
    end
  end
end

-- ---- putting rows -------------------------------------------------------------------------------

local function wrong_dimension(self, matrix)
  return core.error("decode", ("the endpoint answered with %d dimensions, after %d before"):format(
    matrix:cols(), self.came_as))
end

-- Index of the item -> what is told of its error, also where the client forgot to say one.
local function errors_by_index(self, items, matrix, errors)
  local everybody = not matrix and not self.lines_only and core.error("decode", "no vector came")
    or matrix and self.came_as and matrix:cols() ~= self.came_as and wrong_dimension(self, matrix)
  local by_index = {}
  for _, e in ipairs(errors or {}) do
    by_index[e.index] = e.error
  end
  for i, item in ipairs(items) do
    local err = item.problem or by_index[i] or everybody
    by_index[i] = err and public_error(err) or nil
  end
  return next(by_index) ~= nil and by_index or nil
end

local function note_failures(self, items, errors)
  for i, item in ipairs(items) do
    local err = errors[i]
    if err and (not self.first_error or item.row < self.first_error.row) then
      self.first_error = { row = item.row, kind = err.kind, message = err.message, status = err.status }
    end
  end
end

-- Calls fn(part, i, n, at) for runs of items whose rows follow one another in the same part.
local function each_run(self, items, fn)
  local i, count = 1, #items
  while i <= count do
    local row = items[i].row
    local number = row // self.shard_rows
    local at = row - number * self.shard_rows
    local last, limit = i, math.min(count, i + self.shard_rows - at - 1)
    while last < limit and items[last + 1].row == row + last + 1 - i do
      last = last + 1
    end
    local n = last - i + 1
    check(fn(part_for(self, number), i, n, at))
    self:filled(number)
    i = last + 1
  end
end

--- Puts rows. items: list of {row=, text=, id=, problem=}; matrix: their vectors in the same order, or
--- nil; errors: list of {index=, error=}. A row with a problem or an error has no vector.
function Writer:put(items, matrix, errors)
  if matrix and not self.came_as and #items > #(errors or {}) then
    if self.dim and not self.truncate_dim and matrix:cols() ~= self.dim then
      self.came_as = self.dim
    else
      learn_dim(self, matrix:cols())
    end
  end
  local by_index = errors_by_index(self, items, matrix, errors)
  if by_index then
    note_failures(self, items, by_index)
  end
  if matrix and self.came_as ~= matrix:cols() then
    matrix = nil
  end
  local row = matrix and 1
  each_run(self, items, function(part, i, n, at)
    return part:put(items, i, n, at, matrix, row and i, by_index)
  end)
end

--- Puts rows whose vectors are known as the bytes of a file: a string for each item.
function Writer:put_raw(items, raw)
  each_run(self, items, function(part, i, n, at)
    return part:put_raw(items, i, n, at, n == 1 and raw[i] or table.concat(raw, "", i, i + n - 1))
  end)
end

--- Takes over n rows from `row` on as an earlier job has them at the same place.
function Writer:adopt(records, row, n, bytes, lines)
  local number = row // self.shard_rows
  check(part_for(self, number):adopt(records, n, row - number * self.shard_rows, bytes, lines))
  self:filled(number)
end

--- Takes over a whole part of an earlier job: its files get second names here.
function Writer:link_part(number, info, from)
  local records = from .. "/.job/rows"
  for _, name in ipairs { info.npy or false, info.jsonl } do
    if name then
      os.remove(self.target .. "/" .. name)
      check(core.link(from .. "/" .. name, self.target .. "/" .. name))
    end
  end
  check(core.job_copy_records(records, self.records, number * self.shard_rows, info.rows))
  self.published[number] = info
  self.rows_linked = self.rows_linked + info.rows
end

function Writer:filled(number)
  local have = self.open[number]:counts()
  self.dirty = true
  if have == rows_of(self, number) then
    self.whole = self.whole + 1
    self.work_there:wake()
  end
end

--- The bytes of a row's vector in the file; nil where it has none.
function Writer:raw(row)
  local number = row // self.shard_rows
  local at = row - number * self.shard_rows
  local path
  if self.published[number] then
    if self:record_state(row) ~= 1 then
      return nil
    end
    path = self.target .. "/" .. self.published[number].npy
  elseif self.open[number] and self.open[number]:state(at) == 1 then
    path = base_of(self, number) .. ".npy"
  else
    return nil
  end
  local raw <close> = check(core.job_raw(path, self.dim * (self.f16 and 2 or 4)))
  return check(raw:read(at, 1))
end

function Writer:record_state(row)
  local records <close> = check(core.job_rows(self.records))
  return records:state(row)
end

-- ---- commits ------------------------------------------------------------------------------------

local function commit(self, now)
  self.dirty = false
  for _, number in ipairs(self:open_numbers()) do
    check(self.open[number]:commit(now))
  end
end

function Writer:open_numbers()
  local list = {}
  for number in pairs(self.open) do
    list[#list + 1] = number
  end
  table.sort(list)
  return list
end

local function publish(self, number, rows, now)
  local part, name = self.open[number], layout.part_name(number)
  local info = check(part:publish({
    rows = rows, records = self.records, lines = base_of(self, number) .. ".jsonl",
    npy = self.target .. "/" .. name .. ".npy", jsonl = self.target .. "/" .. name .. ".jsonl",
    dir = self.target,
  }, now))
  local _, failed = part:counts()
  info.first, info.rows, info.failed = number * self.shard_rows, rows, failed
  info.npy, info.jsonl = info.npy_sum and name .. ".npy" or nil, name .. ".jsonl"
  return info
end

local function close_part(self, number)
  self.open[number]:close()
  self.open[number] = nil
  self.n_open = self.n_open - 1
end

local function publish_whole(self, now)
  local any = false
  if self.canary and not now then
    self.canary() -- no part may hold vectors of two models
  end
  for _, number in ipairs(self:open_numbers()) do
    local part, rows = self.open[number], rows_of(self, number)
    local have = part:counts()
    if have == rows and rows > 0 then
      check(part:commit(now))
      self.published[number] = publish(self, number, rows, now)
      self.to_clean[#self.to_clean + 1] = number
      close_part(self, number)
      self.whole = math.max(0, self.whole - 1)
      any = true
    end
  end
  return any
end

local function tend_once(self, now)
  if self.dim ~= self.told_dim then
    write_index(self, false, now) -- without it the logs of a killed job could not be read
  end
  if self.dirty then
    commit(self, now)
  end
  if self.whole > 0 then
    publish_whole(self, now)
    give_vectors(self)
  end
  if #self.to_clean > 0 and core.now() - self.index_at >= INDEX_EVERY then
    write_index(self, false, now)
  end
  self.room:wake()
end

-- Commits every second, and publishes what is whole.
local function tend(self)
  while not self.stopping do
    tend_once(self, false)
    if self.whole == 0 and not self.stopping then
      self.work_there:wait()
    end
  end
end

local function tick(self)
  while not self.stopping do
    core.sleep(COMMIT_EVERY)
    self.work_there:wake()
  end
end

function Writer:pending()
  local bytes = 0
  for _, part in pairs(self.open) do
    bytes = bytes + select(3, part:counts())
  end
  return bytes
end

--- Waits while too much is not on the disk yet.
function Writer:give_way()
  if self:pending() >= COMMIT_BYTES then
    self.work_there:wake()
  end
  while self.tended and self.whole >= CROWD do
    self.work_there:wake()
    self.room:wait()
  end
  self:raise_failure()
end

--- Commits in tasks of the scope until the end of the job. What stops them is raised by give_way.
function Writer:begin(scope)
  self.tended = true
  scope:spawn(tick, self)
  scope:spawn(function()
    local ok, err = xpcall(tend, core.traceback, self)
    self.tended = false
    self.failure = not ok and { err } or nil
    self.room:wake()
  end)
end

--- Ends those tasks; waits for what is under way.
function Writer:stop_tending()
  self.stopping = true
  self.work_there:wake()
  while self.tended do
    self.room:wait()
  end
  self:raise_failure()
end

function Writer:raise_failure()
  if self.failure then
    error(self.failure[1], 0)
  end
end

-- ---- the end ------------------------------------------------------------------------------------

--- So many rows there are.
function Writer:ended(total)
  self.total = total
  self.whole = 1
  self.dirty = true
end

local function close_parts(self)
  for _, number in ipairs(self:open_numbers()) do
    close_part(self, number)
  end
end

-- The rows up to the first that is missing stay readable.
local function leave_readable(self)
  local number = 0
  while self.published[number] do
    number = number + 1
  end
  local part = self.open[number]
  local rows = part and part:gap(0) or 0
  if rows > 0 then
    local info = publish(self, number, rows, true)
    info.partial = true
    self.published[number] = info
  end
end

local function count(self)
  local index = self:index(false)
  self.rows, self.failed = index.rows, index.failed
end

local function finish_whole(self)
  tend_once(self, not core.in_task())
  give_vectors(self)
  count(self)
  if self.rows ~= self.total then
    error(core.error("file", ("%s: %d rows of %d have no result"):format(self.dir, self.total - self.rows,
      self.total)), 0)
  end
  os.remove(self.work .. "/reserve")
  write_index(self, true, not core.in_task())
  self.finished = true
  close_parts(self)
  if self.target ~= self.dir then
    layout.exchange(self.dir)
  end
end

-- Parts of which nothing was committed give their room to those before them.
local function make_room(self)
  local numbers = self:open_numbers()
  for i = #numbers, 2, -1 do
    local base = base_of(self, numbers[i])
    if not core.stat(base .. ".log") then
      close_part(self, numbers[i])
      os.remove(base .. ".npy")
    end
  end
end

-- Each step for itself: where there is no room for one there may be for the next.
local function finish_unfinished(self, full)
  self.finished = true
  os.remove(self.work .. "/reserve")
  if full then
    make_room(self)
  end
  local failure
  local function try(fn, ...)
    local ok, err = pcall(fn, ...)
    failure = failure or not ok and { err } or nil
  end
  for _, number in ipairs(self:open_numbers()) do
    try(function() check(self.open[number]:commit(true)) end)
  end
  try(publish_whole, self, true)
  try(give_vectors, self)
  try(leave_readable, self)
  try(count, self)
  try(write_index, self, false, true)
  close_parts(self)
  if failure then
    error(failure[1], 0)
  end
end

--- Ends the directory. complete = false, for a job that was cut short, leaves the rows up to the first
--- missing one readable, marked as unfinished; the others are kept for the next run. full: the disk is.
function Writer:finish(complete, full)
  if self.finished then
    return
  end
  local _ <close> = self.lock
  self.ledger:close()
  if complete then
    finish_whole(self)
  else
    finish_unfinished(self, full)
  end
end

--- Forgets what was not published: it may be of two models.
function Writer:forget_open()
  for _, number in ipairs(self:open_numbers()) do
    close_part(self, number)
    os.remove(base_of(self, number) .. ".npy")
    os.remove(base_of(self, number) .. ".log")
  end
end

--- Gives the directory up as it is: what was not committed will be asked again.
function Writer:close()
  self.finished = true
  close_parts(self)
  self.lock:close()
end

--- Rows that failed so far.
function Writer:failures()
  local n = 0
  for _, info in pairs(self.published) do
    n = n + info.failed
  end
  for _, part in pairs(self.open) do
    n = n + select(2, part:counts())
  end
  return n
end

--- Vectors' health over all parts, as part:health() tells it.
function Writer:health()
  local sum = { rows = 0, zero = 0, not_finite = 0, identical = 0 }
  local function add(h)
    for name in pairs(sum) do
      sum[name] = sum[name] + (h[name] or 0)
    end
  end
  for _, info in pairs(self.published) do
    add(info.health or {})
  end
  for _, part in pairs(self.open) do
    add(part:health())
  end
  return sum
end

-- ---- beginning ----------------------------------------------------------------------------------

-- Room for the index when there is none left.
local function reserve(self)
  local out = io.open(self.work .. "/reserve", "wb")
  if out then
    out:write(("\0"):rep(RESERVE))
    out:close()
  end
end

-- Parts that are in the index count; of what an unfinished run left in .job, what its logs prove.
local function take_up(self)
  local index = layout.read_index(self.target)
  if not index then
    return
  end
  if (index.dim or 0) > 0 and not self.dim then
    self.dim = index.dim
    self.came_as = index.came_as or not self.truncate_dim and index.dim or nil
  end
  self.run = index.run
  self.about.fingerprint = self.about.fingerprint or index.fingerprint
  for i, part in ipairs(index.parts) do
    if part.partial then
      os.remove(self.target .. "/" .. part.jsonl)
      os.remove(self.target .. "/" .. (part.npy or ""))
    else
      self.published[i - 1] = part
    end
  end
  for _, name in ipairs(check(core.listdir(self.work))) do
    local number = tonumber(name:match "^part%-(%d+)%.log$")
    if number and self.published[number] then
      self.to_clean[#self.to_clean + 1] = number
    elseif number then
      local part = part_for(self, number)
      if part:counts() == self.shard_rows then
        self.whole = self.whole + 1
      end
    end
  end
end

--- store.begin(dir, target, lock, opts): a writer into `target`, dir or a directory below it. opts:
--- shard_rows, text, f16, normalize, truncate_dim, about, identity, source.
function store.begin(dir, target, lock, opts)
  check(layout.make_dirs(target .. "/.job"))
  local self = setmetatable({
    dir = dir, target = target, work = target .. "/.job", records = target .. "/.job/rows", lock = lock,
    shard_rows = opts.shard_rows or SHARD_ROWS, keep_text = opts.text ~= false, f16 = opts.f16,
    lines_only = opts.lines_only,
    normalize = opts.normalize, truncate_dim = opts.truncate_dim, about = opts.about or {},
    identity = opts.identity, source = opts.source, dim = opts.dim, came_as = opts.came_as,
    published = {}, open = {}, n_open = 0, to_clean = {}, whole = 0, rows = 0, failed = 0,
    rows_linked = 0, index_at = core.now(), ledger = core.job_ledger(),
    work_there = core.waitlist(), room = core.waitlist(),
  }, Writer)
  take_up(self)
  write_index(self, false, not core.in_task())
  reserve(self)
  return self
end

return store
