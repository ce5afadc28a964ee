-- check.lua BUILD [--print] - instructions of fixed workloads against their budgets: `make bench-check`.
--
-- Each workload runs twice under callgrind, small and large; the difference divided by what the large
-- one does more is the cost of one unit, free of start and end. Counted instructions repeat where times
-- do not; a socket still cuts its replies as it likes, and libraries differ by distribution: so each
-- budget has a tolerance. A workload that gets cheaper than its budget allows fails too: lower the
-- budget, so that what was won is kept. --print measures only.
local server = dofile "tests/bench/server.lua"

local build, print_only = arg[1], arg[2] == "--print"

local workloads = {
  { name = "small POST", unit = "request", budget = 111000, slack = 0.04, server = "small 1 1",
    run = "%s/moonpool run tests/bench/batch_post.lua %s %d 16", from = 1000, to = 3000 },
  { name = "decode JSON floats", unit = "reply of 128 x 1,024", budget = 18541000, slack = 0.03,
    run = "%s/bench/fixed float %d", from = 1, to = 4 },
  { name = "decode base64", unit = "reply of 128 x 1,024", budget = 2088000, slack = 0.03,
    run = "%s/bench/fixed base64 %d", from = 1, to = 11 },
  { name = "embed_each", unit = "row of 64 as base64", budget = 10150, slack = 0.08, server = "base64 128 64",
    run = "%s/moonpool run tests/bench/each.lua %s %d", from = 12800, to = 64000 },
  { name = "write a reply", unit = "vector of 1,024 as JSON", budget = 264300, slack = 0.03,
    run = "%s/bench/fixed reply %d", from = 10, to = 110 },
}

local function instructions(command)
  local pipe = assert(io.popen(
    ("timeout 300 valgrind --tool=callgrind --callgrind-out-file=/dev/null %s 2>&1"):format(command)))
  local text = pipe:read "a"
  if not pipe:close() then error(("%s failed:\n%s"):format(command, text:sub(-2000)), 0) end
  return assert(tonumber(text:match "Collected : (%d+)"), "callgrind says no count")
end

local function cost(w)
  local replay = w.server and server.start(build, w.server)
  local counts = {}
  local ok, err = pcall(function()
    for i, n in ipairs { w.from, w.to } do
      counts[i] = instructions(replay and w.run:format(build, "http://127.0.0.1:" .. replay.port, n)
        or w.run:format(build, n))
    end
  end)
  if replay then server.stop(replay) end
  if not ok then error(err, 0) end
  return (counts[2] - counts[1]) / (w.to - w.from)
end

local failed = false
for _, w in ipairs(workloads) do
  local got = cost(w)
  local off = got / w.budget - 1
  local verdict = "ok"
  if not print_only and off > w.slack then
    verdict = ("TOO DEAR: at most %+.0f %% is allowed"):format(100 * w.slack)
  elseif not print_only and off < -2 * w.slack then
    verdict = ("cheaper: set its budget to %.0f in tests/bench/check.lua"):format(got)
  end
  failed = failed or verdict ~= "ok"
  print(("%-20s %12.0f instructions a %s, budget %.0f (%+.1f %%): %s"):format(w.name, got, w.unit, w.budget,
    100 * off, verdict))
end
if failed then os.exit(1) end
