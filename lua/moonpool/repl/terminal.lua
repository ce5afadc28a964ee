-- moonpool.repl.terminal: a session on a terminal: lines edited while tasks go on, history and its
-- search, completion, pastes of many lines as one chunk.
local commands = require "moonpool.repl.commands"
local complete = require "moonpool.repl.complete"
local core = require "moonpool.core"
local history = require "moonpool.repl.history"

local terminal = {}

local PROMPT, MORE = "> ", ".. "
local MOST_SHOWN = 60 -- candidates on the screen

local function insert(self, text)
  self.editor:hide()
  self.editor:insert(text)
  self.editor:show()
end

-- ---- completion -------------------------------------------------------------------------------------------

local function in_columns(list)
  local width = core.terminal_width(1) or 80
  local widest = 0
  for _, name in ipairs(list) do widest = math.max(widest, #name + 2) end
  local columns = math.max(1, width // widest)
  local lines = {}
  for i = 1, math.min(#list, MOST_SHOWN), columns do
    local row = {}
    for k = i, math.min(i + columns - 1, #list, MOST_SHOWN) do
      row[#row + 1] = list[k] .. (" "):rep(widest - #list[k])
    end
    lines[#lines + 1] = (table.concat(row):gsub("%s+$", ""))
  end
  if #list > MOST_SHOWN then
    lines[#lines + 1] = (".. %d more"):format(#list - MOST_SHOWN)
  end
  return table.concat(lines, "\n")
end

local function on_complete(self, pending)
  local line, cursor = self.editor:line()
  local before = (pending and pending .. "\n" or "") .. line:sub(1, cursor)
  self.load_options()
  local list, replaced = complete.at(before, function(name) return self:lookup(name) end,
    function() return self:names() end, commands.names())
  if #list == 0 then
    return
  end
  local common = complete.common(list)
  if #common > replaced then
    insert(self, common:sub(replaced + 1))
  elseif #list > 1 then
    self:say(in_columns(list))
  end
end

-- ---- search of the history --------------------------------------------------------------------------

local function find(lines, query, from)
  for i = from, 1, -1 do
    if lines[i]:find(query, 1, true) then
      return i
    end
  end
end

local function draw_search(query, found)
  local text = ("(search) '%s': %s"):format(query, found or "")
  local width = (core.terminal_width(1) or 80) - 1
  io.stdout:write("\r\27[K", text:sub(1, width))
  io.stdout:flush()
end

-- Reads keys past the editor until one that is not part of the search; that line, and whether to run it.
local function search(self)
  local lines, query, at = self.history.lines, "", #self.history.lines
  self.editor:hide()
  draw_search(query)
  local bytes
  while true do
    local key = self.editor:key(bytes)
    bytes = nil
    if not key then
      bytes = self.editor:read()
      if not bytes then
        return nil
      end
    elseif key == "\18" then
      at = find(lines, query, at - 1) or at
    elseif key == "\127" or key == "\8" then
      query = query:gsub("[^\128-\191][\128-\191]*$", "")
      at = find(lines, query, #lines) or at
    elseif key == "\3" or key == "\7" then
      return nil
    elseif key:byte() < 32 then
      return query ~= "" and lines[at] or nil, key == "\r" or key == "\n"
    else
      query = query .. key
      at = find(lines, query, #lines) or at
    end
    draw_search(query, query ~= "" and lines[at] or "")
  end
end

local function on_search(self)
  local line, now = search(self)
  io.stdout:write "\r\27[K"
  if line then
    self.editor:clear()
    self.editor:insert(line)
  end
  self.editor:show()
  if line and now then
    io.stdout:write "\n"
  end
  return line and now
end

-- ---- the loop ---------------------------------------------------------------------------------------

local function start(self, pending)
  self.editor:start(pending and MORE or PROMPT)
  self.editing = true
end

local function stop(self)
  self.editing = false
  self.editor:stop()
end

local function remember(self, source)
  for line in source:gmatch "[^\n]+" do
    if self.history.add(line) then
      self.editor:remember(line)
    end
  end
end

-- What an event of the editor asks for: the input that is complete now, or nil.
local function input_of(self, event, text, pending)
  if event == "line" then
    return text
  end
  if event == "complete" then
    on_complete(self, pending)
  elseif event == "search" then
    if on_search(self) then
      return (self.editor:line())
    end
  elseif event == "paste" then
    text = text:gsub("\r\n?", "\n")
    local whole, rest = text:match "^(.*)\n(.-)$"
    if not whole then
      insert(self, (text:gsub("%c", " ")))
      return nil
    end
    local line, cursor = self.editor:line()
    self.editor:clear()
    return line:sub(1, cursor) .. whole, rest .. line:sub(cursor + 1)
  end
end

-- Takes one whole line or paste; the text, what is to stand on the next line, or nil and the event.
local function read(self, pending)
  local bytes
  while true do
    local event, text = self.editor:feed(bytes)
    bytes = nil
    if event == "interrupt" or event == "eof" then
      return nil, event
    end
    if event then
      local input, rest = input_of(self, event, text, pending)
      if input then
        return input, rest
      end
    else
      bytes = self.editor:read()
      if not bytes then
        return nil, "eof"
      end
    end
  end
end

--- Reads and runs until the user ends it.
function terminal.loop(self)
  local module = require "moonpool.editor"
  local editor <close> = module.new()
  self.editor = editor
  self.history = history.open(module.private)
  for _, line in ipairs(self.history.lines) do editor:remember(line) end
  self:say(("moonpool %s  (:help, Ctrl+D ends)"):format(core.version))
  local pending, rest
  while not self.over do
    start(self, pending)
    if rest and rest ~= "" then
      insert(self, rest)
    end
    local input, event = read(self, pending)
    if input and event then -- a paste: its lines have not been seen yet
      editor:hide()
      io.stdout:write((pending and MORE or PROMPT), (input:gsub("\n", "\n" .. MORE)), "\n")
    end
    rest = input and event
    stop(self)
    if input then
      local source = pending and pending .. "\n" .. input or input
      remember(self, input)
      pending = not self:run(source) and source or nil
    elseif event == "interrupt" then
      io.stdout:write "^C\n"
      pending, rest = nil, nil
    else
      io.stdout:write "\n"
      return
    end
  end
end

return terminal
