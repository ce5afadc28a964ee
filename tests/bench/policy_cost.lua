-- policy_cost.lua MODE URL1 URL2 N: N requests, one after the other, under one policy. Prints the CPU
-- seconds of the requests, of the hook by its own count, and how often it was asked. Run by
-- tests/bench/policy_cost, under callgrind and alone.
local moonpool = require "moonpool"

local mode, first, second, n = arg[1], arg[2], arg[3], math.tointeger(arg[4])

local two = { { base_url = first }, { base_url = second } }
local route = { endpoints = two, preset = "none" }

local modes = {
  -- one endpoint
  none = { base_url = first, preset = "none" },
  declared = {
    base_url = first, preset = "none",
    retry = { max_attempts = 6, base = 0.25, cap = 30, on = { 429, "5xx", "connect" }, budget = 0.1 },
    rate = { rpm = 1e9, tpm = 1e12 }, concurrency = 64, batch = { size = 128 },
    breaker = { consecutive = 5, ratio = 0.5 },
  },
  retry_hook = {
    base_url = first, preset = "none", retry = { max_attempts = 6, hook = function() return true end },
  },
  -- two endpoints
  two = route,
  route_hook = { endpoints = two, preset = "none", route = function(view) return view.id % 2 + 1 end },
}

local payloads = {}
for i = 1, n do payloads[i] = '{"n":1}' end

local client <close> = moonpool.client(assert(modes[mode], "no such mode"))
local before = os.clock()
local res = assert(client:batch_post { path = "/mock", payloads = payloads, max_concurrent_requests = 1 })
local cpu = os.clock() - before
assert(res.ok, res.errors[1] and tostring(res.errors[1].error))
local hooks = client:stats().hooks
print(("%.6f %.6f %d"):format(cpu, hooks.time, hooks.calls))
