-- queue30k.lua URL - one batch_post of 30,000 payloads over 32 connections, while another task wakes
-- every millisecond: its longest gap is what any other task of the program would have felt.
local moonpool = require "moonpool"

local REQUESTS, CONNECTIONS = 30000, 32
local client <close> = moonpool.client { base_url = arg[1], pool = { max_connections = CONNECTIONS } }

local payloads = {}
for i = 1, REQUESTS do
  payloads[i] = { input = "The quick brown fox", id = i }
end
collectgarbage()

local longest, res = 0, nil
moonpool.scope(function(scope)
  local ticking = true
  scope:spawn(function()
    local last = moonpool.now()
    while ticking do
      moonpool.sleep(0.001)
      local now = moonpool.now()
      longest = math.max(longest, now - last)
      last = now
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
print(string.format("queue30k_lua good %d", good))
print(string.format("queue30k_lua longest_turn_ms %.3f", 1e3 * longest))
if good ~= REQUESTS then
  os.exit(1)
end
