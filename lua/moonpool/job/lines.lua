-- moonpool.job.lines: rerank, classify and post as jobs that survive: the same store, without vectors.
--
-- A command says how a value becomes an item (its `parse`), what stands for it (`content`), how items are
-- asked (`call`, which sets their `line` or `error`), and how an error is told (`error_line`).
local core = require "moonpool.core"
local difference = require "moonpool.job.difference"
local cost = require "moonpool.job.cost"
local json = require "moonpool.json"
local layout = require "moonpool.job.layout"
local plan = require "moonpool.job.plan"
local rowjob = require "moonpool.job.rows"
local run = require "moonpool.job.run"

local lines = {}

local function text_of(value)
  local text = json.encode(value, { sort_keys = true })
  return text or json.encode({ error = { kind = "decode", message = "the reply has no form in JSON" } })
end

-- Items that know what they are, for who reads the earlier rows.
local function keyed(inner, content)
  return setmetatable({
    next = function()
      local item = inner:next()
      if item and not item.key then
        item.key = item.problem and (item.problem.message or "") or text_of(content(item))
      end
      return item
    end,
  }, { __index = function(_, name)
    local value = inner[name]
    return type(value) == "function" and function(_, ...) return value(inner, ...) end or value
  end })
end

local function each_by(o)
  return function(_, source)
    return rowjob.each {
      next_item = source, size = o.size, window = o.window,
      call = function(items)
        o.call(items)
        for _, item in ipairs(items) do
          item.json = text_of(item.error and o.error_line(item) or item.line)
        end
      end,
    }
  end
end

local function open(o)
  local inner, err = rowjob.items(o.source)
  return inner and keyed(inner, o.content), err
end

local function stop(way, err)
  pcall(way.writer.finish, way.writer, false)
  if type(err) == "table" and err.nothing and way.created and way.writer.rows == 0 then
    layout.remove_tree(way.dir)
  end
  error(err, 0)
end

local function compare(o, way)
  if not o.on_plan or not o.input.bytes then
    return
  end
  local again = assert(open(o))
  o.on_plan(difference.plan(again, way.earlier))
  again:close()
end

--- lines.run { source = of rowjob.items, dir=, client=, identity=, content=, call=, error_line=, size=,
--- window=, force=, strict=, retry_failed=, ... } -> figures; nil and why the directory cannot be used.
function lines.run(o)
  local input, err = open(o)
  if not input then
    return nil, core.error("file", err)
  end
  o.input = input
  local way, why = plan.begin(o.dir, {
    identity = o.identity, source = input:identity(), force = o.force, strict = o.strict,
    retry_failed = o.retry_failed, about = o.about, shard_rows = o.shard_rows, lines_only = true,
  })
  if not way then
    return nil, core.error("job", why)
  elseif way.finished then
    return { rows = way.finished.rows, failed = way.finished.failed, finished_before = true, asked = 0 }
  end
  local ok, state = xpcall(function()
    if way.earlier then
      compare(o, way)
    end
    local state = run.go {
      client = o.client, source = input, writer = way.writer, earlier = way.earlier, resumed = way.resumed,
      call = { batch_size = o.size }, dedupe = false, on_event = o.on_event, grace = o.grace,
      meter = cost.meter {}, each = each_by(o), on_progress = o.on_progress,
      problem_line = function(item) return text_of(o.error_line(item)) end,
    }
    if input:changed() then
      way.writer.source = nil
    end
    way.writer:finish(true)
    return state
  end, core.traceback)
  if way.earlier then
    way.earlier:close()
  end
  input:close()
  if not ok then
    stop(way, state)
  end
  return {
    rows = way.writer.rows, failed = way.writer.failed, first_error = way.writer.first_error,
    asked = state.n.asked, changed_input = input:changed(),
  }
end

return lines
