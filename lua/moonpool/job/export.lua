-- moonpool.job.export: the rows of a directory as one file, in bounded memory. The file appears under
-- its name when it is whole.
local core = require "moonpool.core"
local json = require "moonpool.json"

local export = {}

local BLOCK = 4 << 20 -- bytes of vectors at once

export.forms = ".npy, .jsonl, .csv, .fvecs, .fbin"

--- The form that a name tells.
function export.form(name)
  local suffix = name:lower():match "%.(%w+)$"
  return ({
    npy = "npy", jsonl = "jsonl", ndjson = "jsonl", csv = "csv", fvecs = "fvecs", fbin = "fbin",
  })[suffix]
end

local function check(ok, message)
  if not ok then
    error(core.error("file", message), 0)
  end
  return ok
end

-- Calls fn(matrix, lines or nil, first row): blocks of rows in order.
local function each_block(dir, with_lines, fn)
  local dim = dir.index.dim
  local step = math.max(1, BLOCK // (4 * math.max(1, dim)))
  for _, part in ipairs(dir.index.parts) do
    local npy = part.npy and check(core.npy_open(dir.dir .. "/" .. part.npy))
    local lines = with_lines and check(core.open_lines(dir.dir .. "/" .. part.jsonl, 256 << 20))
    for at = 0, part.rows - 1, step do
      local n = math.min(step, part.rows - at)
      local m = npy and check(npy:read(at + 1, n)) or nil
      local list = lines and {}
      for i = 1, lines and n or 0 do
        list[i] = check(json.decode(check(lines:read(), "a line is missing")))
      end
      fn(m, list, part.first + at, n)
      if m then
        m:free()
      end
    end
    if npy then
      npy:close()
    end
    if lines then
      lines:close()
    end
  end
end

-- ---- the forms ----------------------------------------------------------------------------------

local writers = {}

function writers.npy(dir, path, o)
  local out = check(core.npy_create(path, math.max(1, dir.index.dim), { f16 = o.f16 }))
  each_block(dir, false, function(m, _, _, n)
    check(m and out:append(m) or out:append_nan(n))
  end)
  check(out:sync())
  check(out:close())
end

local function with_writer(path, fn)
  local out = check(core.open_writer(path))
  fn(out)
  check(out:sync())
  check(out:close())
end

function writers.jsonl(dir, path)
  with_writer(path, function(out)
    each_block(dir, true, function(m, lines)
      for i, line in ipairs(lines) do
        local good = line.error == json.null
        line.error = not good and line.error or nil
        line.vector = good and m and m[i]:totable() or nil
        check(out:json(line, true))
      end
    end)
  end)
end

local function csv_field(value)
  local text = value == nil and "" or tostring(value)
  return text:find '[",\r\n]' and '"' .. text:gsub('"', '""') .. '"' or text
end

function writers.csv(dir, path)
  with_writer(path, function(out)
    local head = { "row", "id", "text", "error" }
    for i = 0, dir.index.dim - 1 do
      head[#head + 1] = "v" .. i
    end
    check(out:write(table.concat(head, ","), "\r\n"))
    each_block(dir, true, function(m, lines)
      for i, line in ipairs(lines) do
        local good = line.error == json.null
        local row = { line.row, csv_field(line.id), csv_field(line.text) }
        row[4] = good and "" or csv_field(line.error.message)
        local vector = good and m and m[i]:totable() or {}
        for k = 1, dir.index.dim do
          row[#row + 1] = vector[k] and ("%.9g"):format(vector[k]) or ""
        end
        check(out:write(table.concat(row, ","), "\r\n"))
      end
    end)
  end)
end

local function nan_rows(n, dim)
  return string.pack("<f", 0 / 0):rep(n * dim)
end

function writers.fvecs(dir, path)
  local head = string.pack("<i4", dir.index.dim)
  with_writer(path, function(out)
    each_block(dir, false, function(m, _, _, n)
      for i = 1, n do
        check(out:write(head, m and m[i]:bytes() or nan_rows(1, dir.index.dim)))
      end
    end)
  end)
end

function writers.fbin(dir, path)
  with_writer(path, function(out)
    check(out:write(string.pack("<i4i4", dir.index.rows, dir.index.dim)))
    each_block(dir, false, function(m, _, _, n)
      check(out:write(m and m:bytes() or nan_rows(n, dir.index.dim)))
    end)
  end)
end

-- ---- one byte a number --------------------------------------------------------------------------

local function int8_head(rows, cols)
  local head = ("{'descr': '|i1', 'fortran_order': False, 'shape': (%d, %d), }"):format(rows, cols)
  return "\x93NUMPY\1\0" .. string.pack("<I2", 118) .. head .. (" "):rep(117 - #head) .. "\n"
end

-- Two passes: the largest absolute value of each dimension, then the bytes. Rows of NaN become zeros.
local function write_int8(dir, path, scales_path)
  local range
  each_block(dir, false, function(m)
    range = m and core.matrix_ranges(m, range) or range
  end)
  with_writer(path, function(out)
    check(out:write(int8_head(dir.index.rows, dir.index.dim)))
    each_block(dir, false, function(m, _, _, n)
      check(out:write(m and core.matrix_int8(m, range) or ("\0"):rep(n * dir.index.dim)))
    end)
  end)
  local scales = json.array()
  for i, value in ipairs(range and range[1]:totable() or {}) do
    scales[i] = value / 127
  end
  check(core.replace_file(scales_path, json.encode({ dtype = "int8", dim = dir.index.dim, scales = scales },
    { sort_keys = true }) .. "\n", not core.in_task()))
end

-- ---- the file -----------------------------------------------------------------------------------

--- export.write(dir, path, {f16=, int8=, force=}) -> how many rows; nil and the reason.
function export.write(dir, path, o)
  local form = export.form(path)
  if core.stat(path) and not o.force then
    return nil, path .. " is there already (choose another file, or --force to replace it)"
  elseif (o.f16 or o.int8) and form ~= "npy" then
    return nil, "only .npy holds other numbers than float32"
  elseif o.f16 and o.int8 then
    return nil, "either half precision or one byte a number"
  end
  local temporary = path .. ".tmp"
  local ok, err = pcall(function()
    if o.int8 then
      write_int8(dir, temporary, path .. ".json")
    else
      writers[form](dir, temporary, o)
    end
    check(core.rename(temporary, path))
  end)
  if not ok then
    os.remove(temporary)
    return nil, core.is_error(err) and err.message or error(err, 0)
  end
  return dir.index.rows
end

return export
