-- moonpool.job.rows: from lines to lines of JSON, in order and in bounded memory; what `moonpool
-- rerank`, `classify` and `post` run.
--
-- Every line of the input is an entry {row = number from 0, ...}. A line that is bad, or whose call
-- failed, keeps its place: what is written for it is its row and its error.
local core = require "moonpool.core"
local files = require "moonpool.job.files"
local pipeline = require "moonpool.client.pipeline"
local source = require "moonpool.job.source"

local rowjob = {}

-- ---- the source ---------------------------------------------------------------------------------

-- An entry is an item of a source with its row and where it ends; what is wrong with it is its error.
local Entries = {}
Entries.__index = Entries

function Entries:read_entry()
  local entry = self.source:next()
  if entry then
    entry.row, entry.offset = self.row, self.source:offset()
    entry.error = entry.problem
    self.row = self.row + 1
  end
  return entry
end

function Entries:size()
  return self.source:size()
end

function Entries:close()
  self.source:close()
end
Entries.__close = Entries.close

local function item_by(parse)
  return function(value, _, _, _, line)
    local item = { row = 0 }
    local problem = parse(item, value, line)
    item.problem = problem and core.error("invalid", problem) or nil
    return item
  end
end

--- rowjob.items { input = as source.open takes it, records = not text, parse = function(item, value) fills
--- the item and returns what is wrong with the value, or nil; lines = it gets the line of JSON third }
--- -> source, or nil and the reason.
function rowjob.items(o)
  local item = item_by(o.parse)
  local form = o.records and (type(o.input) == "string" and files.form(o.input) or "jsonl") or "text"
  return source.open { input = o.input, form = form, text_item = item, record_item = item, lines = o.lines }
end

--- The same as a source of entries.
function rowjob.source(o)
  local from, err = rowjob.items(o)
  return from and setmetatable({ source = from, row = 0 }, Entries), err
end

--- Whether a file of that name holds records.
function rowjob.is_jsonl(name)
  return files.form(name) ~= nil
end

--- A text line's text into the entry; what is wrong with it.
function rowjob.text(entry, line)
  local fault = core.text_fault(line)
  if fault then
    return fault == "blank" and "the line is blank" or "the line holds a NUL byte"
  end
  entry.text = line
end

-- ---- the work -----------------------------------------------------------------------------------

--- Marks the entries of a call that failed. res, err: what the call returned.
function rowjob.mark(entries, res, err)
  if err and (err.kind == "cancelled" or err.kind == "closed") then
    error(err, 0)
  end
  for _, e in ipairs(res and res.errors or err.errors or {}) do
    entries[e.index].error = e.error
  end
  for _, entry in ipairs(res and {} or entries) do
    entry.error = entry.error or err
  end
end

local function worker(call)
  return function(batch)
    local good = {}
    for _, entry in ipairs(batch.items) do
      if not entry.error then
        good[#good + 1] = entry
      end
    end
    if #good > 0 then
      call(good)
    end
  end
end

-- What client:embed_each is to texts, without vectors: batches as they end.
function rowjob.each(o)
  local line = pipeline.new {
    next_item = o.next_item, size = o.size, window = o.window, flush_interval = 0.2, tasks = true,
    ordered = false, new = function() return {} end, add = function() end, wait = worker(o.call),
  }
  local guard = line:guard()
  return function()
    local batch = guard.pipeline:take()
    if batch then
      batch.errors, batch.requests = {}, {}
      for i, item in ipairs(batch.items) do
        if item.error then
          batch.errors[#batch.errors + 1] = { index = i, error = item.error }
        end
      end
    end
    return batch
  end, nil, nil, guard
end

--- for entries in rowjob.batches { source =, call = function(entries), size =, window = } do: lists of
--- entries in order. `call` gets those without an error, may wait, and sets their `line` or `error`.
function rowjob.batches(o)
  local from = o.source
  local line = pipeline.new {
    next_item = function() return from:read_entry() end,
    size = o.size, window = o.window, flush_interval = 0.2, tasks = true,
    new = function() return {} end, add = function() end, wait = worker(o.call),
  }
  local guard = line:guard()
  return function()
    local batch = guard.pipeline:take()
    return batch and batch.items
  end, nil, nil, guard
end

-- ---- the output ---------------------------------------------------------------------------------

-- What is told of an error. Its row counts within a call, so it stays out.
local function public_error(err)
  local message = tostring(err.message or err)
  return { kind = err.kind or "invalid", message = message, status = err.status, code = err.code }
end
rowjob.public_error = public_error

--- The line of an entry that failed.
function rowjob.error_line(entry)
  return { row = entry.row, id = entry.id, custom_id = entry.custom_id, error = public_error(entry.error) }
end

local function file_error(message)
  error(core.error("file", message), 0)
end

-- True, or why the value has no form in JSON; a file that cannot be written raises.
local function put(out, value)
  local ok, why, errno = out:json(value, true)
  if errno then
    file_error(why)
  end
  return ok ~= nil, why
end

-- A reply may hold what JSON cannot say, a message broken UTF-8.
local function write(out, entry, error_line)
  if not entry.error then
    local ok, why = put(out, entry.line)
    if ok then
      return
    end
    entry.error = core.error("decode", "the reply has no form in JSON: " .. tostring(why))
  end
  if not put(out, error_line(entry)) then
    entry.error = core.error(entry.error.kind or "invalid", "an error whose message is not UTF-8")
    put(out, error_line(entry))
  end
end

--- Writes a list of lines.
function rowjob.write_all(out, list)
  for _, line in ipairs(list) do
    if not put(out, line) then
      line.text, line.error = nil, line.error and { kind = line.error.kind }
      put(out, line)
    end
  end
end

--- What a job counts, for progress and summary.
function rowjob.tally()
  return { rows = 0, failed = 0, bytes = 0 }
end

function rowjob.count(tally, entries)
  for _, entry in ipairs(entries) do
    if entry.error then
      tally.failed = tally.failed + 1
      if not tally.first_error then
        tally.first_error = public_error(entry.error)
        tally.first_error.row = entry.row
      end
    end
  end
  tally.rows = tally.rows + #entries
  tally.bytes = entries[#entries].offset
end

--- Runs it all: o as for rowjob.batches, and out (a writer), tally, on_batch (called after each),
--- error_line (a function of the entry). Every batch is flushed: whoever reads the output sees what
--- there is.
function rowjob.run(o)
  local error_line = o.error_line or rowjob.error_line
  for entries in rowjob.batches(o) do
    for _, entry in ipairs(entries) do
      write(o.out, entry, error_line)
    end
    local ok, why = o.out:flush()
    if not ok then
      file_error(why)
    end
    rowjob.count(o.tally, entries)
    o.on_batch(entries)
  end
end

return rowjob
