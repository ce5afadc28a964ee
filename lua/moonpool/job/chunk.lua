-- moonpool.job.chunk: long texts in pieces that overlap; each piece is a row and says whose it is.
--
--   chars=2000,overlap=200     also words=, sentences=, tokens= (of at most so many tokens, by the bound
--                              of 0.45 a byte)
--
-- A piece of characters ends behind a blank where there is one in its last fifth. `parent` is the row of
-- the text in the input, `piece` counts from 0.
local core = require "moonpool.core"

local chunk = {}

local units = { chars = true, words = true, tokens = true, sentences = true }
local TOKENS_A_BYTE = 0.45

--- 'chars=2000,overlap=200' -> {unit=, size=, overlap=}; nil and what is wrong.
function chunk.parse(text)
  local spec = { overlap = 0 }
  for name, value in text:gmatch "([^=,]+)=([^,]*)" do
    local n = math.tointeger(tonumber(value))
    if name == "overlap" and n and n >= 0 then
      spec.overlap = n
    elseif units[name] and not spec.unit and n and n >= 1 then
      spec.unit, spec.size = name, n
    else
      return nil, ("'%s=%s' is no part of a chunking: chars=, words=, tokens= or sentences=, and overlap=")
        :format(name, value)
    end
  end
  if not spec.unit then
    return nil, ("'%s' names no size: for example chars=2000,overlap=200"):format(text)
  elseif spec.overlap >= spec.size then
    return nil, "the overlap must be smaller than the piece"
  end
  return spec
end

-- ---- where pieces may begin and end -------------------------------------------------------------

-- Byte positions of the units' beginnings, and one behind the end.
local function starts_of(text, unit)
  local starts = {}
  if unit == "words" then
    for at in text:gmatch "()%S+" do
      starts[#starts + 1] = at
    end
  elseif unit == "sentences" then
    local at = 1
    while at and at <= #text do
      starts[#starts + 1] = at
      local _, stop = text:find("[%.%!%?]+[\"')%]]*%s+", at)
      at = stop and stop + 1
    end
  else
    for at in text:gmatch("()" .. utf8.charpattern) do
      starts[#starts + 1] = at
    end
  end
  if #starts == 0 then
    starts[1] = 1
  end
  starts[#starts + 1] = #text + 1
  return starts
end

-- The last place from `low` on, before `high`, that stands behind a blank; else high.
local function behind_blank(text, starts, low, high)
  for i = high, low, -1 do
    if text:find("^%s", starts[i] - 1) then
      return i
    end
  end
  return high
end

local function pieces_by_unit(text, spec)
  local starts = starts_of(text, spec.unit)
  local total, list, from = #starts - 1, {}, 1
  while from <= total do
    local to = math.min(total + 1, from + spec.size)
    if to <= total and spec.unit == "chars" then
      to = behind_blank(text, starts, math.max(from + spec.overlap + 1, to - spec.size // 5), to)
    end
    local piece = text:sub(starts[from], starts[to] - 1)
    list[#list + 1] = spec.unit == "chars" and piece or piece:match "^(.-)%s*$"
    if to > total then
      break
    end
    from = to - spec.overlap
  end
  return list
end

-- Broken UTF-8 has no characters; it is refused where it is asked, as a whole.
local function pieces_of(text, spec)
  if spec.unit == "tokens" then
    local bytes = { unit = "chars", size = math.max(1, math.floor(spec.size / TOKENS_A_BYTE)),
      overlap = math.floor(spec.overlap / TOKENS_A_BYTE) }
    if #text <= bytes.size then
      return { text }
    end
    -- characters of more than a byte make pieces longer than the bound: count by the longest one
    local longest = math.max(1, math.ceil(#text / math.max(1, utf8.len(text) or #text)))
    bytes.size = math.max(1, bytes.size // longest)
    bytes.overlap = math.min(bytes.overlap // longest, bytes.size - 1)
    spec = bytes
  end
  return utf8.len(text) and pieces_by_unit(text, spec) or { text }
end
chunk.pieces = pieces_of

-- ---- a source of pieces -------------------------------------------------------------------------

local Pieces = {}
Pieces.__index = function(self, name)
  return Pieces[name] or self.inner[name]
end
Pieces.__close = function(self)
  self.inner:close()
end

function Pieces:next()
  while true do
    local list = self.list
    if list and self.at < #list then
      self.at = self.at + 1
      return {
        text = list[self.at], row = 0, id = self.parent.id, parent = self.parent_row, piece = self.at - 1,
      }
    end
    local item = self.inner:next()
    if not item then
      return nil
    end
    self.parent_row = self.parent_row + 1
    if item.problem then
      item.parent, item.piece = self.parent_row, 0
      return item
    end
    self.parent, self.list, self.at = item, pieces_of(item.text, self.spec), 0
    for i = #self.list, 1, -1 do
      if core.text_fault(self.list[i]) then
        table.remove(self.list, i)
      end
    end
  end
end

function Pieces:skip(n)
  local done = 0
  while done < n and self:next() do
    done = done + 1
  end
  return done
end

for _, name in ipairs { "identity", "changed", "offset", "size", "close" } do
  Pieces[name] = function(self, ...)
    return self.inner[name](self.inner, ...)
  end
end

--- The pieces of a source's texts.
function chunk.source(inner, spec)
  return setmetatable({ inner = inner, spec = spec, parent_row = -1 }, Pieces)
end

return chunk
