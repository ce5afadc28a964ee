-- moonpool.cli.directory: what `moonpool status`, `check` and `convert` share: a job's directory.
local parser = require "moonpool.cli.parser"
local reader = require "moonpool.job.reader"

local directory = {}

--- The argument that names it.
function directory.configure(p)
  p:argument("dir", "Directory that moonpool embed made."):argname "OUTDIR"
end

function directory.fail(name, message)
  parser.stop(1, ("moonpool %s: %s\n"):format(name, message))
end

--- A reader of it, or an error that ends the command.
function directory.open(name, path)
  local dir, err = reader.open((path:gsub("(.)/+$", "%1")))
  return dir or directory.fail(name, err)
end

return directory
