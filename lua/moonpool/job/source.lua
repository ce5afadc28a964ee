-- moonpool.job.source: where the rows of a job come from: an iterator, standard input, a file, or many
-- files in the order of their names; lines of text or records of JSON, CSV or TSV.
--
-- Every line or record is an item and keeps its place, whatever is wrong with it: {text=, id=}, or
-- {problem=} in place of a text that can be asked.
local core = require "moonpool.core"
local fieldpath = require "moonpool.job.fieldpath"
local files = require "moonpool.job.files"

local source = {}

local kinds = { json = "decode", long = "too_large", blank = "invalid", csv = "decode", encoding = "decode" }

-- ---- items --------------------------------------------------------------------------------------

local function invalid(message, ...)
  return core.error("invalid", message:format(...))
end

local text_fault = core.text_fault

-- What is wrong with a text, whatever it came in.
local function unfit(text, what)
  local fault = text_fault(text)
  if fault then
    return invalid(fault == "blank" and "%s is blank" or "%s holds a NUL byte", what)
  end
end

--- A text line as an item.
function source.text_item(line)
  if not text_fault(line) then
    return { text = line, row = 0 }
  end
  return { problem = unfit(line, "the line"), key = line, row = 0 }
end

local function id_of(value, get)
  local id = get(value)
  if type(id) == "table" or id == core.json_null then
    return nil
  end
  return id
end

--- A record's text and id: get_text and get_id are fieldpath functions, `field` the name for messages.
function source.record_item(value, field, get_text, get_id)
  if type(value) ~= "table" then
    return { problem = invalid "the line is not a JSON object", key = "no object" }
  end
  local item, text = { id = id_of(value, get_id), text = false, row = 0 }, get_text(value)
  item.text = nil
  if text == nil or text == core.json_null then
    item.problem = invalid("the record has no field '%s'", field)
  elseif type(text) ~= "string" then
    item.problem = invalid("the field '%s' is a %s, not a string", field, type(text))
  else
    item.text, item.problem = text, unfit(text, ("the field '%s'"):format(field))
  end
  if not item.text then
    item.key = item.problem.message
  end
  return item
end

local function bad_item(message, code)
  return { problem = core.error(kinds[code] or "invalid", message), key = message }
end

-- ---- sources over readers -----------------------------------------------------------------------

local Source = {}
Source.__index = Source

local function describe_text(self)
  return self.text_item
end

local function describe_record(self, o)
  local field, id_field = o.field or "text", o.id_field or "id"
  local get_text, get_id = fieldpath.compile(field), fieldpath.compile(id_field)
  local record_item = self.record_item
  return function(value, line)
    return record_item(value, field, get_text, get_id, line)
  end
end

--- The next item; nil at the end. A file that cannot be read any further raises.
function Source:next()
  while true do
    local reader = self.reader
    if not reader then
      return nil
    end
    local value, message, code = self.read(reader)
    if value ~= nil then
      return self.describe(value, message) -- of a record its line, where that was asked for
    elseif not message then
      self:advance()
    elseif code == "io" then
      error(core.error("file", message), 0)
    else
      return bad_item(message, code)
    end
  end
end

--- Passes over up to n items; how many there were.
function Source:skip(n)
  local skipped = 0
  while skipped < n and self.reader do
    local got = self.reader.skip and self.reader:skip(n - skipped)
    if not got then
      local value, message, code = self.read(self.reader)
      if code == "io" then
        error(core.error("file", message), 0)
      end
      got = (value ~= nil or message) and 1 or 0
    end
    skipped = skipped + got
    if got == 0 then
      self:advance()
    end
  end
  return skipped
end

-- The next file; the header of a CSV belongs to its reader.
function Source:advance()
  local done = self.reader
  self.before = self.before + (done:size() or done:offset())
  done:close()
  self.at = self.at + 1
  self.reader = nil
  if self.list[self.at] then
    self:open_file()
  end
end

function Source:open_file()
  local reader, err = files.open(self.list[self.at], self.form)
  if not reader then
    error(core.error("file", err), 0)
  end
  self.reader, self.read = reader, files.read_of(reader, self.form, self.lines)
end

--- Bytes read and, where they are known, bytes there are: for a progress bar.
function Source:offset()
  return self.before + (self.reader and self.reader:offset() or 0)
end

function Source:size()
  return self.bytes
end

function Source:close()
  if self.reader then
    self.reader:close()
    self.reader = nil
  end
end
Source.__close = Source.close

-- Of a pipe nobody knows before it was read.
local function total_bytes(list)
  local bytes = 0
  for _, path in ipairs(list) do
    local stat = path ~= "-" and core.stat(path)
    if not stat or stat.type ~= "file" then
      return nil
    end
    bytes = bytes + stat.size
  end
  return bytes
end

--- What tells the input from another: {sum=, bytes=, files=}, or nil where only its rows can tell.
--- Waits. bytes: of the first so many bytes only, for one file.
function Source:identity(bytes)
  if not self.bytes then
    return nil
  end
  local sums, total = {}, 0
  for i, path in ipairs(self.list) do
    local sum, n = core.sum_file(path, bytes)
    if not sum then
      error(core.error("file", n), 0)
    end
    sums[i], total = sum, total + n
  end
  local sum = #sums == 1 and sums[1] or core.sum(table.concat(sums))
  self.sum = self.sum or sum
  return { sum = sum, bytes = total, files = #sums }
end

--- Whether the files are not as they were when it was opened.
function Source:changed()
  if self.bytes == nil or self.stamp == files.stamp(self.list) then
    return false
  end
  return self.sum == nil or self:identity().sum ~= self.sum -- only touched, perhaps
end

-- ---- iterators ----------------------------------------------------------------------------------

local Iterator = setmetatable({}, { __index = Source })
Iterator.__index = Iterator
Iterator.__close = function() end

local function item_of(self, value)
  if type(value) == "string" then
    return self.text_item(value)
  elseif type(value) == "table" then
    return self.describe(value)
  end
  return { problem = invalid("no text to embed: a %s", type(value)) }
end

function Iterator:next()
  local value = self.iterate()
  if value ~= nil then
    return item_of(self, value)
  end
end

function Iterator:skip(n)
  local i = 0
  while i < n and self.iterate() ~= nil do
    i = i + 1
  end
  return i
end

function Iterator.size() end
function Iterator.close() end
function Iterator.offset()
  return 0
end

local function iterator(o)
  local from = o.input
  if type(from) == "table" and not (getmetatable(from) or {}).__call then
    local list, i = from, 0
    from = function()
      i = i + 1
      return list[i]
    end
  end
  local self = setmetatable({ iterate = from, text_item = o.text_item or source.text_item,
    record_item = o.record_item or source.record_item }, Iterator)
  self.describe = describe_record(self, o)
  return self
end

-- ---- opening ------------------------------------------------------------------------------------

--- source.open { input = path, directory, glob, "-", list or iterator; form = "text", "jsonl", "csv" or
--- "tsv" (nil: as the name and the fields say), field = "text", id_field = "id" }; text_item and
--- record_item may replace those above, and with `lines` the
--- latter gets the line of JSON too. -> source, or nil and the reason.
function source.open(o)
  if type(o.input) ~= "string" then
    return iterator(o)
  end
  local list, err = files.expand(o.input)
  if not list then
    return nil, err
  end
  local form = o.form or files.form(list[1] or o.input) or (o.field or o.id_field) and "jsonl" or "text"
  local self = setmetatable({
    list = list, at = 1, before = 0, form = form, bytes = total_bytes(list), stamp = files.stamp(list),
    lines = o.lines,
    text_item = o.text_item or source.text_item, record_item = o.record_item or source.record_item,
  }, Source)
  self.describe = form == "text" and describe_text(self) or describe_record(self, o)
  if list[1] then
    local ok, why = pcall(self.open_file, self)
    if not ok then
      return nil, core.is_error(why) and why.message or why
    end
  end
  return self
end

return source
