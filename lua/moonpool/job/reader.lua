-- moonpool.job.reader: the vectors and lines of a directory that a job wrote; what `moonpool search`
-- reads.
local core = require "moonpool.core"
local json = require "moonpool.json"
local layout = require "moonpool.job.layout"

local reader = {}

local check = layout.check
local SEARCH_BYTES = 8 << 20 -- of vectors in memory at once

local Reader = {}
Reader.__index = Reader

--- reader.open(dir) -> reader with .index, or nil and the reason.
function reader.open(dir)
  local index, err = layout.read_index(dir)
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

return reader
