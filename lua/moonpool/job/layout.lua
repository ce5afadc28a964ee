-- moonpool.job.layout: the directory of a job, its names, its index, its lock, and how one job's files
-- take the place of another's.
--
--   part-00000.npy    float32 rows; row i over the parts in name order is row i of the input
--   part-00000.jsonl  one line a row; "row" counts from 0 over all parts
--   index.json        what the parts are; "complete": true only when the job is done
--   .job/             what the job needs to go on: a lock, the records of all rows, the parts being filled
--   .next/            a job that will take this one's place, in the same form
local core = require "moonpool.core"
local json = require "moonpool.json"

local layout = {}

layout.FORMAT = "moonpool-vectors"

--- Files fail by raising an error table: there is nothing a job could do but stop.
function layout.check(ok, message, errno)
  if not ok then
    error(core.error("file", message, { errno = errno }), 0)
  end
  return ok
end
local check = layout.check

function layout.make_dirs(path)
  if core.stat(path) then
    return true
  end
  local parent = path:match "^(.*[^/])/+[^/]+/*$"
  if parent then
    local ok, err = layout.make_dirs(parent)
    if not ok then
      return nil, err
    end
  end
  return core.mkdir(path, tonumber("700", 8))
end

--- Removes a directory and what is in it; one that is not there is fine.
function layout.remove_tree(path)
  local stat = core.stat(path)
  if not stat then
    return
  elseif stat.type ~= "directory" then
    check(os.remove(path))
    return
  end
  for _, name in ipairs(check(core.listdir(path))) do
    layout.remove_tree(path .. "/" .. name)
  end
  check(core.rmdir(path))
end

function layout.is_part(name)
  return name:match "^part%-%d+%.npy$" ~= nil or name:match "^part%-%d+%.jsonl$" ~= nil
end

function layout.part_name(number)
  return ("part-%05d"):format(number)
end

-- ---- the index ----------------------------------------------------------------------------------

--- The index of a directory; nil and the reason.
function layout.read_index(dir)
  local path = dir .. "/index.json"
  local file, err = io.open(path, "rb")
  if not file then
    return nil, err
  end
  local text = file:read "a"
  file:close()
  local index, why = json.decode(text or "")
  if type(index) ~= "table" or index.format ~= layout.FORMAT then
    return nil, ("%s: %s"):format(path, why or "not the index of a vector directory")
  end
  return index
end

--- now: without waiting, at the end of a task that may wait no more.
function layout.write_index(dir, index, now)
  local text = check(json.encode(index, { sort_keys = true }))
  check(core.replace_file(dir .. "/index.json", text .. "\n", now or not core.in_task()))
end

-- ---- the lock -----------------------------------------------------------------------------------

--- Takes the directory for this process: a lock to close; or nil and who has it.
function layout.lock(dir)
  check(layout.make_dirs(dir .. "/.job"))
  local lock, other, code = core.lock_file(dir .. "/.job/lock")
  if lock then
    return lock
  elseif code == "locked" then
    return nil, ("%s is in use by process %s"):format(dir, other:match "%d+" or "unknown")
  end
  return nil, other
end

-- ---- one job's files in the place of another's --------------------------------------------------

local function each_part(dir, fn)
  for _, name in ipairs(check(core.listdir(dir))) do
    if layout.is_part(name) then
      fn(name)
    end
  end
end

-- What the new job has no part of goes; only then does the index change.
local function drop_others(dir, index)
  local keep = {}
  for _, part in ipairs(index.parts) do
    keep[part.jsonl] = true
    if part.npy then
      keep[part.npy] = true
    end
  end
  each_part(dir, function(name)
    if not keep[name] then
      check(os.remove(dir .. "/" .. name))
    end
  end)
end

local function drop_donors(dir)
  for _, name in ipairs(check(core.listdir(dir))) do
    if name:match "^%.earlier%-%d+$" then
      layout.remove_tree(dir .. "/" .. name)
    end
  end
end

-- Every step may have been done before a kill.
local function roll_forward(dir)
  local next_dir = dir .. "/.next"
  local index = layout.read_index(next_dir)
  if index then
    each_part(next_dir, function(name)
      check(core.rename(next_dir .. "/" .. name, dir .. "/" .. name))
    end)
    if core.stat(next_dir .. "/.job/rows") then
      check(core.rename(next_dir .. "/.job/rows", dir .. "/.job/rows"))
    end
    for _, name in ipairs(check(core.listdir(dir .. "/.job"))) do
      if name:match "^part%-" then
        check(os.remove(dir .. "/.job/" .. name))
      end
    end
    check(core.fsync(dir))
    check(core.rename(next_dir .. "/index.json", dir .. "/index.json"))
    check(core.fsync(dir))
  end
  drop_others(dir, check(layout.read_index(dir)))
  drop_donors(dir)
  layout.remove_tree(next_dir .. "/.job")
  check(os.remove(next_dir .. "/ready"))
  layout.remove_tree(next_dir)
end

--- Finishes an exchange that a kill cut short.
function layout.recover(dir)
  if core.stat(dir .. "/.next/ready") then
    roll_forward(dir)
  end
end

--- The job in .next, which is complete, becomes the directory's.
function layout.exchange(dir)
  check(core.replace_file(dir .. "/.next/ready", "ready\n", not core.in_task()))
  roll_forward(dir)
end

--- Puts an unfinished .next aside, so that its rows can be had from there.
function layout.set_aside(dir)
  local n = 1
  while core.stat(("%s/.earlier-%d"):format(dir, n)) do
    n = n + 1
  end
  check(core.rename(dir .. "/.next", ("%s/.earlier-%d"):format(dir, n)))
end

--- The directories that were put aside.
function layout.aside(dir)
  local list = {}
  for _, name in ipairs(core.listdir(dir) or {}) do
    if name:match "^%.earlier%-%d+$" then
      list[#list + 1] = dir .. "/" .. name
    end
  end
  table.sort(list)
  return list
end

return layout
