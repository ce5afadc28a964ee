-- moonpool.job.earlier: the rows that earlier runs left, for a job whose input grew, shrank or was
-- edited: a row at its old place, a row with the same text at another place, a part as a whole.
--
-- The first directory is the job itself; others are unfinished jobs that were to take its place.
local core = require "moonpool.core"
local json = require "moonpool.json"
local layout = require "moonpool.job.layout"

local earlier = {}

local check = layout.check

local Earlier = {}
Earlier.__index = Earlier

-- ---- one directory ------------------------------------------------------------------------------

local Old = {}
Old.__index = Old

-- What only logs know goes into the records, where rows are found.
local function settle_logs(dir, index, o)
  local work = dir .. "/.job"
  local published = {}
  for i, part in ipairs(index.parts) do
    published[i - 1] = not part.partial or nil
  end
  for _, name in ipairs(core.listdir(work) or {}) do
    local number = tonumber(name:match "^part%-(%d+)%.log$")
    if number and not published[number] then
      local base = work .. "/" .. layout.part_name(number)
      local part = check(core.job_part {
        npy = base .. ".npy", log = base .. ".log", first = number * index.shard_rows,
        limit = index.shard_rows, cols = index.dim, f16 = o.f16,
      })
      check(part:records(work .. "/rows"))
      part:close()
    end
  end
  return published
end

-- nil: nothing can be taken from there.
local function open_old(dir, o)
  local index = layout.read_index(dir)
  local lines_only = index and index.identity and index.identity.call ~= "embed"
  if not index or not index.shard_rows or (index.dim or 0) == 0 and not lines_only then
    return nil
  end
  local published = settle_logs(dir, index, o)
  local records = core.job_rows(dir .. "/.job/rows")
  return records and setmetatable({
    dir = dir, index = index, published = published, records = records, shard_rows = index.shard_rows,
    stride = index.dim * (index.dtype == "float16" and 2 or 4), lines_only = lines_only,
  }, Old)
end

function Old:raw(row, n)
  local number = row // self.shard_rows
  if self.raw_number ~= number then
    if self.raw_file then
      self.raw_file:close()
    end
    local name = layout.part_name(number) .. ".npy"
    local path = self.published[number] and self.dir .. "/" .. name or self.dir .. "/.job/" .. name
    self.raw_file, self.raw_number = check(core.job_raw(path, self.stride)), number
  end
  return check(self.raw_file:read(row - number * self.shard_rows, n))
end

--- The line of a row with another number.
function Old:line(row, number)
  local value = json.decode(self:lines(row, 1))
  if type(value) == "table" and value.row then
    value.row = number
  end
  return json.encode(value, { sort_keys = true })
end

-- Lines of rows row .. row+n-1, which are asked for in order.
function Old:lines(row, n)
  local number = row // self.shard_rows
  if self.lines_number ~= number or row < self.lines_at then
    if self.lines_file then
      self.lines_file:close()
    end
    local path = self.dir .. "/" .. self.index.parts[number + 1].jsonl
    self.lines_file, self.lines_number = check(core.open_lines(path, 256 << 20)), number
    self.lines_at = number * self.shard_rows
  end
  while self.lines_at < row do
    check(self.lines_file:read(), "a line is missing")
    self.lines_at = self.lines_at + 1
  end
  local list = {}
  for i = 1, n do
    list[i] = check(self.lines_file:read(), "a line is missing")
  end
  self.lines_at = row + n
  list[n + 1] = ""
  return table.concat(list, "\n")
end

function Old:close()
  self.records:close()
  for _, name in ipairs { "raw_file", "lines_file" } do
    if self[name] then
      self[name]:close()
    end
  end
end

-- ---- all of them --------------------------------------------------------------------------------

--- earlier.open(dirs, {f16=, shard_rows=, retry_failed=}) -> what they hold, nil where that is nothing.
function earlier.open(dirs, o)
  local list = {}
  for i, dir in ipairs(dirs) do
    local old = open_old(dir, o)
    if old then
      list[#list + 1] = old
      old.primary = i == 1
    end
  end
  if #list == 0 then
    return nil
  end
  local first = list[1].primary and list[1] or nil
  return setmetatable({
    list = list, first = first, retry_failed = o.retry_failed,
    in_place = first ~= nil and first.shard_rows == o.shard_rows,
  }, Earlier)
end

--- The dimension of their vectors.
function Earlier:dim()
  return self.list[1].index.dim
end

--- The dimension in which they came.
function Earlier:came_as()
  return self.list[1].index.came_as
end

local OK, FAILED, LOCAL = 1, 2, 3

--- What to do with an item: "keep" (the same line at the same place), "copy" and where from, or nil:
--- it must be asked.
function Earlier:look(item)
  local row, first = item.row, self.first
  local same, state = 0, 0
  if first then
    same, state = first.records:match(row, item)
    if same > 0 and state == OK then
      local published = self.in_place and first.published[row // first.shard_rows]
      if same == 1 and published then
        return "keep"
      elseif not first.lines_only or first.published[row // first.shard_rows] then
        return "copy", first, row
      end
    elseif same == 1 and self.in_place and first.published[row // first.shard_rows]
      and (state == LOCAL or state == FAILED and not self.retry_failed) then
      return "keep"
    end
  end
  if item.problem then
    return nil
  end
  for _, old in ipairs(self.list) do
    local at = old.records:find(item)
    if at and (not old.lines_only or old.published[at // old.shard_rows]) then
      return "copy", old, at
    end
  end
  return nil, same > 0 and state == FAILED and "failed" or "new"
end

--- The part of that number, where it is there with exactly so many rows.
function Earlier:part(number, rows)
  local info = self.first and self.first.published[number] and self.first.index.parts[number + 1]
  return info and info.rows == rows and info or nil
end

--- Rows that the job had.
function Earlier:rows()
  local first = self.first
  return first and (first.index.complete and first.index.rows or first.records:size()) or 0
end

function Earlier:close()
  for _, old in ipairs(self.list) do
    old:close()
  end
end
Earlier.__close = Earlier.close

return earlier
