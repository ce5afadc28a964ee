-- moonpool.job.plan: what a command means for a directory that may hold an earlier job: a new job, the
-- rest of an unfinished one, nothing at all, or another input for the same job.
local core = require "moonpool.core"
local earlier = require "moonpool.job.earlier"
local layout = require "moonpool.job.layout"
local store = require "moonpool.job.store"

local plan = {}

-- What changes the vectors or their lines, by the words for it.
local names = {
  { "call", "the command" }, { "model", "the model" }, { "dimensions", "the dimensions" },
  { "provider", "the provider" }, { "options", "the rest of the options" }, { "field", "the field" },
  { "chunk", "the chunking" }, { "normalize", "normalising" }, { "truncate_dim", "the cut of the vectors" },
  { "f16", "half precision" }, { "int8", "8-bit precision" }, { "no_text", "leaving out the texts" },
}

local function shown(value)
  return value == nil and "unset" or type(value) == "string" and "'" .. value .. "'" or tostring(value)
end

--- nil; or the first thing in which two identities differ, in words.
function plan.difference(before, now)
  for _, name in ipairs(names) do
    local a, b = before[name[1]], now[name[1]]
    if a ~= b then
      return ("%s was %s there and is %s now"):format(name[2], shown(a), shown(b))
    end
  end
end

local function same_source(index, source)
  return source ~= nil and type(index.source) == "table" and index.source.sum == source.sum
end

-- ---- what is there ------------------------------------------------------------------------------

local function parts_in(dir)
  for _, name in ipairs(core.listdir(dir) or {}) do
    if layout.is_part(name) then
      return true
    end
  end
  return false
end

-- nil, or why the directory cannot be gone on with.
local function obstacle(dir, index, o)
  if not index then
    return parts_in(dir) and dir .. " holds parts of a job without its index" or nil
  elseif type(index.identity) ~= "table" then
    return ("%s holds a job of %d rows by an earlier version"):format(dir, index.rows or 0)
  end
  local difference = plan.difference(index.identity, o.identity)
  return difference and ("%s holds another job: %s"):format(dir, difference) or nil
end

local function refuse_changes(dir, index, source)
  local rows = index.rows or 0
  return nil, ("%s holds a job of %d rows of another input, and --strict refuses to change it%s"):format(dir,
    rows, source and "" or " (standard input cannot be compared before it is read)")
end

-- ---- the ways -----------------------------------------------------------------------------------

local function writer(dir, target, lock, o, shard_rows, old)
  local options = {}
  if old then
    options.dim = old:dim() > 0 and old:dim() or nil
    options.came_as = old:came_as() or not o.truncate_dim and options.dim or nil
  end
  for name, value in pairs(o) do
    options[name] = value
  end
  options.shard_rows = shard_rows or o.shard_rows
  return store.begin(dir, target, lock, options)
end

local function start(dir, lock, o)
  return { writer = writer(dir, dir, lock, o) }
end

local function go_on(dir, lock, index, o)
  return { writer = writer(dir, dir, lock, o, index.shard_rows), resumed = true }
end

-- In .next, from nothing: the old job stays whole until the new one is.
local function anew(dir, lock, o)
  local next_index = layout.read_index(dir .. "/.next")
  local resume = next_index and next_index.mode == "force" and same_source(next_index, o.source)
    and not plan.difference(next_index.identity or {}, o.identity)
  if not resume then
    layout.remove_tree(dir .. "/.next")
  end
  o.about.mode = "force"
  local out = writer(dir, dir .. "/.next", lock, o, resume and next_index.shard_rows)
  return { writer = out, resumed = resume }
end

-- In .next, with all that can be had from the old job.
local function changed(dir, lock, index, o)
  local next_index = layout.read_index(dir .. "/.next")
  local mode = o.retry_failed and "retry" or "change"
  local resume = next_index and next_index.mode == mode and same_source(next_index, o.source)
    and not plan.difference(next_index.identity or {}, o.identity)
  if next_index and not resume and next_index.identity
    and not plan.difference(next_index.identity, o.identity) then
    layout.set_aside(dir)
  elseif not resume then
    layout.remove_tree(dir .. "/.next")
  end
  o.about.mode = mode
  local shard_rows = index.shard_rows
  local dirs = layout.aside(dir)
  table.insert(dirs, 1, dir)
  local old = earlier.open(dirs, { f16 = o.f16, shard_rows = shard_rows, retry_failed = o.retry_failed })
  local out = writer(dir, dir .. "/.next", lock, o, shard_rows, old)
  return { writer = out, earlier = old, resumed = resume, old_index = index }
end

local function finished(index, o)
  return index.complete and same_source(index, o.source) and not (o.retry_failed and index.failed > 0)
end

local function choose(dir, lock, o)
  local index = layout.read_index(dir)
  local why = obstacle(dir, index, o)
  if o.force and (index or why) then
    return anew(dir, lock, o)
  elseif why then
    return nil, why
  elseif not index then
    return start(dir, lock, o)
  elseif finished(index, o) then
    return { finished = index }
  elseif not index.complete and same_source(index, o.source) and not o.retry_failed then
    return go_on(dir, lock, index, o)
  elseif o.strict and not same_source(index, o.source) then
    return refuse_changes(dir, index, o.source)
  end
  return changed(dir, lock, index, o)
end

--- plan.begin(dir, {identity=, source=, force=, strict=, retry_failed=, about=, ...store's}) ->
--- {writer=, earlier=, resumed=} or {finished = index}; nil and the reason.
function plan.begin(dir, o)
  dir = dir:match "^(.-[^/])/*$" or dir
  local stat = core.stat(dir)
  if stat and stat.type ~= "directory" then
    return nil, dir .. ": not a directory"
  end
  local ok, err = layout.make_dirs(dir)
  if not ok then
    return nil, err
  end
  local lock, who = layout.lock(dir)
  if not lock then
    return nil, who
  end
  o.about = o.about or {}
  local good, way, why = pcall(function()
    layout.recover(dir)
    return choose(dir, lock, o)
  end)
  if not good or not way or way.finished then
    lock:close()
  end
  if not good then
    error(way, 0)
  elseif way then
    way.dir = dir
    way.created = not stat
  end
  return way, why
end

return plan
