-- moonpool embed: texts in, a directory of vectors out.
local core = require "moonpool.core"
local embedjob = require "moonpool.embedjob"
local endpoint = require "moonpool.cli.endpoint"
local json = require "moonpool.json"
local parser = require "moonpool.cli.parser"
local progress = require "moonpool.progress"
local vectordir = require "moonpool.vectordir"

local embed = {
  name = "embed",
  summary = "Turn texts (lines or JSONL) into a directory of vectors.",
  epilog = [[
OUTDIR gets part-NNNNN.npy (float32 rows; row i over the parts is row i of the input),
part-NNNNN.jsonl (one line a row: row, id, text, error) and index.json, which says
"complete": true only once everything is there. A blank or failed line keeps its place: its
row is NaN and its JSONL line has the error.

Exit status: 0, 1 error, 2 wrong use, 3 done but with failed rows, 130 interrupted.]],
}

function embed.configure(p)
  p:option("-i --input", "Input: text lines, or JSONL if so named; - is standard input.")
    :argname "FILE":count(1)
  p:option("-o --output", "Directory to make."):argname "OUTDIR":count(1)
  endpoint.configure(p)
  p:option("--dimensions", "Dimensions to ask the model for."):argname "N":convert(parser.count)
  endpoint.configure_bulk(p)
  p:option("--field", "Read JSONL; field that holds the text (default text)."):argname "NAME"
  p:option("--id-field", "Read JSONL; field that holds the row's id (default id)."):argname "NAME"
  p:option("--shard-rows", "Rows in one part (default 50000)."):argname "N":convert(parser.count)
  p:flag("--no-text", "Leave the texts out of the JSONL files.")
  p:flag("--f16", "Store half precision.")
  p:flag("--force", "Replace what an earlier job left in OUTDIR.")
  p:flag("--json", "Print the summary as JSON on standard output.")
  p:flag("-q --quiet", "No progress and no summary.")
end

local function fail(message)
  parser.stop(1, "moonpool embed: " .. message .. "\n")
end

-- No secrets here: the client has refused a URL with a user, a password or a query.
local function about(args)
  return {
    url = args.url, model = args.model, provider = args.provider,
    dimensions = args.dimensions, created = os.date "!%Y-%m-%dT%H:%M:%SZ",
  }
end

local function create(args)
  local out, err = vectordir.create(args.output, {
    force = args.force, shard_rows = args.shard_rows, text = not args.no_text, f16 = args.f16,
    about = about(args),
  })
  if not out then
    fail(err .. (err:find "holds" and " (choose another directory, or --force to replace it)" or ""))
  end
  return out
end

local function summary(args, out, stats, seconds)
  return {
    output = args.output, rows = out.rows, failed = out.failed, dimensions = out.dim or 0,
    parts = #out.parts, seconds = seconds, rows_per_second = seconds > 0 and out.rows / seconds or 0,
    requests = stats.requests or 0, attempts = stats.attempts or 0, retries = stats.retries or 0,
    hedges = stats.hedges or 0, model = args.model,
  }
end

local function counted(n, what)
  return ("%s %s"):format(progress.thousands(n), what)
end

local function summary_text(s, first_error)
  local lines = {
    ("embedded %s (%d dimensions) into %s in %s: %s rows/s, %s, %s%s"):format(
      counted(s.rows - s.failed, "rows"), s.dimensions, s.output, progress.duration(s.seconds),
      progress.thousands(math.floor(s.rows_per_second + 0.5)), counted(s.requests, "requests"),
      counted(s.retries, "retries"), s.hedges > 0 and ", " .. counted(s.hedges, "hedges") or ""),
  }
  if first_error then
    lines[2] = ("%s of %s failed; the first is row %d: %s: %s"):format(counted(s.failed, "rows"),
      progress.thousands(s.rows), first_error.row, first_error.kind, first_error.message)
  end
  return table.concat(lines, "\n") .. "\n"
end

local function report(args, out, stats, seconds)
  local s = summary(args, out, stats, seconds)
  if args.json then
    io.stdout:write(json.encode(s, { sort_keys = true }), "\n")
  end
  if not args.quiet then
    io.stderr:write(summary_text(s, out.first_error))
  end
end

-- The rows so far stay readable, marked as unfinished. Nothing here waits: the task is cancelled.
local function leave_unfinished(args, out, err)
  local ok, why = pcall(out.finish, out, false)
  if core.is_error(err) and err.kind == "cancelled" then
    if not args.quiet then
      io.stderr:write(("moonpool embed: stopped; %s holds the first %s rows, marked as unfinished\n"):format(
        args.output, progress.thousands(out.rows)))
    end
    error(err, 0)
  elseif core.is_error(err) then
    fail(tostring(err.kind == "file" and err.message or err) .. (ok and "" or "\n" .. tostring(why)))
  end
  error(err, 0)
end

local function call_options(args)
  return {
    model = args.model, dimensions = args.dimensions, batch_size = args.batch_size,
    max_concurrent_requests = args.max_concurrent,
  }
end

--- args as parsed; client may be given (tests).
function embed.run(args, client)
  local source, err = embedjob.source { input = args.input, field = args.field, id_field = args.id_field }
  if not source then
    fail(err)
  end
  local input <close> = source -- luacheck: ignore
  local conn <close> = client or endpoint.connect("moonpool embed", args)
  local out = create(args)
  local bar = not args.quiet and progress.new { total_bytes = source.reader:size() } or nil
  local started = core.now()
  local ok, why = xpcall(function()
    embedjob.run(conn, source, out, { progress = bar, embed = call_options(args) })
    out:finish(true)
  end, function(e)
    return type(e) == "string" and debug.traceback(e, 2) or e
  end)
  if bar then
    bar:clear()
  end
  if not ok then
    leave_unfinished(args, out, why)
  end
  report(args, out, conn:stats(), core.now() - started)
  return out.failed > 0 and 3 or 0
end

return embed
