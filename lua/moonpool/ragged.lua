-- moonpool.ragged: rows of several vectors each, and sparse rows: made by client:embed_all and
-- client:embed_sparse, kept as files that NumPy reads.
--
-- A ragged matrix at PATH is PATH.npy, all vectors one below the other (of sparse rows: all numbers, in
-- one column), PATH.offsets.npy, where each row begins, and of sparse rows PATH.indices.npy.
local core = require "moonpool.core"
local matrix = require "moonpool.matrix"

local M = {}

local MAGIC = "\x93NUMPY\1\0"

-- A .npy file of whole numbers in one dimension.
local function write_numbers(path, bytes, type, width)
  local head = ("{'descr': '%s', 'fortran_order': False, 'shape': (%d,), }"):format(type, #bytes // width)
  local size = #MAGIC + 2 + #head + 1
  head = head .. (" "):rep(-size % 64) .. "\n"
  local f, why = io.open(path, "wb")
  if not f then
    return nil, why
  end
  local ok, err = f:write(MAGIC, ("<I2"):pack(#head), head, bytes)
  local closed, more = f:close()
  if ok and closed then
    return true
  end
  return nil, ("%s: %s"):format(path, tostring(err or more))
end

local function read_numbers(path, type, width)
  local f, why = io.open(path, "rb")
  if not f then
    return nil, why
  end
  local text = f:read "a"
  f:close()
  local n = text and #text >= 10 and text:sub(1, 8) == MAGIC and ("<I2"):unpack(text, 9)
  local head = n and text:sub(11, 10 + n)
  local count = head and head:find("'" .. type .. "'", 1, true) and head:match "'shape': %((%d+),%)"
  local bytes = count and text:sub(11 + n)
  if not bytes or #bytes ~= tonumber(count) * width then
    return nil, path .. ": not a .npy file of " .. type
  end
  return bytes
end

local function save(r, path)
  local ok, err = r:vectors():save_npy(path .. ".npy")
  if not ok then
    return nil, err
  end
  ok, err = write_numbers(path .. ".offsets.npy", r:offsets(), "<i8", 8)
  if ok and r:sparse() then
    ok, err = write_numbers(path .. ".indices.npy", r:indices(), "<u4", 4)
  end
  return ok, err
end

core.ragged_methods.save = save

local function exists(path)
  local f = io.open(path, "rb")
  return f ~= nil and f:close()
end

--- What r:save(path) has written; nil and why.
function M.load(path)
  local vectors, err = matrix.load_npy(path .. ".npy")
  if not vectors then
    return nil, err
  end
  local offsets, indices
  offsets, err = read_numbers(path .. ".offsets.npy", "<i8", 8)
  if offsets and exists(path .. ".indices.npy") then
    indices, err = read_numbers(path .. ".indices.npy", "<u4", 4)
    offsets = indices and offsets
  end
  if not offsets then
    return nil, err
  end
  local ok, made = pcall(core.ragged_make, vectors, offsets, indices)
  if not ok then
    return nil, ("%s: %s"):format(path, (tostring(made):gsub("^.-:%d+: ", "")))
  end
  return made
end

local function dense(rows)
  local all, offsets, n = {}, { ("<i8"):pack(0) }, 0
  for i, row in ipairs(rows) do
    for _, vector in ipairs(row) do
      n = n + 1
      all[n] = vector
    end
    offsets[i + 1] = ("<i8"):pack(n)
  end
  return core.ragged_make(matrix.from(all), table.concat(offsets))
end

local function sparse(rows)
  local numbers, places, offsets, n = {}, {}, { ("<i8"):pack(0) }, 0
  for i, row in ipairs(rows) do
    for k, place in ipairs(row.indices) do
      n = n + 1
      numbers[n], places[n] = { row.values[k] }, ("<I4"):pack(place)
    end
    offsets[i + 1] = ("<i8"):pack(n)
  end
  return core.ragged_make(matrix.from(numbers), table.concat(offsets), table.concat(places))
end

--- ragged.from { {vector, ...}, ... }, or of { {indices =, values =}, ... }, indices ascending.
function M.from(rows)
  if type(rows) ~= "table" or type(rows[1]) ~= "table" then
    error("ragged.from: a list of rows is expected", 2)
  end
  return (rows[1].indices and sparse or dense)(rows)
end

return M
