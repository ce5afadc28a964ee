-- What the specs of whole programs share: a directory of their own, programs that run while this
-- process serves them, programs that go on in the background.

local moonpool = require "moonpool"
local core = require "moonpool.core"

local M = { binary = os.getenv "MOONPOOL" or "build/moonpool" }

if not M.binary:find "^/" then
  local f = assert(io.popen "pwd")
  M.binary = f:read "l" .. "/" .. M.binary
  f:close()
end

function M.set_up()
  M.dir = os.tmpname()
  os.remove(M.dir)
  assert(core.mkdir(M.dir))
end

function M.tear_down()
  os.execute("rm -rf '" .. M.dir .. "'")
end

--- Writes a file in the directory; its path.
function M.write(name, text)
  local path = M.dir .. "/" .. name
  local f <close> = assert(io.open(path, "wb"))
  f:write(text)
  return path
end

function M.read(name)
  local f <close> = assert(io.open(M.dir .. "/" .. name, "rb"))
  return f:read "a"
end

--- The values of a text of JSON lines; every line must be whole.
function M.lines(text)
  local list = {}
  assert(text == "" or text:sub(-1) == "\n", "the last line is cut")
  for line in text:gmatch "[^\n]*\n" do
    list[#list + 1] = assert(moonpool.json.decode(line), line)
  end
  return list
end

local function exit_code(ok, how, code)
  return ok and 0 or how == "signal" and 128 + code or code
end

-- Starts `exec env ... moonpool ARGS` with its input from a file or a shell command.
local function open(args, from, err_name)
  return assert(io.popen(("echo $$; exec env --default-signal=INT '%s' %s %s 2>'%s/%s'"):format(
    M.binary, args, from, M.dir, err_name), "r"))
end

--- Runs `moonpool ARGS` with that text as its input: standard output, standard error, exit code.
-- Servers of this process go on meanwhile.
function M.run(args, input)
  M.write("stdin", input or "")
  local pipe = open(args, ("<'%s/stdin'"):format(M.dir), "stderr")
  local reader <close> = core.open_lines(pipe, 1 << 30)
  local list = {}
  reader:read() -- its pid
  for line in function() return reader:read() end do
    list[#list + 1] = line .. "\n"
  end
  local code = exit_code(pipe:close())
  return table.concat(list), M.read "stderr", code
end

local background = 0

local Program = {}
Program.__index = Program

--- Starts `moonpool ARGS` in the background; from: a redirection of its input.
function M.start(args, from)
  background = background + 1
  local self = setmetatable({ err_name = "stderr" .. background }, Program)
  self.pipe = open(args, from or "</dev/null", self.err_name)
  self.reader = core.open_lines(self.pipe)
  self.pid = assert(self.reader:read())
  return self
end

--- The next line of its output, nil at the end; waits.
function Program:line()
  return (self.reader:read())
end

--- The URL that a server prints.
function Program:url()
  local line = self:line() or "nothing"
  return assert(line:match "^listening on (.+)$", line)
end

function Program:signal(name)
  assert(os.execute(("kill -%s %s"):format(name, self.pid)))
end

--- What it still prints, its standard error and exit code, once it has ended.
function Program:wait()
  local list = {}
  for line in function() return self:line() end do
    list[#list + 1] = line .. "\n"
  end
  self.reader:close()
  local code = exit_code(self.pipe:close())
  self.pipe = nil
  return table.concat(list), M.read(self.err_name), code
end

function Program:__close()
  if self.pipe then
    os.execute("kill -KILL " .. self.pid .. " 2>/dev/null")
    self:wait()
  end
end

return M
