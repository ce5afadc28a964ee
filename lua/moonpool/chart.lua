-- moonpool.chart: small charts as SVG text: a page of panels with one legend for all.
--
--   chart.page { title =, subtitle =, names = { "a", "b" }, panels = { chart.lines {}, chart.bars {} } }
--
-- Every panel has the same series in the same order, and a series has the same colour in all of them.
local chart = {}

-- Okabe and Ito's colours, which people who see few colours can tell apart; lines differ by dashes too.
local colours = { "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999" }
local dashes = { "", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 3", "5 5" }

local PANEL_W, PANEL_H = 520, 270
local LEFT, RIGHT, TOP, BOTTOM = 66, 18, 36, 46
local PLOT_W, PLOT_H = PANEL_W - LEFT - RIGHT, PANEL_H - TOP - BOTTOM

local function colour(i)
  return colours[(i - 1) % #colours + 1]
end

local function pen(i)
  return (' stroke="%s" stroke-dasharray="%s"'):format(colour(i), dashes[(i - 1) % #dashes + 1])
end

local function escape(text)
  local map = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
  return (tostring(text):gsub('[&<>"]', map):gsub("%c", " "))
end

-- Short and the same everywhere: two digits after the point are half a pixel's tenth.
local function n(v)
  return (("%.2f"):format(v):gsub("%.?0+$", ""))
end

-- ---- elements: each adds text to a list ---------------------------------------------------------

local function text(out, x, y, s, attributes)
  out[#out + 1] = ('<text x="%s" y="%s"%s>%s</text>'):format(n(x), n(y), attributes or "", escape(s))
end

local function line(out, x1, y1, x2, y2, attributes)
  out[#out + 1] = ('<line x1="%s" y1="%s" x2="%s" y2="%s"%s/>'):format(
    n(x1), n(y1), n(x2), n(y2), attributes)
end

local function rect(out, x, y, w, h, attributes)
  out[#out + 1] = ('<rect x="%s" y="%s" width="%s" height="%s"%s/>'):format(
    n(x), n(y), n(w), n(h), attributes)
end

-- ---- scales -------------------------------------------------------------------------------------

--- Round numbers from low to at least high, at most `most` steps: the axis' marks, first to last.
function chart.ticks(low, high, most)
  if high <= low then
    high = low + 1
  end
  local raw = (high - low) / most
  local magnitude = 10 ^ math.floor(math.log(raw, 10))
  local step = magnitude * 10
  for _, factor in ipairs { 1, 2, 5 } do
    if raw <= magnitude * factor * (1 + 1e-9) then
      step = magnitude * factor
      break
    end
  end
  local list, first = {}, math.floor(low / step + 1e-9)
  for i = first, math.ceil(high / step - 1e-9) do
    list[#list + 1] = i * step
  end
  return list
end

--- 1, 2 and 5 times the powers of ten around low and high; the powers alone when those are many.
function chart.log_ticks(low, high)
  local factors = high / low > 300 and { 1 } or { 1, 2, 5 }
  local all = {}
  for e = math.floor(math.log(low, 10)) - 1, math.ceil(math.log(high, 10)) + 1 do
    for _, f in ipairs(factors) do
      all[#all + 1] = f * 10.0 ^ e
    end
  end
  local list = {}
  for i, v in ipairs(all) do
    if (all[i + 1] or math.huge) > low * (1 + 1e-9) and (all[i - 1] or 0) < high * (1 - 1e-9) then
      list[#list + 1] = v
    end
  end
  return list
end

-- A function from values to places, and the marks.
local function scale(low, high, from, to, log)
  local ticks = log and chart.log_ticks(low, high) or chart.ticks(low, high, 5)
  local a, b = ticks[1], ticks[#ticks]
  local f = log and math.log or function(v) return v end
  return function(v)
    return from + (f(v) - f(a)) / (f(b) - f(a)) * (to - from)
  end, ticks
end

local function plain(v)
  if v >= 10000 and v % 1000 == 0 then
    return ("%dk"):format(v // 1000)
  end
  return ("%.6g"):format(v)
end

-- ---- panels -------------------------------------------------------------------------------------

local grid = ' stroke="#e4e4e4"'
local axis = ' stroke="#888888"'

local function frame(out, p, y_of, y_ticks)
  text(out, LEFT, 18, p.title, ' font-size="14" font-weight="600"')
  for _, v in ipairs(y_ticks) do
    line(out, LEFT, y_of(v), LEFT + PLOT_W, y_of(v), grid)
    text(out, LEFT - 6, y_of(v) + 4, (p.format or plain)(v), ' text-anchor="end"')
  end
  line(out, LEFT, TOP + PLOT_H, LEFT + PLOT_W, TOP + PLOT_H, axis)
  line(out, LEFT, TOP, LEFT, TOP + PLOT_H, axis)
  if p.x_label then
    text(out, LEFT + PLOT_W / 2, PANEL_H - 8, p.x_label, ' text-anchor="middle" fill="#555555"')
  end
end

local function range(series, k, positive)
  local low, high = math.huge, -math.huge
  for _, points in ipairs(series) do
    for _, point in ipairs(points) do
      local v = point[k]
      if v and (not positive or v > 0) then
        low, high = math.min(low, v), math.max(high, v)
      end
    end
  end
  if low > high then
    return 0.1, 1
  end
  return low, high
end

-- A point without a y interrupts the line.
local function path(points, x_of, y_of, positive)
  local list, step = {}, "M"
  for _, point in ipairs(points) do
    if point[2] and (not positive or point[2] > 0) then
      list[#list + 1] = step .. n(x_of(point[1])) .. " " .. n(y_of(point[2]))
      step = "L"
    else
      step = "M"
    end
  end
  return table.concat(list)
end

local function category_axis(out, names)
  local width = PLOT_W / #names
  for i, name in ipairs(names) do
    text(out, LEFT + (i - 0.5) * width, TOP + PLOT_H + 18, name, ' text-anchor="middle"')
  end
  return function(i)
    return LEFT + (i - 0.5) * width
  end
end

local function number_axis(out, p)
  local low, high = range(p.series, 1)
  local x_of, ticks = scale(math.min(0, low), high, LEFT, LEFT + PLOT_W)
  for _, v in ipairs(ticks) do
    line(out, x_of(v), TOP + PLOT_H, x_of(v), TOP + PLOT_H + 4, axis)
    text(out, x_of(v), TOP + PLOT_H + 18, plain(v), ' text-anchor="middle"')
  end
  return x_of, ticks[#ticks]
end

local function bands(out, p, x_of, last)
  for _, band in ipairs(p.bands or {}) do
    local from, to = math.max(0, band.from), math.min(last, band.to)
    if to > from then
      rect(out, x_of(from), TOP, x_of(to) - x_of(from), PLOT_H, ' fill="#f3dede"')
      text(out, (x_of(from) + x_of(to)) / 2, TOP + 12, band.label, ' text-anchor="middle" fill="#8a4b4b"')
    end
  end
end

local function draw_lines(p)
  local out = {}
  local low, high = range(p.series, 2, p.log)
  local y_of, y_ticks = scale(p.log and low or math.min(0, low), high, TOP + PLOT_H, TOP, p.log)
  local x_of, last
  if p.categories then
    x_of = category_axis(out, p.categories)
  else
    x_of, last = number_axis(out, p)
    bands(out, p, x_of, last)
  end
  frame(out, p, y_of, y_ticks)
  for i, points in ipairs(p.series) do
    local d = path(points, x_of, y_of, p.log)
    if d ~= "" then
      out[#out + 1] = ('<path d="%s" fill="none" stroke-width="1.8"%s/>'):format(d, pen(i))
    end
    for _, point in ipairs(p.categories and points or {}) do
      if point[2] and (not p.log or point[2] > 0) then
        out[#out + 1] = ('<circle cx="%s" cy="%s" r="3.5" fill="%s"/>'):format(
          n(x_of(point[1])), n(y_of(point[2])), colour(i))
      end
    end
  end
  return table.concat(out, "\n")
end

local function draw_bars(p)
  local out, high = {}, p.at_least or 0
  for _, values in ipairs(p.values) do
    for _, v in ipairs(values) do
      high = math.max(high, v)
    end
  end
  local y_of, y_ticks = scale(0, high, TOP + PLOT_H, TOP + 10)
  frame(out, p, y_of, y_ticks)
  local x_of = category_axis(out, p.categories)
  local width = PLOT_W / #p.categories * 0.8 / #p.values
  for i, values in ipairs(p.values) do
    for k, v in ipairs(values) do
      local x = x_of(k) + (i - 1 - #p.values / 2) * width
      local y = y_of(v)
      rect(out, x + 1, y, width - 2, TOP + PLOT_H - y, (' fill="%s"'):format(colour(i)))
      if width >= 22 then
        local label = (p.label or p.format or plain)(v)
        text(out, x + width / 2, y - 4, label, ' text-anchor="middle" font-size="10"')
      end
    end
  end
  return table.concat(out, "\n")
end

--- A panel of lines: { title =, series = { { {x, y}, ... }, ... }, categories = names of x = 1, 2, ...
--- or nil, x_label =, log = true, format = function(y), bands = { { from =, to =, label = } } }
function chart.lines(p)
  p.draw = draw_lines
  return p
end

--- A panel of grouped bars: { title =, categories =, values = { {a number a category}, ... }, format =,
--- label = function(v) for the number above a bar, at_least = height of the axis }
function chart.bars(p)
  p.draw = draw_bars
  return p
end

-- ---- page ---------------------------------------------------------------------------------------

-- Widths of text are guesses: SVG has no measure. Wide enough for DejaVu Sans.
local function legend(out, names, y, width)
  local x = LEFT
  for i, name in ipairs(names) do
    local w = 44 + utf8.len(tostring(name), 1, -1, true) * 7.6
    if x > LEFT and x + w > width then
      x, y = LEFT, y + 20
    end
    rect(out, x, y - 9, 10, 10, (' fill="%s"'):format(colour(i)))
    line(out, x + 12, y - 4, x + 30, y - 4, ' stroke-width="2"' .. pen(i))
    text(out, x + 35, y, name, ' font-size="13"')
    x = x + w
  end
  return y
end

--- The page as SVG text. columns: panels side by side, 2 unless given.
function chart.page(page)
  local columns = math.min(page.columns or 2, #page.panels)
  local out, width = {}, columns * PANEL_W
  text(out, LEFT, 30, page.title, ' font-size="18" font-weight="600"')
  local y = 30
  for _, s in ipairs(page.subtitle or {}) do
    y = y + 20
    text(out, LEFT, y, s, ' font-size="12" fill="#555555"')
  end
  y = legend(out, page.names, y + 28, width - RIGHT) + 16
  for i, panel in ipairs(page.panels) do
    out[#out + 1] = ('<g transform="translate(%d %d)">'):format(
      (i - 1) % columns * PANEL_W, y + (i - 1) // columns * PANEL_H)
    out[#out + 1] = panel:draw()
    out[#out + 1] = "</g>"
  end
  local height = y + ((#page.panels - 1) // columns + 1) * PANEL_H + 10
  return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
    .. 'font-family="system-ui, DejaVu Sans, Helvetica, Arial, sans-serif" font-size="11" fill="#222222">\n'
    .. '<rect width="%d" height="%d" fill="#ffffff"/>\n%s\n</svg>\n'):format(
    width, height, width, height, width, height, table.concat(out, "\n"))
end

return chart
