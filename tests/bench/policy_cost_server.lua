-- policy_cost_server.lua DELAY: two servers with a constant reply after DELAY seconds; prints their
-- addresses and serves until it is ended. With a delay every reply finds the client asleep, so that the
-- number of its turns does not depend on who was faster.
local moonpool = require "moonpool"

local delay = tonumber(arg[1] or 0)

local function answer()
  if delay > 0 then moonpool.sleep(delay) end
  return { json = { ok = true } }
end

local one <close> = assert(moonpool.serve { listen = "127.0.0.1:0", handler = answer })
local two <close> = assert(moonpool.serve { listen = "127.0.0.1:0", handler = answer })
print(one.url, two.url)
io.stdout:flush()
moonpool.sleep(3600)
