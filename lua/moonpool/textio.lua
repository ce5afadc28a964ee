-- moonpool.textio: lines of text files of any size, in bounded memory.
--
--   for line, err, number in textio.lines(path) do ... end
--
-- A line comes without its end (LF or CRLF). One that is longer than max_line bytes (16 MiB unless
-- told) comes as false with an error, and reading goes on behind it. `source` is a path, "-" for
-- standard input, or an open file. Reading from a pipe waits like a task does.
local core = require "moonpool.core"

local textio = {}

--- The error value of line `number`: {kind=, message=, line=}.
function textio.line_error(name, number, message, code)
  local kind = code == "json" and "decode" or code == "long" and "too_large" or "invalid"
  if code == "json" then
    message = ("%s, %s"):format(name, message) -- it begins with the line
  elseif code ~= "io" then
    message = ("%s, line %d: %s"):format(name, number, message)
  end
  return core.error(kind, message, { line = number })
end

--- A name for messages.
function textio.name(source)
  if source == "-" then
    return "standard input"
  end
  return type(source) == "string" and source or "input"
end

local Lines = {}
Lines.__index = Lines

function Lines.__call(self)
  local line, message, code = self.reader:read()
  local number = self.reader:line()
  if line then
    return line, nil, number
  elseif message then
    return false, textio.line_error(self.name, number, message, code), number
  end
end

function Lines:close()
  self.reader:close()
end
Lines.__close = Lines.close

--- Lines of all kinds, with what a progress bar needs: lines.reader:offset() and :size().
function textio.lines(source, opts)
  opts = opts or {}
  local reader, err = core.open_lines(source, opts.max_line)
  if not reader then
    return nil, err
  end
  local lines = setmetatable({ reader = reader, name = textio.name(source) }, Lines)
  return lines, nil, nil, lines
end

--- moonpool.lines(path, "-" or an open file): for line in lines(...), as io.lines, but waiting as a task
--- does. A file that cannot be read and a line of more than 16 MiB raise.
function textio.lines_or_raise(source)
  local lines, err = textio.lines(source == nil and "-" or source)
  if not lines then
    error("lines: " .. err, 2)
  end
  return function()
    local line, why = lines()
    if why then
      error(why, 0)
    end
    return line
  end, nil, nil, lines
end

return textio
