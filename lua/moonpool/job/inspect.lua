-- moonpool.job.inspect: whether a directory is what its index says, and whether its vectors can be
-- trusted.
local core = require "moonpool.core"
local json = require "moonpool.json"

local inspect = {}

local MUCH = 0.5 -- share of rows with another row's vector that no model gives different texts
local ENOUGH = 64 -- rows before such a share says anything

local function add(problems, text, ...)
  problems[#problems + 1] = text:format(...)
end

--- What is unsound in a health table, in words; nil where nothing is.
function inspect.unsound(h)
  local words = {}
  if h.zero > 0 then
    add(words, "%d vectors are zero", h.zero)
  end
  if h.not_finite > 0 then
    add(words, "%d vectors hold numbers that are not finite", h.not_finite)
  end
  if h.rows >= ENOUGH and h.identical > MUCH * h.rows then
    add(words, "%d of %d texts got the vector of another text", h.identical, h.rows)
  end
  return #words > 0 and table.concat(words, "; ") or nil
end

local function sum_of_lines(path)
  local sum, bytes = core.sum_file(path, nil, true)
  return sum, bytes
end

local function check_lines(dir, part, problems)
  local path = dir.dir .. "/" .. part.jsonl
  local stat = core.stat(path)
  if not stat then
    return add(problems, "%s is missing", part.jsonl)
  elseif part.jsonl_bytes and stat.size ~= part.jsonl_bytes then
    return add(problems, "%s has %d bytes, not %d", part.jsonl, stat.size, part.jsonl_bytes)
  elseif part.jsonl_sum and sum_of_lines(path) ~= part.jsonl_sum then
    return add(problems, "%s is not as it was written", part.jsonl)
  end
  local lines <close> = core.open_lines(path, 256 << 20)
  local n, failed = 0, 0
  for line in function() return (lines:read()) end do
    if line:sub(1, 13) ~= '{"error":null' then
      local record = json.decode(line)
      failed = failed + (record and record.error ~= json.null and 1 or 0)
    end
    n = n + 1
  end
  if n ~= part.rows then
    add(problems, "%s has %d lines, not %d", part.jsonl, n, part.rows)
  elseif part.failed and failed ~= part.failed then
    add(problems, "%s has %d failed rows, not %d", part.jsonl, failed, part.failed)
  end
end

local function check_vectors(dir, part, problems)
  if not part.npy then
    return
  end
  local path = dir.dir .. "/" .. part.npy
  local npy, err = core.npy_open(path)
  if not npy then
    return add(problems, "%s", err)
  end
  local rows, cols = npy:rows(), npy:cols()
  npy:close()
  if rows ~= part.rows or cols ~= dir.index.dim then
    return add(problems, "%s holds %d x %d, not %d x %d", part.npy, rows, cols, part.rows, dir.index.dim)
  elseif part.npy_sum then
    local raw <close> = assert(core.job_raw(path, dir.index.dim * (dir.index.dtype == "float16" and 2 or 4)))
    if raw:sum(rows) ~= part.npy_sum then
      add(problems, "%s is not as it was written", part.npy)
    end
  end
end

local function add_health(sum, h)
  for _, name in ipairs { "rows", "zero", "not_finite", "identical" } do
    sum[name] = sum[name] + (h[name] or 0)
  end
  if h.norm_min then
    sum.norm_min = math.min(sum.norm_min or h.norm_min, h.norm_min)
    sum.norm_max = math.max(sum.norm_max or h.norm_max, h.norm_max)
  end
end

--- What is wrong with a directory: {problems = list of texts, rows=, failed=, dimensions=, health=}.
function inspect.check(dir)
  local index = dir.index
  local problems = json.array()
  local health = { rows = 0, zero = 0, not_finite = 0, identical = 0 }
  local rows = 0
  for i, part in ipairs(index.parts) do
    if part.first ~= rows then
      add(problems, "part %d begins at row %d, not %d", i - 1, part.first, rows)
    end
    rows = rows + part.rows
    check_lines(dir, part, problems)
    check_vectors(dir, part, problems)
    if part.health then
      add_health(health, part.health)
    end
  end
  if rows ~= index.rows then
    add(problems, "the parts hold %d rows, not %d", rows, index.rows)
  end
  if not index.complete then
    add(problems, "the job is not complete")
  end
  problems[#problems + 1] = inspect.unsound(health)
  return {
    problems = problems, rows = index.rows, failed = index.failed, dimensions = index.dim, health = health,
    complete = index.complete,
  }
end

return inspect
