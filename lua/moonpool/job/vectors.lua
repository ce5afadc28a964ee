-- moonpool.job.vectors: from lines to a directory of vectors, in bounded memory; what `moonpool embed`
-- runs.
local core = require "moonpool.core"

local embedjob = {}

-- ---- the source ----

-- A blank line is a row like any other: row i of the output must be line i of the input.
local function text_entry(line)
  if not line:find "%S" then
    return { problem = core.error("invalid", "the line is blank") }
  end
  return { text = line }
end

local function field_of(value, name)
  if type(value) ~= "table" then
    return nil
  end
  local found = value[name]
  return found ~= core.json_null and found or nil
end

local function record_entry(value, field, id_field)
  local entry = { id = field_of(value, id_field) }
  local text = field_of(value, field)
  if type(value) ~= "table" then
    entry.problem = core.error("invalid", "the line is not a JSON object")
  elseif text == nil then
    entry.problem = core.error("invalid", ("the record has no field '%s'"):format(field))
  elseif type(text) ~= "string" then
    entry.problem = core.error("invalid", ("the field '%s' is a %s, not a string"):format(field, type(text)))
  elseif not text:find "%S" then
    entry.text, entry.problem = text, core.error("invalid", ("the field '%s' is blank"):format(field))
  else
    entry.text = text
  end
  if type(entry.id) == "table" then
    entry.id = nil
  end
  return entry
end

local kinds = { json = "decode", long = "too_large", blank = "invalid" }

local Source = {}
Source.__index = Source

--- The next row as {text=, id=, problem=, offset=}; nil at the end. A file that cannot be read any
--- further raises.
function Source:next()
  local value, message, code = self.read(self.reader)
  if value == nil and not message then
    return nil
  elseif code == "io" then
    error(core.error("file", message), 0)
  end
  local entry
  if value == nil then
    entry = { problem = core.error(kinds[code] or "invalid", message) }
  else
    entry = self.records and record_entry(value, self.field, self.id_field) or text_entry(value)
  end
  entry.offset = self.reader:offset()
  return entry
end

function Source:close()
  self.reader:close()
end
Source.__close = Source.close

--- embedjob.source{input = path or "-", records = boolean or nil, field = "text", id_field = "id"}
--- records: JSONL; nil: as the name and the options say. -> source, or nil and the reason.
function embedjob.source(opts)
  local reader, err = core.open_lines(opts.input)
  if not reader then
    return nil, err
  end
  local records = opts.records
  if records == nil then
    local name = opts.input:lower()
    records = opts.field ~= nil or opts.id_field ~= nil or name:match "%.jsonl$" ~= nil
      or name:match "%.ndjson$" ~= nil
  end
  return setmetatable({
    reader = reader,
    read = records and reader.json or reader.read,
    records = records,
    field = opts.field or "text",
    id_field = opts.id_field or "id",
  }, Source)
end

-- ---- the job ----

local function text_of(entry)
  return not entry.problem and entry.text or nil
end

--- Runs source through client into out (a vectordir writer). opts: embed (options of the calls),
--- progress (a bar). Raises what stops it; `out` then holds the rows up to there and is not finished.
function embedjob.run(client, source, out, opts)
  local call_opts = { text = text_of }
  for name, value in pairs(opts.embed or {}) do
    call_opts[name] = value
  end
  local bar = opts.progress
  local function next_entry()
    return source:next()
  end
  for batch in client:embed_each(next_entry, call_opts) do
    out:add(batch.items, batch.matrix, batch.errors)
    if bar and bar:due() then
      bar:update {
        rows = out.rows, failed = out.failed, bytes = batch.items[#batch.items].offset,
        retries = client:stats().retries,
      }
    end
    if batch.matrix then
      batch.matrix:free() -- a job makes them faster than the collector would look
    end
  end
end

return embedjob
