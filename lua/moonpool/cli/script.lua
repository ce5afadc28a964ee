-- moonpool.cli.script: `moonpool run SCRIPT.lua [ARG...]`. The script's main chunk is the running task.

local core = require "moonpool.core"

local run = {}

local usage = [[
usage: moonpool run SCRIPT.lua [ARG...]

Runs a job script; `-` reads it from standard input. Every call in it may wait, and `arg` is as in
lua. Exit status: 0, 1 uncaught error, 2 usage, 3 finished with failed rows (when the script says
so with moonpool.exit(result)), 130 interrupted.

Examples:
  moonpool run job.lua texts.txt
  echo 'print(moonpool.version)' | moonpool run -
]]

-- os.exit(code, true) would close the state on top of the loop that runs the script.
local function closing_exit()
  local exit = os.exit
  os.exit = function(code, close) -- luacheck: ignore
    if not close or not core.in_task() then
      exit(code)
    end
    if code == nil or code == true then
      code = 0
    end
    io.stdout:flush()
    core.exit(code == false and 1 or code)
  end
end

-- Sets what the lua interpreter sets, and the library as a global.
local function prepare(args, first)
  local script_args = {}
  for i = 0, #args do
    script_args[i - first] = args[i]
  end
  arg = script_args -- luacheck: ignore
  moonpool = require "moonpool" -- luacheck: ignore
end

-- main(args, first): runs the script args[first] with the arguments after it; an exit code.
-- An error of the script goes through to the host, which has its traceback.
function run.main(args, first)
  first = first or 1
  local script = args[first]
  if script == "-h" or script == "--help" then
    io.stdout:write(usage)
    return 0
  elseif not script or script:match "^%-." then
    io.stderr:write(script and ("moonpool run: unknown option " .. script .. "\n") or "", usage)
    return 2
  end
  local path = script ~= "-" and script or nil
  local chunk, err = loadfile(path)
  if not chunk then
    io.stderr:write("moonpool: ", err, "\n")
    return 1
  end
  prepare(args, first)
  closing_exit()
  chunk(table.unpack(args, first + 1))
  return 0
end

run.usage = usage
return run
