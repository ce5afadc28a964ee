-- policy_sockets.lua MOONPOOL [--long] [CASE...] - what the policies promise, over real sockets against
-- `moonpool mock` in processes of its own; requests are counted by the servers.
--
-- Every case waits for its servers' latency, not for the processor, so a busy machine blurs the figures
-- little. Prints a table, and the figures as one line of JSON at the end. Without --long the quota is
-- watched for 45 s instead of five minutes, and one kind of outage instead of two.
local moonpool = require "moonpool"
local json, now, sleep = moonpool.json, moonpool.now, moonpool.sleep

local binary, long, wanted = arg[1], false, {}
for i = 2, #arg do
  if arg[i] == "--long" then long = true else wanted[#wanted + 1] = arg[i] end
end

-- ---- servers ------------------------------------------------------------------------------------

local server = {}
server.__index = server

function server.start(flags)
  local command = ("echo $$; exec '%s' mock --port 0 --dim 8 --record 0 %s"):format(binary, flags)
  local pipe = assert(io.popen(command))
  local self = setmetatable({ pipe = pipe, pid = pipe:read "l" }, server)
  self.url = assert((pipe:read "l" or ""):match "^listening on (.+)$", "the mock does not start")
  self.asker = moonpool.client { base_url = self.url, retry = false }
  return self
end

--- Its counters: .ok and .refused (429), .requests, .tokens, .seconds since it started.
function server:stats()
  local s = assert(self.asker:request { path = "/stats" }).data
  return {
    ok = s.statuses["200"] or 0, refused = s.statuses["429"] or 0, requests = s.inference_requests,
    tokens = s.tokens, seconds = s.seconds,
  }
end

function server:stop()
  if self.pipe then
    self.asker:close()
    os.execute("kill -TERM " .. self.pid)
    self.pipe:close()
    self.pipe = nil
  end
end

server.__close = server.stop

-- ---- load ---------------------------------------------------------------------------------------

local function texts(n, bytes)
  local list, filler = {}, ("x"):rep(bytes or 8)
  for i = 1, n do
    list[i] = ("%08d"):format(i) .. filler
  end
  return list
end

local function client(options)
  options.pool = options.pool or { max_connections = 512, max_idle = 512 }
  return moonpool.client(options)
end

--- Embeds n texts, one a request, and lets watch() run beside it: its results, or else those of the call.
-- A watch that is over ends the call.
local function run(conn, n, options, watch)
  local call = { input = texts(n, options.bytes), model = "m", batch_size = 1 }
  for k, v in pairs(options) do
    if k ~= "bytes" then call[k] = v end
  end
  if not watch then
    return assert(conn:embed(call))
  end
  local out
  moonpool.scope(function(scope)
    local job = scope:spawn(function() return conn:embed(call) end)
    out = watch()
    job:cancel()
  end)
  return out
end

--- Answers a second between two looks at the counters of some servers.
local function rate(servers, seconds)
  local before, ok = 0, 0
  for _, s in ipairs(servers) do before = before + s:stats().ok end
  local from = now()
  sleep(seconds)
  local passed = now() - from
  for _, s in ipairs(servers) do ok = ok + s:stats().ok end
  return (ok - before) / passed
end

local function quantile(sorted, q)
  return sorted[math.min(#sorted, math.floor(q * #sorted) + 1)]
end

-- ---- the table ----------------------------------------------------------------------------------

local figures, missed = {}, 0

--- One figure: its value and what it must be ("<=" or ">=" a bound; nil: only told).
local function report(name, value, format, relation, bound)
  local good = true
  if relation == "<=" then
    good = value <= bound
  elseif relation == ">=" then
    good = value >= bound
  end
  figures[name:gsub("[^%w]+", "_"):gsub("_$", ""):lower()] = value
  if not good then missed = missed + 1 end
  local goal = relation and relation .. " " .. format:format(bound) or ""
  local verdict = relation and (good and "ok" or "MISSED") or ""
  print(("  %-58s %10s   %-12s %s"):format(name, format:format(value), goal, verdict))
end

-- ---- cases --------------------------------------------------------------------------------------

local cases, order = {}, { "stalls", "outage", "recovery", "quota", "adaptive", "endpoints" }

function cases.stalls()
  local N <const> = 20000
  local mock <close> = server.start "--latency lognormal:20ms,0.2 --slow 0.01:5s --seed 11"
  local conn <close> = client { base_url = mock.url, hedge = { after = "2*p95" } }
  local res = run(conn, N, { max_concurrent_requests = 32 })
  local times, hedges = {}, 0
  for i, r in ipairs(res.requests) do
    times[i], hedges = r.time, hedges + r.hedges
  end
  table.sort(times)
  local p50, p999 = quantile(times, 0.5), quantile(times, 0.999)
  report("stalls: p50, ms", 1e3 * p50, "%.1f")
  report("stalls: p99.9, ms", 1e3 * p999, "%.1f")
  report("stalls: p99.9 / p50", p999 / p50, "%.2f", "<=", 5)
  report("stalls: more requests at the server, %", 100 * (mock:stats().requests / N - 1), "%.2f", "<=", 2)
  report("stalls: failed rows", #res.errors, "%d", "<=", 0)
end

-- Nothing ever answers well. The requests are one call's, or as many calls of one, which are all sent.
local function total_outage(name, apart, options)
  local N <const> = 2000
  local mock <close> = server.start "--latency 5ms --outage 0:100000s"
  options.base_url, options.total_timeout = mock.url, 20
  local conn <close> = client(options)
  if apart then
    moonpool.scope(function(scope)
      for i = 1, N do
        scope:spawn(function() conn:embed { input = { "text " .. i }, model = "m" } end)
      end
    end)
  else
    conn:embed { input = texts(N), model = "m", batch_size = 1, max_concurrent_requests = 64 }
  end
  local s, seen = conn:stats(), mock:stats().requests
  report(("outage: %s, first attempts"):format(name), s.attempts - s.retries - s.hedges, "%d")
  report(("outage: %s, attempts a request, less the reserve"):format(name), (seen - 10) / N, "%.3f", "<=",
    1.10)
end

function cases.outage()
  total_outage("a job", false, {})
  total_outage("2000 jobs of one", true, {})
  total_outage("gateway, no breaker", true, { preset = "gateway", breaker = false })
  total_outage("gateway", true, { preset = "gateway" })
end

-- Polls the counters twice a second; the server's own clock says when its outage is.
local function recovery(name, flags)
  local FROM <const>, TO <const> = 10, 40
  local outage = ("--outage %d:%ds%s"):format(FROM, TO - FROM, flags)
  local mock <close> = server.start("--latency lognormal:20ms,0.2 " .. outage)
  local conn <close> = client { base_url = mock.url }
  local samples = run(conn, 90000, { max_concurrent_requests = 32 }, function()
    local list, last = {}, mock:stats()
    repeat
      sleep(0.5)
      local s = mock:stats()
      list[#list + 1] = { at = s.seconds, rate = (s.ok - last.ok) / (s.seconds - last.seconds) }
      last = s
    until s.seconds > TO + 20
    return list
  end)
  local before, n, back = 0, 0, nil
  for _, s in ipairs(samples) do
    if s.at > 2 and s.at < FROM then before, n = before + s.rate, n + 1 end
  end
  before = before / n
  for i, s in ipairs(samples) do
    local following = samples[i + 1] and (s.rate + samples[i + 1].rate) / 2 or s.rate
    if not back and s.at > TO and following >= 0.95 * before then back = s.at - TO end
  end
  report(("recovery: answers/s before the outage, %s"):format(name), before, "%.0f")
  report(("recovery: s until 95 %% of that, %s"):format(name), back or 99, "%.1f", "<=", 15)
end

function cases.recovery()
  recovery("503", "")
  if long then recovery("refused", ":refuse") end
end

-- 400 bytes are 100 of the mock's tokens, so both limits bind at once.
function cases.quota()
  local WARM <const>, WATCH <const> = long and 60 or 15, long and 300 or 45
  local mock <close> = server.start "--latency lognormal:200ms,0.2 --quota 600,60000"
  local conn <close> = client { base_url = mock.url, rate = { rpm = 600, tpm = 60000 } }
  local used = run(conn, 20000, { max_concurrent_requests = 32, bytes = 392 }, function()
    sleep(WARM)
    local a = mock:stats()
    sleep(WATCH)
    local b = mock:stats()
    local s = b.seconds - a.seconds
    return {
      requests = (b.ok - a.ok) / (10 * s), tokens = (b.tokens - a.tokens) / (1000 * s),
      refused = (b.refused - a.refused) / math.max(1, b.requests - a.requests),
    }
  end)
  report(("quota: of the requests used in %d s, %%"):format(WATCH), 100 * used.requests, "%.1f", ">=", 93)
  report(("quota: of the tokens used in %d s, %%"):format(WATCH), 100 * used.tokens, "%.1f", ">=", 93)
  report("quota: 429s, % of the requests", 100 * used.refused, "%.2f", "<=", 0.5)
end

-- A server with 32 places and 0.1 s of work; ten round trips are its first second.
local function at_concurrency(concurrency, watch)
  local mock <close> = server.start "--latency lognormal:100ms,0.2 --workers 32"
  local conn <close> = client { base_url = mock.url, concurrency = concurrency }
  return run(conn, 20000, { max_concurrent_requests = 256 }, function() return watch(mock) end)
end

function cases.adaptive()
  local best, best_at = 0, nil
  for _, limit in ipairs { 16, 32, 64, 128, 256 } do
    local r = at_concurrency(limit, function(mock)
      sleep(1)
      return rate({ mock }, 4)
    end)
    if r > best then best, best_at = r, limit end
  end
  local soon, later = table.unpack(at_concurrency("adaptive", function(mock)
    sleep(1)
    return { rate({ mock }, 1), rate({ mock }, 15) }
  end))
  report("adaptive: best of the fixed settings, at once", best_at, "%d")
  report("adaptive: its answers/s", best, "%.0f")
  report("adaptive: after ten round trips, % of the best", 100 * soon / best, "%.1f", ">=", 90)
  report("adaptive: the 15 s after, % of the best", 100 * later / best, "%.1f", ">=", 95)
end

-- Eight places each; the second ten times slower, the third gone. Each one's capacity is measured alone.
local function alone(mock)
  local conn <close> = client { base_url = mock.url }
  return run(conn, 20000, { max_concurrent_requests = 24 }, function()
    sleep(1)
    return rate({ mock }, 4)
  end)
end

local function routed(mode, good, slow, gone, capacity)
  local conn <close> = client {
    endpoints = { { base_url = good.url }, { base_url = slow.url }, { base_url = gone } }, route = mode,
  }
  local n = math.floor(10 * capacity)
  local before = good:stats().ok + slow:stats().ok
  local from = now()
  local res = run(conn, n, { max_concurrent_requests = 32 })
  local seconds = now() - from
  local answered = good:stats().ok + slow:stats().ok - before
  report(("endpoints: %s, %% of the good ones' capacity"):format(mode), 100 * answered / seconds / capacity,
    "%.1f", ">=", 95)
  report(("endpoints: %s, failed rows"):format(mode), #res.errors, "%d", "<=", 0)
end

function cases.endpoints()
  local good <close> = server.start "--latency lognormal:20ms,0.2 --workers 8"
  local slow <close> = server.start "--latency lognormal:200ms,0.2 --workers 8"
  local gone = server.start ""
  gone:stop()
  local a, b = alone(good), alone(slow)
  report("endpoints: the good one alone, answers/s", a, "%.0f")
  report("endpoints: the slow one alone, answers/s", b, "%.0f")
  routed("weighted", good, slow, gone.url, a + b)
  routed("least", good, slow, gone.url, a + b)
  routed("p2c", good, slow, gone.url, a + b)
end

-- ---- all of them --------------------------------------------------------------------------------

for _, name in ipairs(#wanted > 0 and wanted or order) do
  local case = cases[name] or error(("no case '%s'; there are %s"):format(name, table.concat(order, ", ")), 0)
  case()
end
figures.missed = missed
print(json.encode(figures, { sort_keys = true }))
os.exit(missed == 0 and 0 or 1)
