-- moonpool.cli.run: the command `run`; everything after the script's name is the script's.
local run = require "moonpool.cli.script"

return {
  name = "run",
  summary = "Run a job script; every call in it may wait.",
  main = function(argv)
    return run.main(argv, 1)
  end,
  help = function()
    return run.usage
  end,
}
