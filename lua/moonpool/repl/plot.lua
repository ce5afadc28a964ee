-- moonpool.repl.plot: numbers as a histogram, the rows of a matrix as points in the plane of their
-- first two principal components, in the characters of a terminal.
local thousands = require "moonpool.progress".thousands
local show = require "moonpool.repl.show"

local plot = {}

local ITERATIONS = 60
local MOST_ROWS = 2000 -- more say nothing more on a screen

-- ---- principal components ---------------------------------------------------------------------------

local function centred(m)
  local n, d = math.min(m:rows(), MOST_ROWS), m:cols()
  local step = m:rows() / n
  local rows, mean = {}, {}
  for j = 1, d do mean[j] = 0 end
  for i = 1, n do
    local row = m:row(1 + math.floor((i - 1) * step)):totable()
    rows[i] = row
    for j = 1, d do mean[j] = mean[j] + row[j] / n end
  end
  for i = 1, n do
    for j = 1, d do rows[i][j] = rows[i][j] - mean[j] end
  end
  return rows, d
end

local function dot(a, b)
  local sum = 0
  for j = 1, #a do sum = sum + a[j] * b[j] end
  return sum
end

local function unit(v)
  local length = math.sqrt(dot(v, v))
  if length == 0 then
    return v
  end
  for j = 1, #v do v[j] = v[j] / length end
  return v
end

-- The direction in which the rows differ most, by power iteration on their covariance, at right angles
-- to `other`. It begins at a fixed vector, so a plot can be repeated.
local function component(rows, d, other)
  local v = {}
  for j = 1, d do v[j] = math.sin(j * 12.9898) end
  unit(v)
  for _ = 1, ITERATIONS do
    local next_v = {}
    for j = 1, d do next_v[j] = 0 end
    for _, row in ipairs(rows) do
      local score = dot(row, v)
      for j = 1, d do next_v[j] = next_v[j] + score * row[j] end
    end
    if other then
      local along = dot(next_v, other)
      for j = 1, d do next_v[j] = next_v[j] - along * other[j] end
    end
    if dot(next_v, next_v) == 0 then
      break
    end
    v = unit(next_v)
  end
  return v
end

-- ---- drawing ----------------------------------------------------------------------------------------

local function range(list)
  local low, high = math.huge, -math.huge
  for _, v in ipairs(list) do low, high = math.min(low, v), math.max(high, v) end
  return low, high > low and high or low + 1
end

local MARKS = { ".", ":", "o", "O", "#" } -- by how many points share a place

local function canvas(xs, ys, width, height)
  local x0, x1 = range(xs)
  local y0, y1 = range(ys)
  local cells, lines = {}, {}
  for i = 1, #xs do
    local column = math.floor((xs[i] - x0) / (x1 - x0) * (width - 1))
    local line = math.floor((y1 - ys[i]) / (y1 - y0) * (height - 1))
    local at = line * width + column
    cells[at] = (cells[at] or 0) + 1
  end
  for line = 0, height - 1 do
    local row = {}
    for column = 0, width - 1 do
      local n = cells[line * width + column]
      row[column + 1] = n and MARKS[math.min(n, #MARKS)] or " "
    end
    lines[line + 1] = "|" .. table.concat(row) .. "|"
  end
  local edge = "+" .. ("-"):rep(width) .. "+"
  return edge .. "\n" .. table.concat(lines, "\n") .. "\n" .. edge
end

local function scatter(m, width, height)
  local rows, d = centred(m)
  if #rows < 2 or d < 2 then
    return nil, "a scatter needs two rows and two columns"
  end
  local first = component(rows, d)
  local second = component(rows, d, first)
  local xs, ys, total, along = {}, {}, 0, 0
  for i, row in ipairs(rows) do
    xs[i], ys[i] = dot(row, first), dot(row, second)
    total = total + dot(row, row)
    along = along + xs[i] * xs[i] + ys[i] * ys[i]
  end
  return ("%s\n%s of %s rows by their first two principal components: %.0f %% of the variance"):format(
    canvas(xs, ys, width, height), thousands(#rows), thousands(m:rows()),
    total > 0 and 100 * along / total or 0)
end

local function columns(list, width, height)
  local n = #list
  local lines = { ("%s numbers: median %.4g, p99 %.4g"):format(thousands(n), show.quantile(list, 0.5),
    show.quantile(list, 0.99)) }
  local low, high = range(list)
  local cells, most = {}, 1
  for i = 1, height do cells[i] = 0 end
  for _, v in ipairs(list) do
    local i = math.min(height, 1 + math.floor((v - low) / (high - low) * height))
    cells[i] = cells[i] + 1
    most = math.max(most, cells[i])
  end
  for i, count in ipairs(cells) do
    local bar = count > 0 and ("#"):rep(math.max(1, math.floor(count / most * (width - 22)))) or ""
    local from = low + (i - 1) / height * (high - low)
    lines[#lines + 1] = ("%10.4g %7s %s"):format(from, thousands(count), bar)
  end
  return table.concat(lines, "\n")
end

--- The picture of a value, or nil and why there is none. A list of numbers, a row, a matrix, a result.
function plot.text(v, width, height)
  width, height = math.max(30, math.min(width or 80, 100) - 2), height or 16
  local meta = getmetatable(v)
  local kind = type(meta) == "table" and meta.__name
  if type(v) == "table" and v.matrix then
    return scatter(v.matrix, width, height)
  end
  if kind == "moonpool.matrix" then
    return scatter(v, width, height)
  end
  if kind == "moonpool.row" then
    v = v:totable()
  end
  if type(v) ~= "table" then
    return nil, "a list of numbers, a matrix or a result expected, got a " .. type(v)
  end
  local numbers = {}
  for _, x in ipairs(v) do
    x = type(x) == "table" and x.time or x
    if type(x) ~= "number" then
      return nil, "a list of numbers expected; it holds a " .. type(x)
    end
    if x == x then
      numbers[#numbers + 1] = x
    end
  end
  if #numbers == 0 then
    return nil, "there is no number in it"
  end
  return columns(numbers, width, height)
end

return plot
