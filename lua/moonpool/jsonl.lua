-- moonpool.jsonl: one JSON value a line, files of any size in bounded memory.
--
--   for value, err, line in jsonl.reader "in.jsonl" do
--       if err then print(err) else ... end
--   end
--   local out <close> = assert(jsonl.writer "out.jsonl")
--   assert(out:write(value))
--
-- A line that is not JSON comes as false with an error value, and reading goes on behind it. Blank
-- lines are passed over (but counted) unless blank = "error".
local core = require "moonpool.core"
local textio = require "moonpool.textio"

local jsonl = {}

local Reader = {}
Reader.__index = Reader

function Reader.__call(self)
  while true do
    local value, message, code = self.reader:json()
    local number = self.reader:line()
    if value ~= nil then
      return value, nil, number
    elseif not message then
      return nil
    elseif code ~= "blank" or self.blank == "error" then
      return false, textio.line_error(self.name, number, message, code), number
    end
  end
end

function Reader:close()
  self.reader:close()
end
Reader.__close = Reader.close

--- source: a path, "-" or an open file. opts: max_line (bytes), blank ("skip" or "error").
function jsonl.reader(source, opts)
  opts = opts or {}
  local reader, err = core.open_lines(source, opts.max_line)
  if not reader then
    return nil, err
  end
  local self = { reader = reader, name = textio.name(source), blank = opts.blank }
  setmetatable(self, Reader)
  return self, nil, nil, self
end

local Writer = {}
Writer.__index = Writer

--- Writes the value and a newline. A value without a JSON form writes nothing: nil and the reason.
function Writer:write(value)
  local ok, err = self.out:json(value, self.sort_keys)
  if not ok then
    return nil, err
  end
  return self
end

function Writer:flush()
  return self.out:flush()
end

function Writer:sync()
  return self.out:sync()
end

function Writer:close()
  if not self.out then
    return true
  end
  local out = self.out
  self.out = nil
  local ok, err = out:close()
  return ok and true, err
end

-- Waits for a slow pipe where a task still may wait; else what is left goes out at once.
function Writer:__close()
  local out = self.out
  if out and not pcall(self.close, self) then
    getmetatable(out).__close(out)
  end
end

--- path: a file, or "-" for standard output. opts: append, exclusive, sort_keys. Only the owner may
--- read a file made here.
function jsonl.writer(path, opts)
  local out, err = core.open_writer(path, opts)
  if not out then
    return nil, err
  end
  return setmetatable({ out = out, sort_keys = opts and opts.sort_keys }, Writer)
end

return jsonl
