-- moonpool.simulate.report: what a simulation came to, as a table of text, as plain values, as a chart.
local chart = require "moonpool.chart"
local progress = require "moonpool.progress"

local report = {}
report.__index = report
report.__name = "moonpool.simulation"

function report.new(t)
  return setmetatable(t, report)
end

function report.is(v)
  return getmetatable(v) == report
end

-- ---- words --------------------------------------------------------------------------------------

--- Seconds with their unit, three digits: "20.4 ms", "5.02 s", "2:05 min".
local function seconds(v)
  if not v then
    return "-"
  elseif v == 0 then
    return "0 s"
  elseif v < 0.9995 then
    return ("%.3g ms"):format(v * 1000)
  elseif v < 100 then
    return ("%.3g s"):format(v)
  end
  return progress.duration(v)
end

-- For the marks of an axis, which are round.
local function axis_seconds(v)
  if v > 0 and v < 1 then
    return ("%.4g ms"):format(v * 1000)
  end
  return ("%.4g s"):format(v)
end

local function percent(v)
  if v == 0 then
    return "0 %"
  end
  return (v < 0.0995 and "%.2f %%" or "%.0f %%"):format(v * 100)
end

local function whole(v)
  return progress.thousands(math.floor(v + 0.5))
end

local function rate(v)
  return v < 99.5 and ("%.1f"):format(v) or whole(v)
end

local function describe_latency(v)
  if type(v) == "table" then
    return ("%s measured times"):format(whole(#v))
  elseif type(v) == "number" then
    return seconds(v)
  end
  return v or "lognormal:20ms,0.2"
end

local function describe_quota(q)
  local limits = {}
  if q.rpm then
    limits[#limits + 1] = whole(q.rpm) .. " requests"
  end
  if q.tpm then
    limits[#limits + 1] = whole(q.tpm) .. " tokens"
  end
  return ("quota of %s a minute over windows of %s"):format(
    table.concat(limits, " and "), seconds(q.window or 1))
end

local outage_words = { refuse = "refuses connections", ["503"] = "answers 503", silent = "is silent",
  ["429"] = "answers 429" }

local function describe_server(s)
  local words = { "latency " .. describe_latency(s.latency) }
  local function add(fmt, ...)
    words[#words + 1] = fmt:format(...)
  end
  if s.per_row then
    add("%s a row", seconds(s.per_row))
  end
  if s.places then
    add("%d places", s.places)
  end
  if s.queue then
    add("a queue of %d", s.queue)
  end
  if s.stall then
    add("%s stalled for %s", percent(s.stall.share or 0), seconds(s.stall.time or 0))
  end
  if s.error then
    add("%s answered %d", percent(s.error.share or 0), s.error.status or 500)
  end
  if s.quota then
    words[#words + 1] = describe_quota(s.quota)
  end
  if s.outage then
    local from, to = s.outage.from or 0, s.outage.to
    add("%s %s", outage_words[s.outage.kind or "503"],
      to and ("from %s to %s"):format(seconds(from), seconds(to))
      or from > 0 and ("from %s on"):format(seconds(from)) or "all the time")
  end
  return table.concat(words, ", ")
end

local function describe_load(load)
  local words = {}
  if load.rate then
    words[1] = ("%s requests a second arrive"):format(rate(load.rate))
  else
    words[1] = ("%d requests at once"):format(load.concurrency or 128)
  end
  if load.rows then
    words[2] = whole(load.rows) .. " rows"
  elseif load.requests then
    words[2] = whole(load.requests) .. " requests"
  elseif load.duration then
    words[2] = ("for %s"):format(seconds(load.duration))
  else
    words[2] = "10,000 requests"
  end
  if load.batch then
    words[#words + 1] = ("%d rows a request"):format(load.batch)
  end
  if load.tokens then
    words[#words + 1] = ("%g tokens a row"):format(load.tokens)
  end
  return table.concat(words, ", ")
end

--- The scenario in words: a list of lines.
function report:description()
  local lines = { "load: " .. describe_load(self.load) }
  for i, s in ipairs(self.servers) do
    lines[#lines + 1] = ("server%s: %s"):format(#self.servers > 1 and " " .. i or "", describe_server(s))
  end
  return lines
end

-- ---- table --------------------------------------------------------------------------------------

local function recovery(r)
  if r.recovery == nil then
    return "-"
  end
  return r.recovery and ("%.1f s"):format(r.recovery) or "never"
end

local columns = {
  { "p50", function(r) return seconds(r.p50) end },
  { "p90", function(r) return seconds(r.p90) end },
  { "p99", function(r) return seconds(r.p99) end },
  { "p99.9", function(r) return seconds(r.p999) end },
  { "time", function(r) return progress.duration(r.time) end },
  { "answers/s", function(r) return rate(r.throughput) end },
  { "attempts/request", function(r) return ("%.3f"):format(r.attempts_per_request) end },
  { "hedges", function(r) return whole(r.hedges) end },
  { "retries", function(r) return whole(r.retries) end },
  { "429s", function(r) return percent(r.throttled_share) end },
  { "failed rows", function(r) return whole(r.rows_failed) end },
  { "recovery", recovery },
}

local function notes(r)
  local list = {}
  if #r.not_simulated > 0 then
    list[1] = ("%s: not simulated, as there are no real requests: %s"):format(
      r.name, table.concat(r.not_simulated, ", "))
  end
  if r.hooks and r.hooks.last_error then
    list[#list + 1] = ("%s: of %s hooks asked %s failed and the default was taken; the last: %s"):format(
      r.name, whole(r.hooks.calls), whole(r.hooks.failed), r.hooks.last_error)
  end
  if r.unfinished then
    list[#list + 1] = ("%s: not done when the clock stopped at %s"):format(
      r.name, progress.duration(r.time))
  end
  if r.capped then
    list[#list + 1] = ("%s: cut at %s requests"):format(r.name, whole(r.requests))
  end
  local kinds = {}
  for kind, count in pairs(r.kinds) do
    kinds[#kinds + 1] = ("%s %s"):format(whole(count), kind)
  end
  table.sort(kinds)
  if #kinds > 0 then
    list[#list + 1] = ("%s: requests failed: %s"):format(r.name, table.concat(kinds, ", "))
  end
  if r.violation then
    list[#list + 1] = ("%s: the policy core broke a promise, please report it: %s"):format(
      r.name, r.violation)
  end
  return list
end

local function pad(s, width, left)
  local fill = (" "):rep(width - (utf8.len(s) or #s))
  return left and s .. fill or fill .. s
end

local function grid(rows)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, utf8.len(cell) or #cell)
    end
  end
  for i, row in ipairs(rows) do
    local cells = {}
    for k, cell in ipairs(row) do
      cells[k] = pad(cell, widths[k], k == 1)
    end
    lines[i] = table.concat(cells, "  ")
  end
  return lines
end

--- The table that the command prints. Columns in which nothing happened anywhere are left out.
function report:text()
  local rows = { { "policy" } }
  for i, r in ipairs(self.policies) do
    rows[i + 1] = { r.name }
  end
  for _, column in ipairs(columns) do
    local cells, something = {}, false
    for i, r in ipairs(self.policies) do
      cells[i] = column[2](r)
      something = something or not (cells[i] == "-" or cells[i] == "0" or cells[i] == "0 %")
    end
    if something or column[1] == "failed rows" then
      table.insert(rows[1], column[1])
      for i, cell in ipairs(cells) do
        table.insert(rows[i + 1], cell)
      end
    end
  end
  local lines = { ("%s (seed %d)"):format(self.name, self.seed) }
  for _, line in ipairs(self:description()) do
    lines[#lines + 1] = line
  end
  lines[#lines + 1] = ""
  table.move(grid(rows), 1, #rows, #lines + 1, lines)
  for _, r in ipairs(self.policies) do
    local list = notes(r)
    table.move(list, 1, #list, #lines + 1, lines)
  end
  return table.concat(lines, "\n") .. "\n"
end

--- Plain values for JSON: everything but the series of seconds.
function report:totable()
  local out = { name = self.name, seed = self.seed, policies = {} }
  for i, r in ipairs(self.policies) do
    local copy = {}
    for k, v in pairs(r) do
      copy[k] = v
    end
    copy.seconds = nil
    out.policies[i] = copy
  end
  return out
end

-- ---- chart --------------------------------------------------------------------------------------

local MOST_POINTS = 260 -- of a line: more than that are merged

-- One column of the seconds as points; the last second, seldom whole, is left out. `merge` makes one of
-- several.
local function points(r, column, merge)
  local list, out = r.seconds[column], {}
  local last = #list > 1 and #list - 1 or #list
  local step = math.max(1, math.ceil(last / MOST_POINTS))
  for first = 1, last, step do
    local v
    for i = first, math.min(last, first + step - 1) do
      if list[i] >= 0 then
        v = v and merge(v, list[i]) or list[i]
      end
    end
    local count = math.min(last, first + step - 1) - first + 1
    out[#out + 1] = { first - 1 + count / 2, v and (merge == math.max and v or v / count) }
  end
  return out
end

local function add(a, b)
  return a + b
end

local function series(self, column, merge)
  local out = {}
  for i, r in ipairs(self.policies) do
    out[i] = points(r, column, merge)
  end
  return out
end

local function percentiles(self)
  local out = {}
  for i, r in ipairs(self.policies) do
    out[i] = { { 1, r.p50 }, { 2, r.p90 }, { 3, r.p99 }, { 4, r.p999 }, { 5, r.max } }
  end
  return chart.lines {
    title = "Latency of answered requests, by percentile", log = true, format = axis_seconds, series = out,
    categories = { "p50", "p90", "p99", "p99.9", "slowest" },
  }
end

local function extra_load(self)
  local out = {}
  for i, r in ipairs(self.policies) do
    local base = math.max(1, r.requests) / 100
    out[i] = { r.hedges / base, r.retries / base, r.throttled / base, r.rows_failed
      / math.max(1, r.rows_failed + r.rows_ok) * 100 }
  end
  return chart.bars {
    title = "Extra load and losses, in percent of the requests", values = out, at_least = 1,
    categories = { "hedges", "retries", "429s", "failed rows" },
    format = function(v) return ("%.4g %%"):format(v) end,
    label = function(v) return v == 0 and "0" or ("%.2g"):format(v) end,
  }
end

local function over_time(self, title, column, merge, more)
  local panel = { title = title, series = series(self, column, merge), x_label = "seconds" }
  if self.outage then
    panel.bands = { { from = self.outage.from, to = self.outage.to, label = "outage" } }
  end
  for k, v in pairs(more or {}) do
    panel[k] = v
  end
  return chart.lines(panel)
end

--- The chart as SVG text: percentiles, extra load, and what happened from second to second.
function report:svg()
  local names = {}
  for i, r in ipairs(self.policies) do
    names[i] = r.name
  end
  return chart.page {
    title = self.name, names = names,
    subtitle = table.move(self:description(), 1, 6, 2, { ("simulated, seed %d"):format(self.seed) }),
    panels = {
      percentiles(self),
      extra_load(self),
      over_time(self, "Answered, requests a second", "ok", add),
      over_time(self, "Sent, requests a second (copies and retries too)", "attempts", add),
      over_time(self, "p99 of what was answered in each second", "p99", math.max, { log = true,
        format = axis_seconds }),
      over_time(self, "Most requests at once", "running", math.max),
    },
  }
end

return report
