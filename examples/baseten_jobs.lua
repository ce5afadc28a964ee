-- Asynchronous predictions: submit many, take their outputs at a webhook, check each signature. Outputs
-- are stored nowhere else. Against the mock:
--
--   moonpool mock &  moonpool run examples/baseten_jobs.lua http://127.0.0.1:8089
--
-- For Baseten itself: model_id = "..." instead of base_url, BASETEN_API_KEY in the environment, and a
-- receiver that the service reaches by https.
local moonpool = require "moonpool"

local client <close> = moonpool.client {
  provider = "baseten", base_url = arg[1] or "http://127.0.0.1:8089", environment = "production",
  webhook_secrets = { "whsec_moonpool" }, -- the mock's
}

local outputs = {}
local receiver <close> = assert(moonpool.serve {
  listen = "127.0.0.1:0",
  handler = function(req)
    local ok, payload = client:verify_webhook(req.body, req:header "x-baseten-signature")
    if not ok then return { status = 401, body = tostring(payload) } end
    outputs[payload.request_id] = payload
    return { status = 200, body = "" }
  end,
})

local jobs = moonpool.map({ "one", "two", "three" }, { window = 3 }, function(text)
  return assert(client:async_predict {
    model_input = { prompt = text }, webhook_endpoint = receiver.url .. "/done", priority = 1,
  })
end)

local done = 0
for _, job in ipairs(jobs) do
  local status, err = job:wait { interval = 0.1, timeout = 60 }
  if status and outputs[job.id] then
    done = done + 1
  else
    io.stderr:write(job.id, ": ", tostring(err or "no output came"), "\n")
  end
end
print(("%d of %d outputs came, signed"):format(done, #jobs))
