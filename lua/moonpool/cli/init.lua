-- moonpool.cli: the command line. The host calls main(args) as a task; its value is the exit code.

local core = require "moonpool.core"

local cli = {}

function cli.main(args)
  local command = args[1]
  if command == "run" then
    return require("moonpool.run").main(args, 2)
  elseif command == "--version" then
    print("moonpool " .. core.version)
    return 0
  end
  io.stderr:write("usage: moonpool run SCRIPT.lua [ARG...]\n")
  return 2
end

return cli
