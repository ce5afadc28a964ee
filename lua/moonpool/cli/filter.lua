-- moonpool.cli.filter: what `moonpool rerank`, `classify` and `post` share: lines from a file or a
-- pipe, lines of JSON to one, an endpoint in between.
local core = require "moonpool.core"
local difference = require "moonpool.job.difference"
local endpoint = require "moonpool.cli.endpoint"
local lines = require "moonpool.job.lines"
local parser = require "moonpool.cli.parser"
local progress = require "moonpool.progress"
local rowjob = require "moonpool.job.rows"
local summary = require "moonpool.cli.summary"

local filter = {}

filter.MAX_CONCURRENT = 128
filter.GRACE = 5 -- s

--- Options for where from and where to.
function filter.configure_files(p, input_help)
  p:option("-i --input", input_help .. " - is standard input, the default.")
    :argname "FILE":default "-":show_default(false)
  p:option("-o --output", "File to make, of JSON lines; - is standard output, the default; a directory, or a "
    .. "name without a suffix, is one that survives a kill."):argname "FILE":default "-":show_default(false)
  p:flag("--force", "Replace what is there.")
  p:flag("--retry-failed", "Ask again for the rows of a directory that failed.")
  p:flag("--strict", "Refuse an input that is not the one the directory was begun with.")
end

--- Options for what is told of the job.
function filter.configure_report(p)
  p:flag("--json", "Print the summary as JSON: on standard output, or where the rows are on that, on "
    .. "standard error.")
  p:flag("-q --quiet", "No progress and no summary.")
end

function filter.fail(name, message)
  parser.stop(1, ("moonpool %s: %s\n"):format(name, message))
end

-- Results cost money: they are not written over without being told.
local function check_output(name, args)
  local stat = args.output ~= "-" and core.stat(args.output)
  if stat and stat.type == "file" and stat.size > 0 then
    if args.output == args.input then
      filter.fail(name, args.output .. " is also the input")
    elseif not args.force then
      filter.fail(name, args.output .. " is there already (choose another file, or --force to replace it)")
    end
  end
end

local function open_output(name, args)
  local out, err = core.open_writer(args.output)
  return out or filter.fail(name, err)
end

-- A bar amid the rows on a terminal would only be in the way.
local function bar_for(args, source)
  if args.quiet or args.output == "-" and core.isatty(1) then
    return nil
  end
  return progress.new { total_bytes = source:size() }
end

local function report(command, args, job, seconds)
  local tally = job.tally
  local s = summary.figures(tally.rows, tally.failed, seconds, job.client:stats())
  s.output, s.model = args.output ~= "-" and args.output or nil, args.model
  if args.json then
    local to = args.output == "-" and io.stderr or io.stdout
    to:write(summary.json(s))
  elseif not args.quiet then
    local what = ("%s %s%s"):format(command.done, summary.counted(tally.rows - tally.failed, "rows"),
      s.output and " into " .. s.output or "")
    io.stderr:write(summary.text(what, s, tally.first_error))
  end
end

-- Nothing here waits: the task may be cancelled.
local function stopped(name, args, tally, err)
  if core.is_error(err) and err.kind == "cancelled" then
    if not args.quiet then
      io.stderr:write(("moonpool %s: stopped after %s\n"):format(name, summary.counted(tally.rows, "rows")))
    end
  elseif core.is_error(err) then
    filter.fail(name, tostring(err.kind == "file" and err.message or err))
  end
  error(err, 0)
end

local function run_job(command, args, job, bar)
  local tally = job.tally
  function job.on_batch()
    if bar and bar:due() then
      bar:update { rows = tally.rows, failed = tally.failed, bytes = tally.bytes,
        retries = job.client:stats().retries }
    end
  end
  local ok, err = xpcall(command.job, core.traceback, args, job)
  if bar then
    bar:clear()
  end
  if not ok then
    stopped(command.name, args, tally, err)
  end
end

-- ---- into a directory ---------------------------------------------------------------------------

-- A directory, or a name without a suffix that may become one.
local function is_directory(path)
  local stat = path ~= "-" and core.stat(path)
  if path == "-" or stat then
    return stat and stat.type == "directory"
  elseif path:find "/$" then
    return true
  end
  local parent = core.stat(path:match "^(.*/)[^/]*$" or ".")
  return parent and parent.type == "directory" and not path:match "([^/]*)$":find("%.")
end

local function report_directory(command, args, res, client, seconds)
  local s = summary.figures(res.rows, res.failed, seconds, client:stats())
  s.output, s.model, s.asked = args.output, args.model, res.asked
  if args.json then
    io.stdout:write(summary.json(s))
  elseif not args.quiet and res.finished_before then
    io.stderr:write(("%s holds this job already: %s, %d failed; nothing was asked\n"):format(args.output,
      summary.counted(res.rows, "rows"), res.failed))
  elseif not args.quiet then
    local what = ("%s %s into %s"):format(command.done, summary.counted(res.rows - res.failed, "rows"),
      args.output)
    io.stderr:write(summary.text(what, s, res.first_error))
  end
end

local function ended(command, args, err)
  if core.is_error(err) and err.kind == "cancelled" and core.interrupted() then
    if not args.quiet then
      io.stderr:write(("moonpool %s: stopped; the same command goes on\n"):format(command.name))
    end
    local _, signal = core.interrupted()
    core.interrupt_over()
    return 128 + signal
  elseif core.is_error(err) then
    filter.fail(command.name, tostring((err.kind == "file" or err.nothing) and err.message or err))
  end
  error(err, 0)
end

local function say_to(command, args)
  return function(text)
    if not args.quiet then
      io.stderr:write(("moonpool %s: %s\n"):format(command.name, text))
    end
  end
end

local function run_directory(command, args, client)
  local conn <close> = client or endpoint.connect("moonpool " .. command.name, args, command.call)
  local o = command.durable(args, conn)
  local say, started = say_to(command, args), core.now()
  o.source, o.dir, o.client = command.source(args), args.output, conn
  o.force, o.strict, o.retry_failed = args.force, args.strict, args.retry_failed
  o.about = { model = args.model, url = args.url, provider = args.provider }
  o.on_event, o.grace = say, core.in_task() and filter.GRACE or nil
  o.on_plan = function(figures)
    say("the input changed: " .. difference.text(figures))
  end
  local ok, res, err = xpcall(lines.run, core.traceback, o)
  if not ok then
    return ended(command, args, res)
  elseif not res then
    filter.fail(command.name, err.message .. (err.message:find " holds "
      and " (choose another directory, or --force to begin anew)" or ""))
  end
  report_directory(command, args, res, conn, core.now() - started)
  if res.changed_input then
    filter.fail(command.name, "the input changed while it was read (the same command again takes up what "
      .. "changed)")
  end
  return res.failed > 0 and 3 or 0
end

--- Runs a command: command.source(args) gives the options of rowjob.source, command.job(args, job) does
--- the work, job = {source, client, out, tally, on_batch}; command.call names the call that the provider
--- must have. client may be given (tests).
function filter.run(command, args, client)
  if command.durable and is_directory(args.output) and not args.query then
    return run_directory(command, args, client)
  elseif args.retry_failed or args.strict then
    parser.usage_error("moonpool " .. command.name, "--retry-failed and --strict go with a directory")
  end
  local source <close>, why = rowjob.source(command.source(args)) -- luacheck: ignore
  if not source then
    filter.fail(command.name, why)
  end
  local conn <close> = client or endpoint.connect("moonpool " .. command.name, args, command.call)
  check_output(command.name, args)
  local out <close> = open_output(command.name, args)
  local job = { source = source, client = conn, out = out, tally = rowjob.tally() }
  local started = core.now()
  run_job(command, args, job, bar_for(args, source))
  local ok, err = out:close()
  if not ok then
    filter.fail(command.name, err)
  end
  report(command, args, job, core.now() - started)
  return job.tally.failed > 0 and 3 or 0
end

return filter
