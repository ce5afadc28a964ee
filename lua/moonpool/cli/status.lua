-- moonpool.cli.status: what a job has done and cost.
local core = require "moonpool.core"
local directory = require "moonpool.cli.directory"
local json = require "moonpool.json"
local layout = require "moonpool.job.layout"
local progress = require "moonpool.progress"
local summary = require "moonpool.cli.summary"

local status = {
  name = "status",
  summary = "Tell what a job has done and what it cost.",
  epilog = [[
Exit status: 0 the job is complete, 3 complete with failed rows, 4 not complete, 1 error, 2 wrong use.

Examples:
  moonpool status vectors
  moonpool status vectors --json]],
}

function status.configure(p)
  directory.configure(p)
  p:flag("--json", "Print it as one line of JSON.")
end

local function figures(dir)
  local index = dir.index
  local run = index.run or {}
  local waiting = layout.read_index(dir.dir .. "/.next")
  return {
    complete = index.complete and not waiting, rows = index.rows, failed = index.failed,
    dimensions = index.dim, dtype = index.dtype, parts = #index.parts, model = index.model,
    url = index.url, created = index.created, requests = run.requests, tokens = run.tokens,
    seconds = run.seconds, cost = run.cost, running = core.is_locked(dir.dir .. "/.job/lock"),
    replacing = waiting and waiting.rows or nil,
  }
end

local function show(path, s)
  local state = s.complete and "complete" or s.running and "running" or "unfinished: the same command goes on"
  local lines = {
    ("%s: %s"):format(path, state),
    ("  %s, %s failed, %d dimensions (%s), %s"):format(summary.counted(s.rows, "rows"),
      progress.thousands(s.failed), s.dimensions, s.dtype or "float32", summary.counted(s.parts, "parts")),
  }
  if s.model then
    lines[#lines + 1] = ("  model %s"):format(s.model)
  end
  if s.requests then
    lines[#lines + 1] = ("  %s, %s tokens, %s%s"):format(summary.counted(s.requests, "requests"),
      progress.thousands(s.tokens or 0), progress.duration(s.seconds or 0),
      s.cost and (", %.4f USD"):format(s.cost) or "")
  end
  if s.replacing then
    lines[#lines + 1] = ("  a job that will take its place has %s"):format(
      summary.counted(s.replacing, "rows"))
  end
  io.stdout:write(table.concat(lines, "\n"), "\n")
end

function status.run(args)
  local s = figures(directory.open("status", args.dir))
  if args.json then
    io.stdout:write(json.encode(s, { sort_keys = true }), "\n")
  else
    show(args.dir, s)
  end
  return not s.complete and 4 or s.failed > 0 and 3 or 0
end

return status
