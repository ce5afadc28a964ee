-- run.lua BUILD NPM_DIR ROUNDS ROWS - Moonpool beside its peers on one server: `scripts/bench peers`.
--
-- The server (tests/bench/replay.c, next to no work) is pinned to one processor, the clients to another,
-- in turn, round by round; what counts is the client's CPU time, as the median of the rounds. Every
-- candidate's results are checked by samples. Writes BUILD/bench-peers.json and BUILD/bench-peers.svg.
local server = dofile "tests/bench/server.lua"

local build, npm, rounds, rows = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])

local DIM = 1024
local workloads = {
  { name = "float", rows = rows, title = ("%d x %d floats as JSON"):format(rows, DIM) },
  { name = "base64", rows = rows, title = ("%d x %d floats as base64"):format(rows, DIM) },
  { name = "small", rows = 200000, title = "200,000 small POSTs" },
}
local clients = {
  { name = "Moonpool", run = "%s/moonpool run tests/bench/peers/ours.lua" },
  { name = "undici", run = "node tests/bench/peers/peer.mjs undici" },
  { name = "openai", run = "node tests/bench/peers/peer.mjs openai", but = "small" },
  { name = "baseten", run = "node tests/bench/peers/peer.mjs baseten" },
}

local function shell(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "a"
  return text, pipe:close()
end

-- CPU seconds and peak MB of one run, or nil and why.
local function measure(client, workload, url)
  local usage = build .. "/bench/peer-usage"
  os.remove(usage)
  local text, ok = shell(("MOONPOOL_NPM='%s' taskset -c 0 '%s/bench/rusage' '%s' %s %s %s %d %d 2>&1"):format(
    npm, build, usage, client.run:format(build), workload.name, url, workload.rows, DIM))
  if not ok then return nil, text end
  local file <close> = assert(io.open(usage))
  local cpu, _, kib = file:read("n", "n", "n")
  return cpu, kib / 1024
end

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

local results = {}
for _, workload in ipairs(workloads) do
  local replay = server.start(build, ("%s 128 %d"):format(workload.name, DIM), "taskset -c 1")
  local url = "http://127.0.0.1:" .. replay.port
  local cpu, memory = {}, {}
  for round = 1, rounds do
    for i, client in ipairs(clients) do
      if client.but ~= workload.name then
        io.stderr:write(("%s, round %d of %d: %s        \r"):format(workload.title, round, rounds,
          client.name))
        local seconds, megabytes = measure(client, workload, url)
        if not seconds then
          server.stop(replay)
          error(("%s: %s"):format(client.name, megabytes), 0)
        end
        cpu[i], memory[i] = cpu[i] or {}, memory[i] or {}
        table.insert(cpu[i], seconds)
        table.insert(memory[i], megabytes)
      end
    end
  end
  server.stop(replay)
  for i, client in ipairs(clients) do
    if cpu[i] then
      local m = median(cpu[i])
      results[#results + 1] = { workload = workload, client = client.name, cpu = m, least = cpu[i][1],
        most = cpu[i][#cpu[i]], mb = median(memory[i]), ratio = m / median(cpu[1]) }
    end
  end
end
io.stderr:write((" "):rep(79), "\r")

local machine = shell "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1":gsub("%s+$", "")
print(("client CPU, median of %d rounds (least to most); %s"):format(rounds, machine))
print("| workload | client | CPU s | | peak MB | x Moonpool |\n| --- | --- | --- | --- | --- | --- |")
for _, r in ipairs(results) do
  print(("| %s | %s | %.2f | %.2f to %.2f | %.0f | %.1f |"):format(r.workload.title, r.client, r.cpu, r.least,
    r.most, r.mb, r.ratio))
end

local json <close> = assert(io.open(build .. "/bench-peers.json", "w"))
json:write(("{\"machine\": %q, \"rounds\": %d, \"results\": ["):format(machine, rounds))
for i, r in ipairs(results) do
  json:write(i > 1 and ",\n" or "\n", (
    '  {"workload": %q, "client": %q, "cpu_s": %.3f, "least_s": %.3f, "most_s": %.3f, "peak_mb": %.1f, '
    .. '"ratio": %.2f}'
  ):format(r.workload.title, r.client, r.cpu, r.least, r.most, r.mb, r.ratio))
end
json:write "\n]}\n"

-- One panel a workload, a bar a client, as many times Moonpool's CPU as it took.
local WIDTH, BAR, LEFT = 640, 22, 90
local parts, y = {}, 10
local function put(...) parts[#parts + 1] = (...) end
for _, workload in ipairs(workloads) do
  local most = 1
  for _, r in ipairs(results) do
    if r.workload == workload then most = math.max(most, r.ratio) end
  end
  put(('<text x="10" y="%d" class="t">%s</text>'):format(y + 14, workload.title))
  y = y + 24
  for _, r in ipairs(results) do
    if r.workload == workload then
      local wide = (WIDTH - LEFT - 130) * r.ratio / most
      put(('<text x="10" y="%d">%s</text><rect x="%d" y="%d" width="%.1f" height="%d" class="%s"/>'
        .. '<text x="%.1f" y="%d">%.1f x, %.2f s</text>'):format(y + 14, r.client, LEFT, y + 2, wide, BAR - 6,
        r.client == "Moonpool" and "m" or "p", LEFT + wide + 8, y + 14, r.ratio, r.cpu))
      y = y + BAR
    end
  end
  y = y + 10
end
local svg <close> = assert(io.open(build .. "/bench-peers.svg", "w"))
svg:write(('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">'):format(
  WIDTH, y, WIDTH, y),
  "<style>text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.m{fill:#2a6fb0}.p{fill:#b8b8c4}",
  "@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>\n", table.concat(parts, "\n"), "\n</svg>\n")
