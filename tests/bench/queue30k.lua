-- queue30k.lua URL - one batch_post of 30,000 payloads over 32 connections, while another task wakes
-- every millisecond: its longest gap is what any other task of the program would have felt. On a busy
-- machine the gap counts other programs' turns too; the processor time within one gap does not.
local moonpool = require "moonpool"

local REQUESTS, CONNECTIONS = 30000, 32
local client <close> = moonpool.client { base_url = arg[1], pool = { max_connections = CONNECTIONS } }

local payloads = {}
for i = 1, REQUESTS do
  payloads[i] = { input = "The quick brown fox", id = i }
end
collectgarbage()

local gap, busy, res = 0, 0, nil
moonpool.scope(function(scope)
  local ticking = true
  scope:spawn(function()
    local last, last_cpu = moonpool.now(), os.clock()
    while ticking do
      moonpool.sleep(0.001)
      local now, cpu = moonpool.now(), os.clock()
      gap, busy = math.max(gap, now - last), math.max(busy, cpu - last_cpu)
      last, last_cpu = now, cpu
    end
  end)
  res = assert(client:batch_post {
    path = "/v1", payloads = payloads, max_concurrent_requests = CONNECTIONS,
  })
  ticking = false
end)

local good = 0
for i = 1, #res do
  if res[i].status == 200 then
    good = good + 1
  end
end
print(moonpool.json.encode {
  good = good,
  longest_gap_ms = 1e3 * gap,
  longest_gap_cpu_ms = 1e3 * busy,
  longest_turn_ms = 1e3 * client:stats().engine.longest_turn,
})
if good ~= REQUESTS then
  os.exit(1)
end
