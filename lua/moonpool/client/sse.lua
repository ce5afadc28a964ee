-- moonpool.client.sse: server-sent events (HTML standard, section 9.2) from bytes that are cut
-- anywhere.
--
-- A line ends with CR LF, LF or CR; a CR counts at once, for nothing may follow it for long, and an LF
-- that comes behind it then ends nothing. Time is linear in the bytes, whatever they are.
local core = require "moonpool.core"
local json = require "moonpool.json"

local sse = {}

local MAX_VALUES = 256 * 1024 * 1024 -- bytes that the JSON of one event may become
local MAX_EVENT = 16 * 1024 * 1024 -- bytes of one line, and of the data of one event

-- In objects null reads as nil, as `delta.content or ""` expects; in a list it holds its place.
local function without_nulls(value)
  if type(value) ~= "table" then
    return value
  end
  for k, v in next, value do
    if v == json.null then
      if type(k) == "string" then
        value[k] = nil
      end
    elseif type(v) == "table" then
      without_nulls(v)
    end
  end
  return value
end

-- An event: data, event, id, retry; .json is its data decoded when asked for (nil when it is no JSON).
local event_meta = {
  __name = "moonpool.event",
  __index = function(ev, name)
    if name ~= "json" then
      return nil
    end
    local value = json.decode(rawget(ev, "data"), MAX_VALUES)
    value = value ~= json.null and without_nulls(value) or nil
    rawset(ev, "json", value)
    return value
  end,
  __tostring = function(ev) return ev.data end,
}

-- Adds a piece to a text of many: neighbours are joined as soon as the right one is as long, so that a
-- text of any number of pieces is a list of few, and no byte is copied more than log n times.
local function push(list, text)
  local n = #list + 1
  list[n] = text
  while n > 1 and #list[n - 1] <= #list[n] do
    list[n - 1] = list[n - 1] .. list[n]
    list[n] = nil
    n = n - 1
  end
end

local Parser = {}
Parser.__index = Parser

function Parser:dispatch()
  if self.data then
    self.events[#self.events + 1] = setmetatable({
      data = table.concat(self.data), event = self.name or "message", id = self.last_id, retry = self.retry,
    }, event_meta)
  end
  self.data, self.name, self.retry = nil, nil, nil
end

function Parser:add_data(value)
  self.data_length = (self.data and self.data_length + 1 or 0) + #value
  if self.data_length > MAX_EVENT then
    error(core.error("too_large", "an event of the stream is larger than 16 MiB"), 0)
  end
  if self.data then
    push(self.data, "\n" .. value)
  else
    self.data = { value }
  end
end

function Parser:line(text)
  if text == "" then
    return self:dispatch()
  end
  local colon = text:find(":", 1, true)
  local field = colon and text:sub(1, colon - 1) or text
  local from = colon and (text:byte(colon + 1) == 32 and colon + 2 or colon + 1)
  local value = from and text:sub(from) or ""
  if field == "data" then
    self:add_data(value)
  elseif field == "event" then
    self.name = value
  elseif field == "id" and not value:find("\0", 1, true) then
    self.last_id = value
  elseif field == "retry" and #value < 16 and value:find "^%d+$" then
    self.retry = tonumber(value) / 1000
  end
end

-- A line is over: what of it came before, and its last piece.
function Parser:line_end(piece)
  if self.length > 0 then
    push(self.pieces, piece)
    piece = table.concat(self.pieces)
    self.pieces, self.length = {}, 0
  end
  if self.first then
    self.first = false
    piece = piece:gsub("^\239\187\191", "")
  end
  self:line(piece)
end

function Parser:keep(piece)
  if piece == "" then
    return
  end
  self.length = self.length + #piece
  if self.length > MAX_EVENT then
    error(core.error("too_large", "a line of the stream is longer than 16 MiB"), 0)
  end
  push(self.pieces, piece)
end

--- The events that are complete with these bytes.
function Parser:feed(bytes)
  local at, n = 1, #bytes
  self.events = {}
  if self.after_cr and n > 0 then
    self.after_cr = false
    if bytes:byte(1) == 10 then
      at = 2
    end
  end
  while true do
    local stop = bytes:find("[\r\n]", at)
    if not stop then
      break
    end
    self:line_end(bytes:sub(at, stop - 1))
    if bytes:byte(stop) == 13 then
      if stop == n then
        self.after_cr = true
      elseif bytes:byte(stop + 1) == 10 then
        stop = stop + 1
      end
    end
    at = stop + 1
  end
  self:keep(bytes:sub(at))
  return self.events
end

--- The reply has ended as it should: its last event may lack the empty line behind it.
function Parser:finish()
  self.events = {}
  if self.length > 0 then
    self:line_end ""
  end
  self:dispatch()
  return self.events
end

function sse.new()
  return setmetatable({ first = true, pieces = {}, length = 0 }, Parser)
end

return sse
