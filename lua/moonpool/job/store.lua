-- moonpool.job.store: a directory of vectors, as `moonpool embed` writes and `moonpool search` reads.
--
--   part-00000.npy    float32 rows; row i over the parts in name order is row i of the input
--   part-00000.jsonl  one line a row: {"error", "id", "row", "text"}; row counts from 0 over all parts
--   index.json        what the parts are; "complete": true only when the job is done
--
-- A row without a vector is a row of NaN, with the reason in its JSONL line. Only the last index.json
-- ever says complete, and it comes by rename: who sees it sees the whole directory.
local core = require "moonpool.core"
local json = require "moonpool.json"

local vectordir = {}

local FORMAT = "moonpool-vectors"
local SEARCH_BYTES = 8 << 20 -- of vectors in memory at once

-- Files fail by raising an error table: there is nothing a job could do but stop.
local function check(ok, message)
  if not ok then
    error(core.error("file", message), 0)
  end
  return ok
end

-- ---- index.json ----

local function index_path(dir)
  return dir .. "/index.json"
end

local function read_index(dir)
  local path = index_path(dir)
  local file, err = io.open(path, "rb")
  if not file then
    return nil, err
  end
  local text = file:read "a"
  file:close()
  local index, why = json.decode(text or "")
  if type(index) ~= "table" or index.format ~= FORMAT then
    return nil, ("%s: %s"):format(path, why or "not the index of a vector directory")
  end
  return index
end

local function write_index(dir, index)
  local path = index_path(dir)
  local temporary = path .. ".tmp"
  local out = check(core.open_writer(temporary))
  check(out:json(index, true))
  check(out:sync())
  check(out:close())
  check(core.rename(temporary, path))
  check(core.fsync(dir))
end

-- ---- writing ----

local Writer = {}
Writer.__index = Writer

local function make_dirs(path)
  if core.stat(path) then
    return true
  end
  local parent = path:match "^(.*[^/])/+[^/]+/*$"
  if parent then
    local ok, err = make_dirs(parent)
    if not ok then
      return nil, err
    end
  end
  return core.mkdir(path, tonumber("700", 8))
end

local function is_ours(name)
  return name:match "^part%-%d+%.npy$" or name:match "^part%-%d+%.jsonl$" or name == "index.json"
    or name == "index.json.tmp"
end

local function ours_in(dir)
  local found = {}
  for _, name in ipairs(check(core.listdir(dir))) do
    if is_ours(name) then
      found[#found + 1] = name
    end
  end
  return found
end

-- nil, or why the directory must not be written to.
local function occupied(dir)
  if #ours_in(dir) == 0 then
    return nil
  end
  local index = read_index(dir)
  if index and index.complete then
    return ("%s already holds a finished job of %d rows"):format(dir, index.rows)
  end
  return ("%s holds the unfinished output of an earlier job"):format(dir)
end

local function prepare(dir, force)
  local stat = core.stat(dir)
  if not stat then
    return make_dirs(dir)
  elseif stat.type ~= "directory" then
    return nil, dir .. ": not a directory"
  end
  local why = occupied(dir)
  if why and not force then
    return nil, why
  end
  for _, name in ipairs(ours_in(dir)) do
    check(os.remove(dir .. "/" .. name))
  end
  return true
end

--- vectordir.create(dir, {force=, shard_rows = 50000, text = true, f16=, about = {model=, url=, ...}})
--- -> writer, or nil and why the directory cannot be used. force removes an earlier job's files.
function vectordir.create(dir, opts)
  dir = dir:match "^(.-[^/])/*$" or dir
  local ok, err = prepare(dir, opts.force)
  if not ok then
    return nil, err
  end
  local self = setmetatable({
    dir = dir,
    shard_rows = opts.shard_rows or 50000,
    keep_text = opts.text ~= false,
    f16 = opts.f16,
    about = opts.about or {},
    rows = 0,
    failed = 0,
    parts = {},
    safe = { rows = 0, failed = 0, parts = 0 },
  }, Writer)
  write_index(dir, self:index(false))
  return self
end

--- What index.json says.
function Writer:index(complete)
  local index = {
    format = FORMAT, version = 1, complete = complete, rows = self.rows, failed = self.failed,
    dim = self.dim or 0, dtype = self.f16 and "float16" or "float32", parts = json.array(),
  }
  for key, value in pairs(self.about) do
    index[key] = value
  end
  for i, part in ipairs(self.parts) do
    index.parts[i] = { npy = part.npy_name, jsonl = part.jsonl_name, first = part.first, rows = part.rows }
  end
  return index
end

-- The dimension is known from the first vector on; until then a part's .npy does not exist.
local function open_npy(self, part)
  part.npy_name = part.name .. ".npy"
  local path = self.dir .. "/" .. part.npy_name
  part.npy = check(core.npy_create(path, self.dim, { exclusive = true, f16 = self.f16 }))
  check(part.npy:append_nan(part.rows))
end

local function close_part(part)
  if part.jsonl then
    check(part.jsonl:close())
    part.jsonl = nil
  end
  if part.npy then
    check(part.npy:close())
    part.npy = nil
  end
end

local function open_part(self)
  local name = ("part-%05d"):format(#self.parts)
  local part = { name = name, jsonl_name = name .. ".jsonl", first = self.rows, rows = 0 }
  part.jsonl = check(core.open_writer(self.dir .. "/" .. part.jsonl_name, { exclusive = true }))
  self.parts[#self.parts + 1] = part
  if self.dim then
    open_npy(self, part)
  end
  return part
end

local function current_part(self)
  local part = self.parts[#self.parts]
  if part and part.rows < self.shard_rows then
    return part
  elseif part then
    close_part(part)
  end
  return open_part(self)
end

local function learn_dim(self, dim)
  self.dim = dim
  for i, part in ipairs(self.parts) do
    open_npy(self, part)
    if i < #self.parts then
      check(part.npy:close())
      part.npy = nil
    end
  end
end

-- Text that came in with broken UTF-8 is written with U+FFFD where it is broken: JSON has no other way.
local function clean(text)
  local out, at = {}, 1
  while true do
    local ok, bad = utf8.len(text, at)
    if ok then
      out[#out + 1] = text:sub(at)
      return table.concat(out)
    end
    out[#out + 1] = text:sub(at, bad - 1)
    out[#out + 1] = "\u{FFFD}"
    at = bad + 1
  end
end

-- What is told of an error. Its row counts within a call, so it stays out.
local function public_error(err)
  local message = tostring(err.message or err):gsub("^row %d+: ", "")
  return { kind = err.kind or "invalid", message = clean(message), status = err.status }
end

local function write_line(self, part, entry, err)
  local text = self.keep_text and entry.text or nil
  local line = { row = self.rows, id = entry.id, text = text, error = err and public_error(err) or json.null }
  local ok = part.jsonl:json(line, true)
  if not ok then
    line.text = text and clean(text)
    ok = part.jsonl:json(line, true)
  end
  if not ok then
    line.id = nil
    check(part.jsonl:json(line, true))
  end
end

-- Rows i .. j, all with a vector (good) or all without, all in the same part.
local function write_run(part, run)
  if run.good then
    check(part.npy:append(run.matrix, run.first, run.count))
  elseif part.npy then
    check(part.npy:append_nan(run.count))
  end
end

local function wrong_dimension(self, matrix)
  return core.error("decode", ("the endpoint answered with %d dimensions, after %d before"):format(
    matrix:cols(), self.dim))
end

-- Index of the row -> its error, also where the client forgot to say one.
local function errors_by_row(self, entries, matrix, errors)
  local by_row = {}
  local everybody = not matrix and core.error("decode", "no vector came")
    or self.dim and matrix:cols() ~= self.dim and wrong_dimension(self, matrix)
  for i, entry in ipairs(entries) do
    by_row[i] = entry.problem or everybody or nil
  end
  for _, e in ipairs(errors or {}) do
    by_row[e.index] = by_row[e.index] ~= everybody and by_row[e.index] or e.error
  end
  return by_row
end

-- Ctrl+C may come between any two instructions. What finish(false) goes back to is therefore set in
-- one step, after everything that belongs to it was written.
local function set_safe_point(self)
  local part = self.parts[#self.parts]
  self.safe = {
    rows = self.rows, failed = self.failed, dim = self.dim, parts = #self.parts,
    part_rows = part and part.rows, part_bytes = part and part.jsonl:offset(),
  }
end

--- Appends rows. entries: list of {text=, id=, problem=}; matrix: their vectors in the same order, or
--- nil; errors: list of {index=, error=}. A row with a problem or an error has no vector.
function Writer:add(entries, matrix, errors)
  if matrix and not self.dim and #entries > #(errors or {}) then
    learn_dim(self, matrix:cols())
  end
  local by_row = errors_by_row(self, entries, matrix, errors)
  local i = 1
  while i <= #entries do
    local part = current_part(self)
    local good, last = not by_row[i], i
    local limit = math.min(#entries, i + self.shard_rows - part.rows - 1)
    while last < limit and not by_row[last + 1] == good do
      last = last + 1
    end
    write_run(part, { good = good, matrix = matrix, first = i, count = last - i + 1 })
    for k = i, last do
      write_line(self, part, entries[k], by_row[k])
      self.rows = self.rows + 1
      part.rows = part.rows + 1
    end
    self.failed = self.failed + (good and 0 or last - i + 1)
    if not good and not self.first_error then
      self.first_error = public_error(by_row[i])
      self.first_error.row = self.rows - (last - i + 1)
    end
    i = last + 1
  end
  set_safe_point(self)
end

local function close_parts(self)
  for _, part in ipairs(self.parts) do
    close_part(part)
  end
end

-- Removes the files of parts from number `from` on, known or not.
local function remove_parts(self, from)
  for i = from, math.huge do
    local name = ("%s/part-%05d"):format(self.dir, i)
    self.parts[i + 1] = nil
    local npy, jsonl = os.remove(name .. ".npy"), os.remove(name .. ".jsonl")
    if not npy and not jsonl then
      return
    end
  end
end

local function go_back(self)
  local safe = self.safe
  self.rows, self.failed, self.dim = safe.rows, safe.failed, safe.dim
  remove_parts(self, safe.parts)
  for _, part in ipairs(self.parts) do
    if not safe.dim and part.npy_name then
      os.remove(self.dir .. "/" .. part.npy_name)
      part.npy_name = nil
    end
  end
  local part = self.parts[safe.parts]
  if part then
    part.rows = safe.part_rows
    check(core.truncate(self.dir .. "/" .. part.jsonl_name, safe.part_bytes))
    if part.npy_name then
      check(core.npy_truncate(self.dir .. "/" .. part.npy_name, part.rows))
    end
  end
end

--- Ends the directory. complete = false, for a job that was cut short, leaves the rows up to the last
--- whole batch, readable but marked as unfinished.
function Writer:finish(complete)
  if self.finished then
    return
  end
  close_parts(self)
  if not complete then
    go_back(self)
  end
  write_index(self.dir, self:index(complete))
  self.finished = true
end

-- ---- reading ----

local Reader = {}
Reader.__index = Reader

--- vectordir.open(dir) -> reader with .index, or nil and the reason.
function vectordir.open(dir)
  local index, err = read_index(dir)
  if not index then
    return nil, err
  end
  return setmetatable({ dir = dir, index = index }, Reader)
end

local function keep_best(best, k)
  table.sort(best, function(a, b)
    if a.score ~= b.score then
      return a.score > b.score
    end
    return a.row < b.row
  end)
  for i = #best, k + 1, -1 do
    best[i] = nil
  end
end

local function search_part(self, part, vector, k, best)
  local npy <close> = check(core.npy_open(self.dir .. "/" .. part.npy))
  local step = math.max(1, SEARCH_BYTES // (4 * math.max(1, npy:cols())))
  for first = 1, npy:rows(), step do
    local chunk <close> = check(npy:read(first, step))
    for _, hit in ipairs(chunk:topk(vector, k)) do
      best[#best + 1] = { row = part.first + first - 1 + hit.index - 1, score = hit.score }
    end
    keep_best(best, k)
  end
end

--- The k rows nearest to vector by cosine, best first: {row = (from 0), score =}.
function Reader:search(vector, k)
  local best = {}
  for _, part in ipairs(self.index.parts) do
    if part.npy then
      search_part(self, part, vector, k, best)
    end
  end
  return best
end

local function part_of(self, row)
  for _, part in ipairs(self.index.parts) do
    if row >= part.first and row < part.first + part.rows then
      return part
    end
  end
end

local function read_lines(self, part, wanted)
  local lines <close> = check(core.open_lines(self.dir .. "/" .. part.jsonl, 256 << 20))
  local left, row = wanted.n, part.first
  while left > 0 do
    local line = lines:read()
    if not line then
      return
    end
    local hits = wanted[row]
    if hits then
      local record = json.decode(line)
      for _, hit in ipairs(hits) do
        hit.id, hit.text = record and record.id, record and record.text
      end
      left = left - 1
    end
    row = row + 1
  end
end

--- Fills in id and text of a list of {row=}.
function Reader:describe(hits)
  local by_part = {}
  for _, hit in ipairs(hits) do
    local part = part_of(self, hit.row)
    if part then
      local wanted = by_part[part] or { n = 0 }
      by_part[part] = wanted
      if not wanted[hit.row] then
        wanted[hit.row] = {}
        wanted.n = wanted.n + 1
      end
      table.insert(wanted[hit.row], hit)
    end
  end
  for part, wanted in pairs(by_part) do
    read_lines(self, part, wanted)
  end
  return hits
end

return vectordir
