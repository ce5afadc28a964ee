-- moonpool.cli.embed: texts in, a directory of vectors out.
local chunk = require "moonpool.job.chunk"
local core = require "moonpool.core"
local difference = require "moonpool.job.difference"
local endpoint = require "moonpool.cli.endpoint"
local inspect = require "moonpool.job.inspect"
local job = require "moonpool.job"
local parser = require "moonpool.cli.parser"
local progress = require "moonpool.progress"
local summary = require "moonpool.cli.summary"

local embed = {
  name = "embed",
  summary = "Turn texts (lines or records) into a directory of vectors.",
  epilog = [[
OUTDIR gets part-NNNNN.npy (float32 rows; row i over the parts is row i of the input),
part-NNNNN.jsonl (one line a row: row, id, text, error) and index.json, which says
"complete": true only once everything is there. A blank or failed line keeps its place: its
row is NaN and its JSONL line has the error.

The same command again goes on where it was stopped, and asks only for what is new where the input
has changed. What changes the result (model, dimensions, field and the like) must be the same.

A half-filled request is sent when its first text has waited 0.2 s, so a slow pipe comes through as it
goes. With -o - the vectors go to standard output as JSON lines.

Exit status: 0, 1 error, 2 wrong use, 3 done but with failed rows, 130 interrupted.

Examples:
  moonpool embed -i texts.txt -o vectors --url http://127.0.0.1:8089 --model local-demo
  moonpool embed -i docs.jsonl -o vectors --field body --id-field key --model text-embedding-3-small
  moonpool embed -i texts.txt -o vectors --provider tei --url http://gpu:8080 --hedge '2*p95'
  zcat texts.gz | moonpool embed -i - -o vectors --rpm 3000 --tpm 1_000_000 --json]],
}

local function chunking(text)
  local spec, err = chunk.parse(text)
  return spec and text, err
end

function embed.configure(p)
  p:option("-i --input", "Input: text lines, or records if so named; a directory or a glob is all its files; "
    .. "- is standard input."):argname "FILE":count(1)
  p:option("-o --output", "Directory to make, or - for JSON lines on standard output.")
    :argname "OUTDIR":count(1)
  endpoint.configure(p, { call = "embed" })
  p:option("--dimensions", "Dimensions to ask the model for."):argname "N":convert(parser.count)
  p:option("--encoding-format", "How vectors come: base64 (default where it exists), float, bytes or none.")
    :argname "FORMAT":choices { "base64", "float", "bytes", "none" }
  endpoint.configure_batch(p)
  endpoint.configure_bulk(p)
  p:option("--field", "Read records; field that holds the text, by path (default text)."):argname "NAME"
  p:option("--id-field", "Read records; field that holds the row's id (default id)."):argname "NAME"
  p:option("--shard-rows", "Rows in one part (default 50000)."):argname "N":convert(parser.count)
  p:flag("--no-text", "Leave the texts out of the JSONL files.")
  p:flag("--f16", "Store half precision.")
  p:flag("--normalize", "Scale the vectors to length 1.")
  p:option("--truncate-dim", "Keep the first N dimensions of each vector."):argname "N":convert(parser.count)
  p:flag("--retry-failed", "Ask again for the rows that failed; they take their places.")
  p:flag("--strict", "Refuse an input that is not the one OUTDIR was begun with.")
  p:flag("--no-dedupe", "Ask for equal texts as often as they come.")
  p:option("--chunk", "Cut long texts in pieces, for example 'chars=2000,overlap=200'; also words=, tokens=, "
    .. "sentences=."):argname "SPEC":convert(chunking)
  p:option("--cache", "File of SQLite with vectors that were paid for; shared by jobs."):argname "FILE"
  p:option("--cache-size", "Bytes of the cache at most (default 1 GiB).")
    :argname "BYTES":convert(parser.count)
  p:option("--price", "USD for a million tokens, for cost and budget."):argname "USD":convert(parser.positive)
  p:option("--budget", "Stop, to go on later, before more than so many USD are spent; needs --price.")
    :argname "USD":convert(parser.positive)
  p:option("--report", "Page about the job: throughput, latencies, errors, cost, vectors.")
    :argname "FILE.html"
  p:option("--via", "The provider's batch API as transport: cheaper, and done some time within a day.")
    :argname "batch":choices { "batch" }
  p:flag("--dry-run", "Tell rows, tokens at most, requests, cost and time; send nothing.")
  p:option("--on-drift", "Embed fixed texts at the start and before a part is published; stop or warn when "
    .. "the model is not what it was."):argname "WHAT":choices { "stop", "warn" }
  p:flag("--force", "Begin anew; what is in OUTDIR stays until the new job is done.")
  p:flag("--json", "Print the summary as JSON on standard output.")
  p:flag("-q --quiet", "No progress and no summary.")
end

local GRACE = 5 -- s for what is under way when a signal comes

local function fail(message)
  parser.stop(1, "moonpool embed: " .. message .. "\n")
end

local function say(args, text, ...)
  if not args.quiet then
    io.stderr:write(("moonpool embed: " .. text .. "\n"):format(...))
  end
end

-- No secrets here: the client has refused a URL with a user, a password or a query.
local function about(args)
  return {
    url = args.url, model = args.model, provider = args.provider,
    dimensions = args.dimensions, created = os.date "!%Y-%m-%dT%H:%M:%SZ",
  }
end

local function report(args, res, stats)
  local s = summary.figures(res.rows, res.failed, res.total_time, stats)
  s.output, s.dimensions, s.parts, s.model = args.output, res.dimensions, res.parts, args.model
  s.asked, s.tokens, s.requests, s.plan = res.asked, res.tokens, res.requests, res.plan
  s.cost, s.duplicates, s.cached, s.health = res.cost, res.duplicates, res.cached, res.health
  if args.json then
    io.stdout:write(summary.json(s))
  end
  if args.quiet then
    return
  elseif res.finished_before then
    io.stderr:write(("%s holds this job already: %s, %d failed; nothing was asked\n"):format(
      args.output, summary.counted(res.rows, "rows"), res.failed))
    return
  end
  local what = ("embedded %s (%d dimensions) into %s"):format(
    summary.counted(s.rows - s.failed, "rows"), s.dimensions, s.output)
  io.stderr:write(summary.text(what, s, res.first_error))
  if s.cost then
    io.stderr:write(("%s tokens, %.4f USD\n"):format(progress.thousands(s.tokens), s.cost))
  end
  local unsound = res.health and inspect.unsound(res.health)
  if unsound then
    say(args, "these vectors are not sound: %s", unsound)
  end
end

local function dry_run(args, one)
  local e, err = one:estimate { rpm = args.rpm, tpm = args.tpm }
  if not e then
    fail(err.message)
  elseif args.json then
    io.stdout:write(summary.json(e))
  else
    io.stdout:write(("%s, %s to ask (%s blank or bad, %s equal to another, %s there already)\n"):format(
      summary.counted(e.rows, "rows"), progress.thousands(e.asked), progress.thousands(e.failed),
      progress.thousands(e.duplicates), progress.thousands(e.kept)))
    io.stdout:write(("at most %s tokens in %s%s; about %s\n"):format(progress.thousands(e.tokens),
      summary.counted(e.requests, "requests"), e.cost and (", at most %.4f USD"):format(e.cost) or "",
      progress.duration(e.seconds)))
  end
  return 0
end

-- The rows so far stay, marked as unfinished.
local function stopped(args, one, err)
  if core.is_error(err) and err.kind == "cancelled" then
    say(args, "stopped; %s holds the first %s, marked as unfinished; the same command goes on", args.output,
      summary.counted(one.rows or 0, "rows"))
    local interrupted, signal = core.interrupted()
    if not interrupted then
      error(err, 0)
    end
    core.interrupt_over()
    return 128 + signal
  elseif core.is_error(err) then
    if err.kind == "budget" or err.kind == "drift" then
      fail(("%s; %s holds %s; the same command goes on"):format(err.message, args.output,
        summary.counted(one.rows or 0, "rows")))
    end
    fail(tostring((err.kind == "file" or err.nothing) and err.message or err))
  end
  error(err, 0)
end

-- The bar, or a plain line now and then; and what a report is made of.
local function progress_to(args, recorder)
  local bar = not args.quiet and progress.new { plain = true } or nil
  return function(one)
    local due = bar and bar:due()
    if not due and not recorder then
      return
    end
    local state, stats = one:progress(), one.o.client:stats()
    if recorder then
      recorder:sample(state, stats)
    end
    if due then
      bar.total_bytes = state.total_bytes
      state.retries, state.hedges, state.throttled = stats.retries, stats.hedges, stats.throttled
      state.in_flight = stats.in_flight
      bar:update(state)
    end
  end, bar
end

local function write_report(args, res, one, conn, recorder)
  local page = require "moonpool.cli.report".page {
    figures = res, state = one.state, stats = conn:stats(), recorder = recorder, model = args.model,
    url = args.url,
  }
  local ok, err = core.replace_file(args.report, page, not core.in_task())
  if not ok then
    fail(err)
  end
end

local formats = { base64 = "base64", float = "float", bytes = "bytes", none = false }

local function job_of(args, conn, on_progress, bar)
  return job.new {
    source = args.input, sink = args.output, client = conn, model = args.model, dimensions = args.dimensions,
    batch_size = args.batch_size, max_concurrent_requests = args.max_concurrent, field = args.field,
    id_field = args.id_field, force = args.force, strict = args.strict, retry_failed = args.retry_failed,
    grace = core.in_task() and GRACE or nil, dedupe = not args.no_dedupe, normalize = args.normalize,
    truncate_dim = args.truncate_dim, f16 = args.f16, provider = args.provider, price = args.price,
    budget = args.budget, cache = args.cache, cache_size = args.cache_size, chunk = args.chunk,
    on_drift = args.on_drift, via = args.via, detailed = args.report ~= nil,
    encoding_format = formats[args.encoding_format],
    text = not args.no_text, shard_rows = args.shard_rows, about = about(args), on_progress = on_progress,
    on_plan = function(figures)
      say(args, "the input changed: %s", difference.text(figures))
    end,
    on_event = function(text)
      if bar then
        bar:clear()
      end
      say(args, "%s", text)
    end,
  }
end

-- ---- standard output ----------------------------------------------------------------------------

local function to_stdout(args, conn)
  local out <close> = core.open_writer "-"
  local store = require "moonpool.job.store"
  local row = 0
  local one = job.new {
    source = args.input, client = conn, model = args.model, dimensions = args.dimensions,
    batch_size = args.batch_size, max_concurrent_requests = args.max_concurrent, field = args.field,
    id_field = args.id_field, encoding_format = formats[args.encoding_format],
    sink = function(batch)
      local failed = {}
      for _, e in ipairs(batch.errors) do
        failed[e.index] = store.public_error(e.error)
      end
      for i, item in ipairs(batch.items) do
        local vector = not failed[i] and batch.matrix[i]:totable() or nil
        local _, err, errno = out:json({ row = row, id = item.id, vector = vector, error = failed[i] }, true)
        if errno then
          error(core.error("file", err), 0)
        end
        row = row + 1
      end
      local ok, err = out:flush()
      if not ok then
        error(core.error("file", err), 0)
      end
    end,
  }
  local ok, res, err = xpcall(one.run, core.traceback, one)
  if not ok then
    stopped(args, one, res)
  elseif not res then
    fail(err.message)
  end
  return res.failed > 0 and 3 or 0
end

-- ---- the command --------------------------------------------------------------------------------

--- args as parsed; client may be given (tests).
function embed.run(args, client)
  if args.budget and not args.price then
    parser.usage_error("moonpool embed", "--budget needs --price")
  end
  local conn <close> = client or endpoint.connect("moonpool embed", args, "embed")
  if args.output == "-" then
    return to_stdout(args, conn)
  end
  local recorder = args.report and require "moonpool.cli.report".recorder() or nil
  local on_progress, bar = progress_to(args, recorder)
  local one = job_of(args, conn, on_progress, bar)
  if args.dry_run then
    return dry_run(args, one)
  end
  local ok, res, err = xpcall(one.run, core.traceback, one)
  if bar then
    bar:clear()
  end
  if not ok then
    return stopped(args, one, res)
  elseif not res then
    fail(err.message .. (err.kind == "job" and err.message:find " holds "
      and " (choose another directory, or --force to begin anew)" or ""))
  end
  report(args, res, conn:stats())
  if recorder then
    write_report(args, res, one, conn, recorder)
  end
  if res.changed_input then
    fail(res.changed_input.message)
  end
  return res.failed > 0 and 3 or 0
end

return embed
