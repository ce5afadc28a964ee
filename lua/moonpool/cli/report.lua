-- moonpool.cli.report: a job on one page that needs nothing else: figures in tables, pictures as inline
-- SVG, light or dark as the reader has it, no script.
local chart = require "moonpool.chart"
local core = require "moonpool.core"
local inspect = require "moonpool.job.inspect"
local progress = require "moonpool.progress"

local report = {}

local MOST = 480 -- samples kept; twice as far apart when there are more
local W, H, LEFT, TOP, BOTTOM = 640, 200, 62, 12, 26

-- ---- while the job runs -------------------------------------------------------------------------

local Recorder = {}
Recorder.__index = Recorder

--- What to call for each bit of progress.
function report.recorder()
  return setmetatable({ samples = {}, every = 0.25, started = core.now(), last = -math.huge }, Recorder)
end

local function thin(self)
  local half = {}
  for i = 2, #self.samples, 2 do
    half[#half + 1] = self.samples[i]
  end
  self.samples, self.every = half, 2 * self.every
end

--- state: of Job:progress; stats: of the client.
function Recorder:sample(state, stats)
  local at = core.now() - self.started
  if at - self.last < self.every then
    return
  end
  self.last = at
  self.samples[#self.samples + 1] = {
    at = at, rows = state.rows, tokens = state.tokens or 0, in_flight = stats.in_flight or 0,
    limit = stats.concurrency_limit or 0, attempts = stats.attempts or 0, throttled = stats.throttled or 0,
  }
  if #self.samples > MOST then
    thin(self)
  end
end

-- ---- pictures -----------------------------------------------------------------------------------

local function escape(text)
  local map = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
  return (tostring(text):gsub('[&<>"]', map):gsub("%c", " "))
end

local function short(v)
  for _, unit in ipairs { { 1e9, "G" }, { 1e6, "M" }, { 1e3, "k" } } do
    if v >= unit[1] then
      return ("%.3g%s"):format(v / unit[1], unit[2])
    end
  end
  return ("%.3g"):format(v)
end

local function axes(out, high, right_text)
  local ticks = chart.ticks(0, high, 4)
  local top = ticks[#ticks]
  for _, tick in ipairs(ticks) do
    local y = TOP + (H - TOP - BOTTOM) * (1 - tick / top)
    out[#out + 1] = ('<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text x="%d" y="%.1f" '
      .. 'text-anchor="end">%s</text>'):format(LEFT, y, W - 8, y, LEFT - 6, y + 4, short(tick))
  end
  out[#out + 1] = ('<text x="%d" y="%d" text-anchor="end">%s</text>'):format(W - 8, H - 6, escape(right_text))
  return top
end

local function figure(title)
  local words = escape(title)
  return ('<figure><figcaption>%s</figcaption><svg viewBox="0 0 %d %d" role="img" aria-label="%s">')
    :format(words, W, H, words)
end

-- series: list of {name=, class=, points = list of {x, y}}
local function lines(title, unit, series, span)
  local high = 0
  for _, one in ipairs(series) do
    for _, p in ipairs(one.points) do
      high = math.max(high, p[2])
    end
  end
  local out = { figure(title .. (unit ~= "" and ", " .. unit or "")) }
  local top = axes(out, high, progress.duration(span))
  for _, one in ipairs(series) do
    local points = {}
    for i, p in ipairs(one.points) do
      points[i] = ("%.1f,%.1f"):format(LEFT + (W - 8 - LEFT) * p[1] / math.max(span, 1e-9),
        TOP + (H - TOP - BOTTOM) * (1 - p[2] / top))
    end
    out[#out + 1] = ('<polyline class="%s" points="%s"/>'):format(one.class, table.concat(points, " "))
  end
  out[#out + 1] = "</svg>"
  if #series > 1 then
    for _, one in ipairs(series) do
      out[#out + 1] = ('<span class="key %s">%s</span>'):format(one.class, escape(one.name))
    end
  end
  out[#out + 1] = "</figure>"
  return table.concat(out)
end

-- bars: list of {label, value}
local function bars(title, list)
  local high = 0
  for _, bar in ipairs(list) do
    high = math.max(high, bar[2])
  end
  local out = { figure(title) }
  local top = axes(out, high, "")
  local step = (W - 8 - LEFT) / math.max(1, #list)
  for i, bar in ipairs(list) do
    local h = (H - TOP - BOTTOM) * bar[2] / top
    local x = LEFT + (i - 1) * step
    out[#out + 1] = ('<rect class="bar" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s: %s</title>'
      .. '</rect>'):format(x + step * 0.15, H - BOTTOM - h, step * 0.7, h, escape(bar[1]), short(bar[2]))
    out[#out + 1] = ('<text x="%.1f" y="%d" text-anchor="middle">%s</text>'):format(x + step / 2, H - 8,
      escape(bar[1]))
  end
  out[#out + 1] = "</svg></figure>"
  return table.concat(out)
end

local function rates(samples, name)
  local points = {}
  for i = 2, #samples do
    local a, b = samples[i - 1], samples[i]
    points[#points + 1] = { b.at, (b[name] - a[name]) / math.max(1e-9, b.at - a.at) }
  end
  return points
end

local function values(samples, name)
  local points = {}
  for i, s in ipairs(samples) do
    points[i] = { s.at, s[name] }
  end
  return points
end

-- ---- figures ------------------------------------------------------------------------------------

local function rows_of(list)
  local out = {}
  for _, row in ipairs(list) do
    if row[2] ~= nil then
      out[#out + 1] = ("<tr><th>%s</th><td>%s</td></tr>"):format(escape(row[1]), escape(row[2]))
    end
  end
  return "<table>" .. table.concat(out) .. "</table>"
end

local function sorted(counts)
  local list = {}
  for name, n in pairs(counts) do
    list[#list + 1] = { tostring(name), n, name }
  end
  table.sort(list, function(a, b)
    if type(a[3]) == "number" and type(b[3]) == "number" then
      return a[3] < b[3]
    end
    return a[1] < b[1]
  end)
  return list
end

--- Percentiles of a histogram of request times whose bin i holds 2^(i/4) ms.
function report.percentile(times, q)
  local total, bins = 0, {}
  for bin, n in pairs(times) do
    total = total + n
    bins[#bins + 1] = bin
  end
  table.sort(bins)
  local left = q * total
  for _, bin in ipairs(bins) do
    left = left - times[bin]
    if left <= 0 then
      return 2 ^ (bin / 4) / 1000
    end
  end
  return 0
end

local style = [[
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#667;--line:#d5d9de;--paper:#fff;--a:#0072b2;--b:#d55e00}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#99a;--line:#3a4048;--paper:#15181c;
--a:#56b4e9;--b:#e69f00}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1360px;
margin:2em auto;padding:0 1em}
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:1.6em}table{border-collapse:collapse}
th{text-align:left;font-weight:normal;color:var(--soft);padding:.15em 1.2em .15em 0;white-space:nowrap}
td{padding:.15em 0;font-variant-numeric:tabular-nums}.grid-of{display:grid;gap:1em;
grid-template-columns:repeat(auto-fit,minmax(min(100%,34em),1fr))}figure{margin:0}
figcaption{color:var(--soft)}
svg{width:100%;height:auto}svg text{fill:var(--soft);font-size:12px}.grid{stroke:var(--line);stroke-width:1}
polyline{fill:none;stroke-width:2}polyline.a{stroke:var(--a)}polyline.b{stroke:var(--b);stroke-dasharray:6 3}
.bar{fill:var(--a)}.key{margin-right:1.5em;font-size:.85em}.key.a{color:var(--a)}.key.b{color:var(--b)}
.warn{border-left:4px solid var(--b);padding-left:.8em}]]

local function summary_rows(r)
  local s = r.figures
  return {
    { "rows", ("%s, %s failed"):format(progress.thousands(s.rows), progress.thousands(s.failed)) },
    { "asked", s.asked and progress.thousands(s.asked) },
    { "equal to another, or from the cache", progress.thousands((s.duplicates or 0) + (s.cached or 0)) },
    { "dimensions", s.dimensions }, { "model", r.model }, { "endpoint", r.url }, { "output", s.output },
    { "time", progress.duration(s.total_time) },
    { "rows a second", progress.thousands(math.floor(s.rows / math.max(1e-9, s.total_time))) },
    { "requests", progress.thousands(s.requests) },
    { "attempts, retries, hedges", ("%d, %d, %d"):format(r.stats.attempts or 0, r.stats.retries or 0,
      r.stats.hedges or 0) },
    { "answers of 429", progress.thousands(r.stats.throttled or 0) },
    { "tokens", progress.thousands(s.tokens or 0) }, { "cost", s.cost and ("%.4f USD"):format(s.cost) },
  }
end

local function health_rows(h)
  return {
    { "vectors", progress.thousands(h.rows) }, { "zero", progress.thousands(h.zero) },
    { "with numbers that are not finite", progress.thousands(h.not_finite) },
    { "equal to that of another text", progress.thousands(h.identical) },
  }
end

--- The page. r: {figures = of Job:run, state = of the run, stats =, recorder =, model =, url =}.
function report.page(r)
  local samples, span = r.recorder.samples, math.max(r.figures.total_time, 1e-9)
  local unsound = r.figures.health and inspect.unsound(r.figures.health)
  local times, latency = r.state and r.state.times or {}, {}
  for _, q in ipairs { 0.5, 0.9, 0.95, 0.99 } do
    latency[#latency + 1] = { ("p%g"):format(q * 100), 1000 * report.percentile(times, q) }
  end
  local out = {
    '<!doctype html><html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width,initial-scale=1"><title>moonpool: ',
    escape(r.figures.output or "a job"), "</title><style>", style, "</style></head><body><h1>",
    escape(progress.thousands(r.figures.rows) .. " rows into " .. (r.figures.output or "a function")),
    "</h1>",
    unsound and ('<p class="warn">These vectors are not sound: %s.</p>'):format(escape(unsound)) or "",
    rows_of(summary_rows(r)), '<h2>Over time</h2><div class="grid-of">',
    lines("Throughput", "rows a second", { { class = "a", points = rates(samples, "rows") } }, span),
    lines("Tokens", "a second", { { class = "a", points = rates(samples, "tokens") } }, span),
    lines("Requests at once", "", {
      { name = "under way", class = "a", points = values(samples, "in_flight") },
      { name = "adaptive limit", class = "b", points = values(samples, "limit") },
    }, span),
    lines("Rate", "a second", {
      { name = "attempts", class = "a", points = rates(samples, "attempts") },
      { name = "answers of 429", class = "b", points = rates(samples, "throttled") },
    }, span),
    '</div><h2>Requests</h2><div class="grid-of">', bars("Time of a request, ms", latency),
    bars("Attempts a request", sorted(r.state and r.state.attempts or {})), "</div><h2>Errors</h2>",
  }
  local errors = sorted(r.state and r.state.errors or {})
  out[#out + 1] = #errors == 0 and "<p>None.</p>" or bars("Rows that failed, by kind", errors)
  if r.figures.health then
    out[#out + 1] = "<h2>Vectors</h2>" .. rows_of(health_rows(r.figures.health))
  end
  out[#out + 1] = "</body></html>\n"
  return table.concat(out)
end

return report
