-- moonpool run examples/batch_post.lua [URL]
--
-- Any JSON service can be called in bulk: one request a payload, 16 in flight, results in the order of
-- the payloads. A payload that fails does not disturb its neighbours.
local moonpool = require "moonpool"

local client <close> = moonpool.client {
  base_url = arg[1] or "http://127.0.0.1:8089",
  timeout = { connect = 5, read = 30 },
  retry = { max_attempts = 4 },
}

local payloads = {}
for i = 1, 100 do
  payloads[i] = { input = "document number " .. i, model = "local-demo" }
end

local res, err = client:batch_post {
  path = "/v1/embeddings", payloads = payloads, max_concurrent_requests = 16,
}
if not res then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end

local slowest = 0
for i = 1, #res do
  if res[i].error then
    print(i, res[i].error)
  else
    slowest = math.max(slowest, res[i].time)
  end
end
print(string.format("%d of %d went well in %.3f s; the slowest took %.3f s", #res - #res.errors, #res,
  res.total_time, slowest))
