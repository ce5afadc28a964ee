-- moonpool.cli.check: whether a job's files are whole and its vectors sound.
local directory = require "moonpool.cli.directory"
local inspect = require "moonpool.job.inspect"
local json = require "moonpool.json"

local check = {
  name = "check",
  summary = "See whether a job's files are whole and its vectors sound.",
  epilog = [[
Looked at are the sums of all files, the numbers of rows and lines, and what can be told of the vectors
without knowing what they mean: zeros, numbers that are not finite, the same vector for different
texts, norms far apart.

Exit status: 0 all is well, 1 something is not, 2 wrong use.

Examples:
  moonpool check vectors
  moonpool check vectors --json]],
}

function check.configure(p)
  directory.configure(p)
  p:flag("--json", "Print it as one line of JSON.")
end

function check.run(args)
  local dir = directory.open("check", args.dir)
  local found = inspect.check(dir)
  if args.json then
    io.stdout:write(json.encode(found, { sort_keys = true }), "\n")
  else
    for _, problem in ipairs(found.problems) do
      io.stdout:write(args.dir, ": ", problem, "\n")
    end
    local norms = found.health.norm_min and (", norms %.4g to %.4g"):format(found.health.norm_min,
      found.health.norm_max) or ""
    io.stdout:write(("%s: %d rows, %d failed, %d dimensions%s: %s\n"):format(args.dir, found.rows,
      found.failed, found.dimensions, norms, #found.problems == 0 and "all is well" or "not well"))
  end
  return #found.problems == 0 and 0 or 1
end

return check
