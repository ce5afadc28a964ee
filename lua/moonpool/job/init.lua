-- moonpool.job: rows from a source through an endpoint into a directory that survives anything.
--
--   local job = moonpool.job { source = "texts.txt", sink = "vectors", client = client, model = "m" }
--   local res, err = job:run()
--
-- The same job again goes on where it was stopped; see lua/docs/jobs.md. A sink that is a function
-- gets the batches in order and keeps what it likes.
local core = require "moonpool.core"
local difference = require "moonpool.job.difference"
local options = require "moonpool.options"
local plan = require "moonpool.job.plan"
local run = require "moonpool.job.run"
local source = require "moonpool.job.source"
local R = options.rule

local M = {}

local function callable(v)
  return type(v) == "function" or (getmetatable(v) or {}).__call ~= nil
end

local rules = {
  source = function(v)
    if type(v) ~= "string" and type(v) ~= "table" and not callable(v) then
      return "path, list or iterator expected"
    end
  end,
  sink = function(v)
    if type(v) ~= "string" and not callable(v) then
      return "path or function expected"
    end
  end,
  client = R.any, model = R.text, dimensions = R.count, batch_size = R.count,
  max_concurrent_requests = R.count, field = R.text, id_field = R.text, form = R.text, force = R.boolean,
  strict = R.boolean, retry_failed = R.boolean, dedupe = R.boolean, normalize = R.boolean,
  truncate_dim = R.count, f16 = R.boolean, text = R.boolean, shard_rows = R.count, on_progress = R.func,
  encoding_format = R.any, on_event = R.func, on_plan = R.func, grace = R.positive, options = R.table, about = R.table,
}

local Job = {}
Job.__index = Job
Job.__name = "moonpool.job"

-- ---- what the job is ----------------------------------------------------------------------------

local function identity_of(o)
  return {
    call = "embed", model = o.model, dimensions = o.dimensions, provider = o.provider or "openai",
    field = o.field, normalize = o.normalize or nil, truncate_dim = o.truncate_dim, f16 = o.f16 or nil,
    no_text = o.text == false or nil, options = o.options and core.json_encode(o.options) or nil,
  }
end

local function call_options(o)
  local call = {}
  for name, value in pairs(o.options or {}) do
    call[name] = value
  end
  call.model, call.dimensions, call.batch_size = o.model, o.dimensions, o.batch_size
  call.max_concurrent_requests = o.max_concurrent_requests
  if o.encoding_format ~= nil then
    call.encoding_format = o.encoding_format
  end
  return call
end

local function open_source(o)
  return source.open { input = o.source, field = o.field, id_field = o.id_field, form = o.form }
end

-- ---- into a function ----------------------------------------------------------------------------

local function text_of(item)
  return not item.problem and item.text or nil
end

local function with_problems(batch)
  for _, e in ipairs(batch.errors) do
    e.error = batch.items[e.index].problem or e.error
  end
  return batch
end

local function into_function(self, input)
  local o = self.o
  local res = { rows = 0, failed = 0, asked = 0 }
  local call = call_options(o)
  call.text = text_of
  local function next_item()
    return input:next()
  end
  for batch in o.client:embed_each(next_item, call) do
    o.sink(with_problems(batch))
    res.rows, res.failed = res.rows + #batch.items, res.failed + #batch.errors
    self.rows = res.rows
    if o.on_progress then
      o.on_progress(self)
    end
  end
  return res
end

-- ---- into a directory ---------------------------------------------------------------------------

local function plan_of(self, state)
  local old = self.way.earlier
  return old and difference.figures(self.old_rows, state.n.kept, state.n.moved, state.n.unmatched) or nil
end

local function figures(self, state, writer)
  return {
    rows = writer.rows, failed = writer.failed, first_error = writer.first_error,
    dimensions = writer.dim or 0, parts = #writer:index(true).parts, asked = state.n.asked,
    duplicates = state.n.duplicates, plan = plan_of(self, state),
    tokens = state.tokens,
    health = writer:health(), output = self.o.sink,
  }
end

local function already(index, sink)
  return {
    rows = index.rows, failed = index.failed, dimensions = index.dim, parts = #index.parts, asked = 0,
    finished_before = true, output = sink, tokens = 0,
  }
end

-- What cannot be gone on with must not look like a result.
local function leave_nothing(way)
  if way.created and way.writer.rows == 0 then
    require "moonpool.job.layout".remove_tree(way.dir)
  end
end

local ENOSPC = 28

local function stop(self, way, err)
  local writer = way.writer
  local full = type(err) == "table" and err.errno == ENOSPC
  local ok, why = pcall(writer.finish, writer, false, full)
  self.rows = writer.rows
  if type(err) == "table" and err.nothing then
    leave_nothing(way)
  end
  if not ok and not core.is_error(err) then
    error(err, 0)
  elseif not ok and err.kind ~= "cancelled" then
    err.message = err.message .. "\n" .. tostring(core.is_error(why) and why.message or why)
  end
  error(err, 0)
end

local function changed_input()
  return core.error("changed", "the input changed while it was read "
    .. "(the same command again takes up what changed)")
end

-- Says what the changed input means, where it can be read twice.
local function compare(self, input, way)
  local o = self.o
  self.old_rows = way.earlier:rows()
  if not input.bytes or way.old_index.mode == "force" then
    return
  end
  local same_parts = way.old_index.shard_rows == way.writer.shard_rows and not o.retry_failed
  way.appended = same_parts and way.old_index.complete and difference.appended(input, way.old_index.source)
  if not o.on_plan then
    return
  end
  local again <close> = assert(open_source(o))
  o.on_plan(way.appended and difference.growth(again, self.old_rows)
    or difference.plan(again, way.earlier))
end

local function into_directory(self, input)
  local o = self.o
  local way, err = plan.begin(o.sink, {
    identity = identity_of(o), source = input:identity(), force = o.force, strict = o.strict,
    retry_failed = o.retry_failed, about = o.about, shard_rows = o.shard_rows, text = o.text,
    f16 = o.f16, normalize = o.normalize, truncate_dim = o.truncate_dim,
  })
  if not way then
    return nil, core.error("job", err)
  elseif way.finished then
    return already(way.finished, o.sink)
  end
  self.way = way
  if way.earlier then
    compare(self, input, way)
  end
  local state
  local ok, why = xpcall(function()
    run.go {
      client = o.client, source = input, writer = way.writer, earlier = way.earlier, resumed = way.resumed,
      appended = way.appended,
      call = call_options(o),
      dedupe = o.dedupe ~= false, on_event = o.on_event, on_batch = o.on_batch,
      grace = o.grace,
      started = function(s) state, self.state = s, s end,
      on_progress = o.on_progress and function() o.on_progress(self) end,
    }
    if input:changed() then
      way.writer.source = nil
    end
    way.writer:finish(true)
  end, core.traceback)
  if way.earlier then
    way.earlier:close()
  end
  if not ok then
    stop(self, way, why)
  end
  self.rows = way.writer.rows
  local res = figures(self, state, way.writer)
  res.changed_input = input:changed() and changed_input() or nil
  return res
end

-- ---- the interface ------------------------------------------------------------------------------

--- Runs to the end: a table of figures; or nil and why the sink cannot be used. Raises what stops it.
function Job:run()
  local o = self.o
  local input, err = open_source(o)
  if not input then
    return nil, core.error("file", err)
  end
  local _ <close> = input
  self.input = input
  local started, before = core.now(), o.client:stats().requests or 0
  local work = type(o.sink) == "string" and into_directory or into_function
  local res
  res, err = work(self, input)
  if not res then
    return nil, err
  end
  res.total_time = core.now() - started
  res.requests = (o.client:stats().requests or 0) - before
  res.ok = res.failed == 0 and not res.changed_input
  return res
end

--- How far it is: {rows=, failed=, bytes=, total_bytes=, ...}.
function Job:progress()
  local state, writer = self.state, self.way and self.way.writer
  if not state then
    return { rows = self.rows or 0, failed = 0 }
  end
  return {
    rows = state.row - #state.again, failed = writer and writer:failures() or 0, bytes = self.input:offset(),
    total_bytes = self.input:size(), tokens = state.tokens, asked = state.n.asked,
  }
end

--- moonpool.job { source = path, list or iterator; sink = directory or function; client = } -> job
function M.new(o, level)
  level = (level or 1) + 1
  if type(o) ~= "table" then
    error("job: a table of options expected", level)
  end
  options.check("job", o, rules, level)
  for _, name in ipairs { "source", "sink", "client" } do
    if o[name] == nil then
      error(("job: %s is needed"):format(name), level)
    end
  end
  return setmetatable({ o = o }, Job)
end

return M
