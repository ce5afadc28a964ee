-- ours.lua WORKLOAD URL ROWS DIM - Moonpool's part of `scripts/bench peers`, checked by samples.
local moonpool = require "moonpool"

local workload, url, rows, dim = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
local BATCH, CONNECTIONS = 128, 64

local client <close> = moonpool.client {
  base_url = url, model = "m", pool = { max_connections = CONNECTIONS },
  max_concurrent_requests = CONNECTIONS,
}

local function vectors()
  local input = {}
  for i = 1, rows do input[i] = "text " .. i end
  local res = assert(client:embed { input = input, batch_size = BATCH, encoding_format = workload })
  for _, r in ipairs { 1, 2, rows // 2 + 5, rows } do
    local row, same = res[r], res[(r - 1) % BATCH + 1]
    for _, d in ipairs { 1, 8, dim } do
      assert(math.abs(row[d]) < 0.1 and row[d] == same[d], "a vector is wrong")
    end
  end
end

local function small()
  local payload, good, left = { input = "The quick brown fox", id = 1234567 }, 0, rows
  while left > 0 do
    local payloads = {}
    for i = 1, math.min(10000, left) do payloads[i] = payload end
    left = left - #payloads
    local res = assert(client:batch_post { path = "/v1", payloads = payloads })
    for i = 1, #res do good = good + (res[i].data.ok and 1 or 0) end
  end
  assert(good == rows, "a reply is wrong")
end

if workload == "small" then small() else vectors() end
