-- moonpool.cli.embed: texts in, a directory of vectors out.
local core = require "moonpool.core"
local embedjob = require "moonpool.job.vectors"
local endpoint = require "moonpool.cli.endpoint"
local parser = require "moonpool.cli.parser"
local progress = require "moonpool.progress"
local summary = require "moonpool.cli.summary"
local vectordir = require "moonpool.job.store"

local embed = {
  name = "embed",
  summary = "Turn texts (lines or JSONL) into a directory of vectors.",
  epilog = [[
OUTDIR gets part-NNNNN.npy (float32 rows; row i over the parts is row i of the input),
part-NNNNN.jsonl (one line a row: row, id, text, error) and index.json, which says
"complete": true only once everything is there. A blank or failed line keeps its place: its
row is NaN and its JSONL line has the error.

A half-filled request is sent when its first text has waited 0.2 s, so a slow pipe comes through as it
goes.

Exit status: 0, 1 error, 2 wrong use, 3 done but with failed rows, 130 interrupted.

Examples:
  moonpool embed -i texts.txt -o vectors --url http://127.0.0.1:8089 --model local-demo
  moonpool embed -i docs.jsonl -o vectors --field body --id-field key --model text-embedding-3-small
  moonpool embed -i texts.txt -o vectors --provider tei --url http://gpu:8080 --hedge '2*p95'
  zcat texts.gz | moonpool embed -i - -o vectors --rpm 3000 --tpm 1_000_000 --json]],
}

function embed.configure(p)
  p:option("-i --input", "Input: text lines, or JSONL if so named; - is standard input.")
    :argname "FILE":count(1)
  p:option("-o --output", "Directory to make."):argname "OUTDIR":count(1)
  endpoint.configure(p)
  p:option("--dimensions", "Dimensions to ask the model for."):argname "N":convert(parser.count)
  endpoint.configure_batch(p)
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

local function report(args, out, stats, seconds)
  local s = summary.figures(out.rows, out.failed, seconds, stats)
  s.output, s.dimensions, s.parts, s.model = args.output, out.dim or 0, #out.parts, args.model
  if args.json then
    io.stdout:write(summary.json(s))
  end
  if not args.quiet then
    local what = ("embedded %s (%d dimensions) into %s"):format(
      summary.counted(s.rows - s.failed, "rows"), s.dimensions, s.output)
    io.stderr:write(summary.text(what, s, out.first_error))
  end
end

-- The rows so far stay readable, marked as unfinished. Nothing here waits: the task is cancelled.
local function leave_unfinished(args, out, err)
  local ok, why = pcall(out.finish, out, false)
  if core.is_error(err) and err.kind == "cancelled" then
    if not args.quiet then
      io.stderr:write(("moonpool embed: stopped; %s holds the first %s, marked as unfinished\n"):format(
        args.output, summary.counted(out.rows, "rows")))
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
  local conn <close> = client or endpoint.connect("moonpool embed", args, "embed")
  local out = create(args)
  local bar = not args.quiet and progress.new { total_bytes = source.reader:size() } or nil
  local started = core.now()
  local ok, why = xpcall(function()
    embedjob.run(conn, source, out, { progress = bar, embed = call_options(args) })
    out:finish(true)
  end, core.traceback)
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
