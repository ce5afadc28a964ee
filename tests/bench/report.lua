-- report.lua RAW JSON - medians over the rounds as a table, and the same in a JSON file.
-- RAW has one line a figure: name, metric, value, between tabs.

local raw_path, json_path = arg[1], arg[2]

local series, order = {}, {}
for line in io.lines(raw_path) do
  local name, metric, value = line:match "^([^\t]+)\t([^\t]+)\t([^\t]+)$"
  local key = name and name .. "." .. metric
  if key and not series[key] then
    series[key] = { name = name, metric = metric }
    order[#order + 1] = key
  end
  if key then
    table.insert(series[key], tonumber(value))
  end
end

local function median(list)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted)
  local mid = #sorted // 2
  if #sorted % 2 == 1 then
    return sorted[mid + 1]
  end
  return (sorted[mid] + sorted[mid + 1]) / 2
end

local function value(key)
  return series[key] and median(series[key])
end

-- The lowest or highest median among the figures whose key matches.
local function extreme(pick)
  return function(pattern)
    local found
    for _, key in ipairs(order) do
      if key:find(pattern) then
        found = found and pick(found, value(key)) or value(key)
      end
    end
    return found
  end
end
local lowest, highest = extreme(math.min), extreme(math.max)

local function ratio(above, below)
  local a, b = value(above), value(below)
  return a and b and a / b
end

local function cell(number, format)
  return number and string.format(format, number) or "-"
end

print("\nSmall POST requests, 64 connections, nginx with a constant reply (medians, lowest-highest)")
print(string.format("  %-12s %12s %15s %12s %10s %10s %10s", "", "CPU us/req", "range", "requests/s",
  "peak MB", "/ bare", "/ wrk"))
for _, name in ipairs { "wrk", "bare_loop", "batch_post" } do
  local cpu = series[name .. ".cpu_us"]
  local range = cpu and string.format("%.1f-%.1f", math.min(table.unpack(cpu)), math.max(table.unpack(cpu)))
  print(string.format("  %-12s %12s %15s %12s %10s %10s %10s", name, cell(value(name .. ".cpu_us"), "%.2f"),
    range or "-", cell(value(name .. ".per_s"), "%.0f"), cell(value(name .. ".rss_mb"), "%.1f"),
    cell(ratio(name .. ".cpu_us", "bare_loop.cpu_us"), "%.2f"),
    cell(ratio(name .. ".cpu_us", "wrk.cpu_us"), "%.2f")))
end

local shown = { wrk = true, bare_loop = true, batch_post = true, policies = true }
local heading = true
for _, key in ipairs(order) do
  local s = series[key]
  if not shown[s.name] then
    if heading then
      print "\nOther figures"
      heading = false
    end
    print(string.format("  %-22s %-22s %12.3f", s.name, s.metric, value(key)))
  end
end

local function wants()
  local rows = {
    { "batch_post / bare loop, CPU", ratio("batch_post.cpu_us", "bare_loop.cpu_us"), "<=", 1.4 },
    { "longest engine turn, C, ms", value "queue30k.longest_turn_ms", "<=", 10 },
    { "peak MB, 30,000 queued from C", value "queue30k.rss_mb", "<=", 40 },
    { "longest engine turn, Lua, ms", value "queue30k_lua.longest_turn_ms", "<=", 10 },
    { "longest gap of another task, ms", value "queue30k_lua.longest_gap_ms", "<=", 10 },
    { "peak MB, 30,000 queued from Lua", value "queue30k_lua.rss_mb", "<=", 90 },
    { "JSON floats, MB/s", lowest "^decode%.json_.*_mb_s$", ">=", 600 },
    { "base64 floats, portable, GB/s", value "decode.base64_simd1_gb_s", ">=", 1.2 },
    { "base64 floats, best SIMD, GB/s", highest "^decode%.base64_.*_gb_s$", ">=", 1.5 },
  }
  print "\nTargets"
  for _, row in ipairs(rows) do
    local label, got, sign, limit = table.unpack(row, 1, 4)
    local good = got and (sign == "<=" and got <= limit or sign == ">=" and got >= limit)
    print(string.format("  %-34s %10s  %s %-6g %s", label, cell(got, "%.2f"), sign, limit,
      not got and "not measured" or good and "met" or "missed"))
  end
end
wants()

local out = assert(io.open(json_path, "w"))
local lines = {}
for _, key in ipairs(order) do
  local s = series[key]
  lines[#lines + 1] = string.format('  {"name": %q, "metric": %q, "median": %.6g, "runs": [%s]}',
    s.name, s.metric, value(key), table.concat(s, ", "))
end
out:write("[\n", table.concat(lines, ",\n"), "\n]\n")
out:close()
print("\nfigures: " .. json_path)
