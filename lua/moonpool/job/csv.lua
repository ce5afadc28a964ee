-- moonpool.job.csv: records of CSV (RFC 4180) and TSV by the names of the first line. A quoted field
-- may hold separators, line ends and doubled quotes; a record of a wrong number of fields is an error
-- of that record only.
local csv = {}

local MAX_RECORD = 16 << 20 -- bytes of a record over several lines

local Reader = {}
Reader.__index = Reader

-- Takes a quoted field that begins at `at` (behind its quote), over more lines where need be: the value,
-- the line and where its rest begins; nil and the reason.
local function quoted(self, line, at)
  local from, parts, bytes = at, {}, 0
  while true do
    local quote = line:find('"', from, true)
    if not quote then
      parts[#parts + 1] = line:sub(at) .. "\n"
      bytes = bytes + #line + 1
      local more, message, code = self.lines:read()
      if not more then
        return nil, message or "a quoted field has no end", code or "csv"
      elseif bytes > MAX_RECORD then
        return nil, ("a record is longer than %d bytes"):format(MAX_RECORD), "csv"
      end
      line, at, from = more, 1, 1
    elseif line:sub(quote + 1, quote + 1) == '"' then
      from = quote + 2
    else
      parts[#parts + 1] = line:sub(at, quote - 1)
      return (table.concat(parts):gsub('""', '"')), line, quote + 1
    end
  end
end

-- The fields of the record that begins with that line; nil, the reason and a code.
local function fields_of(self, line)
  local list, at, sep = {}, 1, self.separator
  while true do
    local stop
    if self.quotes and line:sub(at, at) == '"' then
      local value, rest, behind = quoted(self, line, at + 1)
      if not value then
        return nil, rest, behind
      end
      line, list[#list + 1] = rest, value
      local next_char = line:sub(behind, behind)
      if next_char ~= sep and next_char ~= "" then
        return nil, "there is text behind a quoted field", "csv"
      end
      stop = next_char == sep and behind or nil
    else
      stop = line:find(sep, at, true)
      list[#list + 1] = line:sub(at, (stop or 0) - 1)
    end
    if not stop then
      return list
    end
    at = stop + 1
  end
end

--- The next record as a table by names; nil at the end; nil, message, code for one that is bad.
function Reader:read()
  local line, message, code = self.lines:read()
  if not line then
    return nil, message, code
  end
  local list
  list, message, code = fields_of(self, line)
  if not list then
    return nil, message, code
  elseif #list ~= #self.names then
    return nil, line == "" and "the line is blank" or ("the record has %d fields, the first line %d"):format(
      #list, #self.names), "csv"
  end
  local record = {}
  for i, name in ipairs(self.names) do
    record[name] = list[i]
  end
  return record
end

function Reader:offset()
  return self.lines:offset()
end

function Reader:size()
  return self.lines:size()
end

function Reader:close()
  self.lines:close()
end

--- csv.reader(lines, separator) -> reader, or nil and what is wrong with the first line. In TSV quotes
--- are nothing special unless they enclose a field.
function csv.reader(lines, separator)
  local self = setmetatable({ lines = lines, separator = separator, quotes = true, names = {} }, Reader)
  local line, message = lines:read()
  if not line then
    return message and nil or self, message
  end
  local names, why = fields_of(self, line)
  if not names then
    return nil, "the first line: " .. why
  end
  self.names = names
  return self
end

return csv
