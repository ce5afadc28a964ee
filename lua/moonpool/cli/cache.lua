-- moonpool.cli.cache: what a cache of vectors holds; and making it smaller.
local core = require "moonpool.core"
local json = require "moonpool.json"
local parser = require "moonpool.cli.parser"
local progress = require "moonpool.progress"
local vectors = require "moonpool.job.cache"

local cache = {
  name = "cache",
  summary = "Look at a cache of vectors, and prune it.",
  epilog = [[
A cache is what `moonpool embed --cache FILE` keeps and other jobs take from.

Examples:
  moonpool cache vectors.db
  moonpool cache vectors.db --prune 500_000_000]],
}

function cache.configure(p)
  p:argument("file", "The cache."):argname "FILE"
  p:option("--prune", "Drop what was not used for longest until it has so many bytes.")
    :argname "BYTES":convert(parser.whole)
  p:flag("--json", "Print it as one line of JSON.")
end

local function fail(message)
  parser.stop(1, ("moonpool cache: %s\n"):format(message))
end

function cache.run(args)
  if not core.stat(args.file) then
    fail(args.file .. ": No such file or directory")
  end
  local db <close>, err = vectors.open(args.file)
  if not db then
    fail(err)
  end
  local dropped = 0
  if args.prune then
    dropped = db:prune(args.prune)
    db:compact()
  end
  local stats = db:stats()
  stats.dropped = dropped
  if args.json then
    io.stdout:write(json.encode(stats, { sort_keys = true }), "\n")
    return 0
  end
  io.stdout:write(("%s: %s vectors, %s bytes\n"):format(args.file, progress.thousands(stats.vectors),
    progress.thousands(stats.bytes)))
  for _, space in ipairs(stats.spaces) do
    io.stdout:write(("  %10s  %s\n"):format(progress.thousands(space.vectors), space.name))
  end
  if dropped > 0 then
    io.stdout:write(("dropped %s vectors\n"):format(progress.thousands(dropped)))
  end
  return 0
end

return cache
