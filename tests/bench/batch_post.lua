-- batch_post.lua URL REQUESTS CONNECTIONS [PER_CALL] - POSTs small JSON documents through
-- client:batch_post and prints how many came back well; its cost is measured from outside.
local moonpool = require "moonpool"

local url, requests, connections = arg[1], tonumber(arg[2]), tonumber(arg[3])
local per_call = math.min(tonumber(arg[4] or 10000), requests)
local client <close> = moonpool.client {
  base_url = url, pool = { max_connections = connections },
}

local payloads = {}
for i = 1, per_call do
  payloads[i] = { input = "The quick brown fox", id = 1234567 }
end

local good, started = 0, moonpool.now()
for _ = 1, requests // per_call do
  local res = assert(client:batch_post {
    path = "/v1", payloads = payloads, max_concurrent_requests = connections,
  })
  for i = 1, #res do
    if res[i].status == 200 and res[i].data.ok then
      good = good + 1
    end
  end
end
print(string.format("requests=%d good=%d seconds=%.3f", requests, good, moonpool.now() - started))
if good ~= requests then
  os.exit(1)
end
