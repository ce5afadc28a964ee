-- moonpool.mock.baseten: container routes under .../sync, predict, and asynchronous requests whose
-- states follow the clock: model_input.mock = {queue =, run =, fail =} says how long, in seconds, and
-- how it ends. The webhook is called by whoever first asks for the status of a job that has ended.

local core = require "moonpool.core"
local input = require "moonpool.mock.input"

local M = {}

local MAX_JOBS = 1000
local SECRET = "whsec_moonpool" -- signs the webhooks

function M.error(_, message, code)
  return core.json_encode { error = message, error_code = code or "client_error" }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "Too many requests.", "rate_limited")
  elseif status == 401 then
    return M.error(401, "Invalid API key.", "unauthorized")
  elseif status >= 500 then
    return M.error(status, "Model is not ready.", "model_not_ready")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.bad_body(why)
  return 400, M.error(400, "Invalid JSON: " .. why)
end

-- ---- container routes ---------------------------------------------------------------------------------

-- What the container itself serves, by the other dialects' words.
local function sync(mock, body, x)
  local path = x.req.path:match "/sync(/.*)$"
  local route = mock.routes[path]
  local handler = route and route.methods[x.req.method]
  if not handler then
    return nil, 404, M.error(404, "No such route in the container: " .. path)
  end
  return handler(mock, body, x)
end

local function predict(_, body, x)
  return {
    rows = 1, tokens = 0,
    reply = function()
      return core.json_encode { echo = body, path = x.req.path }
    end,
  }
end

local function wake()
  return nil, 202, "{}"
end

-- ---- asynchronous requests ----------------------------------------------------------------------------

-- Of a mock: jobs by id, and their ids in order, for the bound.
local stores = setmetatable({}, { __mode = "k" })

local function store_of(mock)
  local store = stores[mock]
  if not store then
    store = { by_id = {}, order = {}, serial = 0 }
    stores[mock] = store
  end
  return store
end

local function submit(mock, body)
  if input.is_null(body.model_input) then
    return nil, 400, M.error(400, "model_input is required")
  end
  local store = store_of(mock)
  store.serial = store.serial + 1
  local id = ("%032x"):format(store.serial)
  local how = type(body.model_input) == "table" and body.model_input.mock or {}
  store.by_id[id] = {
    id = id, input = body.model_input, webhook = body.webhook_endpoint, at = core.now(), wall = core.wall(),
    queue = how.queue or 0, run = how.run or 0, fail = how.fail,
    max_queue = body.max_time_in_queue_seconds or 600,
  }
  store.order[#store.order + 1] = id
  if #store.order > MAX_JOBS then
    store.by_id[table.remove(store.order, 1)] = nil
  end
  return nil, 201, core.json_encode { request_id = id }
end

local function state_of(job)
  local age = core.now() - job.at
  if job.canceled then
    return "CANCELED"
  elseif age < job.queue then
    return age > job.max_queue and "EXPIRED" or "QUEUED"
  elseif age < job.queue + job.run then
    return "IN_PROGRESS"
  end
  return job.fail and "FAILED" or "SUCCEEDED"
end

local function stamp(seconds)
  return os.date("!%Y-%m-%dT%H:%M:%SZ", math.floor(seconds))
end

local function errors_of(job, state)
  local list = core.json_array {}
  if state == "FAILED" then
    list[1] = { code = "MODEL_PREDICT_ERROR", message = tostring(job.fail) }
  end
  return list
end

local function hex(bytes)
  return (bytes:gsub(".", function(c)
    return ("%02x"):format(c:byte())
  end))
end

-- Posts what Baseten posts; true when the receiver took it.
local function deliver(job, state)
  local body = core.json_encode {
    request_id = job.id, model_id = "mock", deployment_id = "mock", type = "async_request_completed",
    time = stamp(core.wall()), data = state == "SUCCEEDED" and { echo = job.input } or core.json_null,
    errors = errors_of(job, state),
  }
  local origin, path = job.webhook:match "^(https?://[^/]+)(.*)$"
  if not origin then
    return false
  end
  local client <close> = require("moonpool").client {
    base_url = origin, provider = { name = "webhook" }, retry = false, timeout = 5,
  }
  local res = client:request {
    method = "POST", path = path == "" and "/" or path, body = body, headers = {
      ["Content-Type"] = "application/json",
      ["X-BASETEN-SIGNATURE"] = "v1=" .. hex(core.hmac_sha256(SECRET, body)),
    },
  }
  return res ~= nil
end

local function webhook_status(job, state)
  if not job.webhook then
    return "NO_WEBHOOK_PROVIDED"
  elseif state == "CANCELED" then
    return "CANCELED"
  elseif state ~= "SUCCEEDED" and state ~= "FAILED" then
    return "PENDING"
  elseif not job.delivered then
    job.delivered = "PENDING"
    job.delivered = deliver(job, state) and "SUCCEEDED" or "FAILED"
  end
  return job.delivered
end

local function job_of(mock, x)
  return store_of(mock).by_id[x.req.path:match "[^/]+$"]
end

local function missing()
  return nil, 404, M.error(404, "Request not found.", "client_error")
end

local function status(mock, _, x)
  local job = job_of(mock, x)
  if not job then
    return missing()
  end
  local state = state_of(job)
  local hook = webhook_status(job, state)
  if state == "SUCCEEDED" and hook == "FAILED" then
    state = "WEBHOOK_FAILED"
  end
  return nil, 200, core.json_encode {
    request_id = job.id, model_id = "mock", deployment_id = "mock", status = state, webhook_status = hook,
    created_at = stamp(job.wall), status_at = stamp(core.wall()), errors = errors_of(job, state),
  }
end

local function cancel(mock, _, x)
  local job = job_of(mock, x)
  if not job then
    return missing()
  end
  local queued = state_of(job) == "QUEUED"
  job.canceled = job.canceled or queued
  return nil, 200, core.json_encode {
    request_id = job.id, canceled = queued,
    message = queued and "Request canceled." or "Only queued requests can be canceled.",
  }
end

local function queue_status(mock)
  local count = { QUEUED = 0, IN_PROGRESS = 0 }
  for _, job in pairs(store_of(mock).by_id) do
    local state = state_of(job)
    count[state] = (count[state] or 0) + 1
  end
  return nil, 200, core.json_encode {
    model_id = "mock", deployment_id = "mock", num_queued_requests = count.QUEUED,
    num_in_progress_requests = count.IN_PROGRESS,
  }
end

-- ---- routes -------------------------------------------------------------------------------------------

local calls = {
  ["/run_remote"] = { POST = predict }, ["/async_predict"] = { POST = submit },
  ["/async_run_remote"] = { POST = submit }, ["/async_queue_status"] = { GET = queue_status },
  ["/wake"] = { POST = wake },
}

M.body_optional = true -- wake has none
M.routes = calls -- of a regional host; its bare /predict is TEI's here
M.patterns = { { "^/async_request/[^/]+$", { GET = status, DELETE = cancel } } }
for _, stage in ipairs { "/production", "/development", "/environments/[^/]+", "/deployment/[^/]+" } do
  for path, methods in pairs(calls) do
    M.patterns[#M.patterns + 1] = { "^" .. stage .. path .. "$", methods }
  end
  M.patterns[#M.patterns + 1] = { "^" .. stage .. "/predict$", { POST = predict } }
  M.patterns[#M.patterns + 1] = { "^" .. stage .. "/sync/.+$", { GET = sync, POST = sync } }
end
M.patterns[#M.patterns + 1] = { "^/sync/.+$", { GET = sync, POST = sync } }

return M
