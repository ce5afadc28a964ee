-- moonpool.job: rows from a source through an endpoint into a directory that survives anything.
--
--   local job = moonpool.job { source = "texts.txt", sink = "vectors", client = client, model = "m" }
--   local res, err = job:run()
--
-- The same job again goes on where it was stopped; see lua/docs/jobs.md. A sink that is a function
-- gets the batches in order and keeps what it likes.
local core = require "moonpool.core"
local inspect = require "moonpool.job.inspect"
local layout = require "moonpool.job.layout"
local earlier = require "moonpool.job.earlier"
local difference = require "moonpool.job.difference"
local chunk = require "moonpool.job.chunk"
local cost = require "moonpool.job.cost"
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
  encoding_format = R.any, on_event = R.func, on_plan = R.func, grace = R.positive, options = R.table,
  about = R.table, provider = R.text, price = R.positive, budget = R.positive, cache = R.text,
  cache_size = R.count, chunk = R.text, on_drift = R.one_of("stop", "warn"), detailed = R.boolean,
  via = R.one_of("batch"),
}

local Job = {}
Job.__index = Job
Job.__name = "moonpool.job"

-- ---- what the job is ----------------------------------------------------------------------------

local function identity_of(o)
  return {
    chunk = o.chunk, call = "embed", model = o.model, dimensions = o.dimensions,
    provider = o.provider or "openai", field = o.field, normalize = o.normalize or nil,
    truncate_dim = o.truncate_dim, f16 = o.f16 or nil, no_text = o.text == false or nil,
    options = o.options and core.json_encode(o.options, { sort_keys = true }) or nil,
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
  local input, err = source.open { input = o.source, field = o.field, id_field = o.id_field, form = o.form }
  if input and o.chunk then
    return chunk.source(input, chunk.parse(o.chunk))
  end
  return input, err
end

-- Everything that makes a text's vector what it is.
local function space_of(o)
  return core.json_encode({
    provider = o.provider or "openai", model = o.model, dimensions = o.dimensions, options = o.options,
  }, { sort_keys = true })
end

local function open_cache(o)
  if not o.cache then
    return nil
  end
  local db, err = require "moonpool.job.cache".open(o.cache, { size = o.cache_size })
  if not db then
    error(core.error("file", err), 0)
  end
  db:use(space_of(o))
  return db
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
    duplicates = state.n.duplicates, cached = state.n.cached, plan = plan_of(self, state),
    tokens = state.meter.tokens, cost = state.meter:cost(), health = writer:health(), output = self.o.sink,
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

-- What the job took in all its runs, for its index.
local function note_run(self)
  local o, state, before = self.o, self.state, self.run_before or {}
  self.way.writer.run = {
    requests = (before.requests or 0) + (o.client:stats().requests or 0) - self.requests_before,
    tokens = state and state.meter:total_tokens() or before.tokens,
    seconds = (before.seconds or 0) + core.now() - self.started,
    cost = state and state.meter:cost() or before.cost,
  }
end

-- ---- is it still the same model? ----------------------------------------------------------------

local function drifted(self, how)
  local o = self.o
  local text = ("the model is not what it was: fixed texts have a cosine of %.4f with their earlier vectors")
    :format(how.cosine)
  if o.on_drift == "stop" then
    error(core.error("drift", text, { drift = true }), 0)
  elseif o.on_event then
    o.on_event(text)
  end
end

-- Fixed texts at the start, and before any part is published.
local function watch_drift(self, writer, before)
  local o = self.o
  if not o.on_drift then
    return
  end
  local like = before and before.fingerprint
  local function look()
    local found, err = o.client:fingerprint { model = o.model, dimensions = o.dimensions, like = like }
    if not found and err and not err.cosine then
      error(err, 0)
    elseif like and not found.same then
      drifted(self, found)
    elseif not like then
      like = found
      writer.about.fingerprint = found
    end
  end
  writer.about.fingerprint = like
  look()
  writer.canary = look
end

-- What is wrong with the vectors is said once, as soon as it shows.
local function watch_health(self)
  local o, told = self.o, false
  return function(health)
    local unsound = not told and inspect.unsound(health)
    if not unsound then
      return
    end
    told = true
    if o.on_drift == "stop" then
      error(core.error("drift", "the vectors are not sound: " .. unsound, { drift = true }), 0)
    elseif o.on_event then
      o.on_event("the vectors are not sound: " .. unsound)
    end
  end
end

local ENOSPC = 28

local function stop(self, way, err)
  local writer = way.writer
  local full = type(err) == "table" and err.errno == ENOSPC
  note_run(self)
  if type(err) == "table" and err.drift then
    writer:forget_open()
  end
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

-- From the earlier rows, through the endpoint, into the directory.
local function through(self, input, way)
  local o = self.o
  if way.earlier then
    compare(self, input, way)
  end
  local before = layout.read_index(way.dir) or {}
  self.run_before = way.writer.target == way.dir and before.run or way.old_index and before.run or {}
  self.cache = open_cache(o)
  watch_drift(self, way.writer, not o.force and before or nil)
  run.go {
    client = o.client, source = input, writer = way.writer, earlier = way.earlier, resumed = way.resumed,
    appended = way.appended, call = call_options(o), dedupe = o.dedupe ~= false, on_event = o.on_event,
    each = o.via == "batch" and require "moonpool.job.batch".each(way.writer) or nil,
    probe = o.via ~= "batch", cache = self.cache, detailed = o.detailed, grace = o.grace,
    on_health = watch_health(self),
    meter = cost.meter { price = o.price, budget = o.budget, before = self.run_before },
    started = function(state) self.state = state end,
    on_progress = o.on_progress and function() o.on_progress(self) end,
  }
  if input:changed() then
    way.writer.source = nil
  end
  note_run(self)
  way.writer:finish(true)
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
  local ok, why = xpcall(through, core.traceback, self, input, way)
  if way.earlier then
    way.earlier:close()
  end
  if self.cache then
    self.cache:close()
  end
  if not ok then
    stop(self, way, why)
  end
  self.rows = way.writer.rows
  local res = figures(self, self.state, way.writer)
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
  self.started, self.requests_before = started, before
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

--- What it would take, with nothing sent: rows, those to ask, tokens at most, requests, USD, seconds.
function Job:estimate(limits)
  local o = self.o
  local input, err = open_source(o)
  if not input then
    return nil, core.error("file", err)
  end
  local _ <close> = input
  local old
  if type(o.sink) == "string" and not o.force and not core.is_locked(o.sink .. "/.job/lock") then
    local index = layout.read_index(o.sink)
    old = index and earlier.open({ o.sink }, { f16 = o.f16, shard_rows = index.shard_rows,
      retry_failed = o.retry_failed })
  end
  local e = cost.estimate(input, {
    earlier = old, dedupe = o.dedupe ~= false, batch_size = o.batch_size, price = o.price,
    max_concurrent = o.max_concurrent_requests, rpm = limits and limits.rpm, tpm = limits and limits.tpm,
  })
  if old then
    old:close()
  end
  return e
end

--- How far it is: {rows=, failed=, bytes=, total_bytes=, ...}.
function Job:progress()
  local state, writer = self.state, self.way and self.way.writer
  if not state then
    return { rows = self.rows or 0, failed = 0 }
  end
  return {
    rows = state.row - #state.again - state.in_flight, failed = writer and writer:failures() or 0,
    bytes = self.input:offset(), total_bytes = self.input:size(), tokens = state.meter.tokens,
    asked = state.n.asked, cost = state.meter:cost(), in_flight = state.in_flight,
  }
end

--- moonpool.job { source = path, list or iterator; sink = directory or function; client = } -> job
function M.new(o, level)
  level = (level or 1) + 1
  if type(o) ~= "table" then
    error("job: a table of options expected", level)
  end
  options.check("job", o, rules, level)
  local _, why = chunk.parse(o.chunk or "chars=1")
  if why then
    error("job: chunk: " .. why, level)
  elseif o.budget and not o.price then
    error("job: a budget needs a price", level)
  end
  for _, name in ipairs { "source", "sink", "client" } do
    if o[name] == nil then
      error(("job: %s is needed"):format(name), level)
    end
  end
  return setmetatable({ o = o }, Job)
end

return M
