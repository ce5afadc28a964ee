-- moonpool.repl.pipe: a session whose lines come from a pipe, a file or a terminal that cannot edit.
local core = require "moonpool.core"
local textio = require "moonpool.textio"

local pipe = {}

local function prompt(session, pending)
  if session.terminal then
    io.stdout:write(pending and ".. " or "> ")
    io.stdout:flush()
  end
end

--- Reads and runs until the input ends.
function pipe.loop(session)
  local lines = assert(textio.lines "-")
  local pending
  prompt(session)
  for line, err in lines do
    if not line then
      error(err, 0)
    end
    local source = pending and pending .. "\n" .. line or line
    local whole = session:run(source)
    pending = not whole and source or nil
    if session.over then
      return
    end
    prompt(session, pending)
  end
  if pending then
    local _, why = session:run(pending)
    session:complain(why or "the last lines are no whole chunk")
  end
  if session.terminal then
    io.stdout:write "\n"
  end
  core.pause()
end

return pipe
