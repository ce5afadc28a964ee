-- moonpool.provider.baseten_jobs: asynchronous predictions: submit, status, wait, cancel, all within
-- Baseten's rates. A job's output is never stored by the service: it goes to the webhook or is lost.
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local core = require "moonpool.core"
local json = require "moonpool.json"
local options = require "moonpool.options"
local R = options.rule

local M = {}

local MAX_BODY = 256 * 1024

-- Seconds between requests of a kind by one client: a little below 200 a second, and 20.
local gaps = { submit = 1 / 195, status = 1 / 19, cancel = 1 / 19, queue = 1 / 19 }

-- Waits for this request's turn. Turns are given out at once, so any number of jobs share the rate.
local function take_turn(state, kind)
  local turns = state.baseten_turns
  if not turns then
    turns = {}
    state.baseten_turns = turns
  end
  local now = core.now()
  local at = math.max(now, turns[kind] or 0)
  turns[kind] = at + gaps[kind]
  if at > now then
    core.sleep(at - now)
  end
end

-- ---- submit ------------------------------------------------------------------------------------------

local function between(low, high)
  return function(v)
    if math.type(v) ~= "integer" or v < low or v > high then
      return ("must be a whole number from %d to %d"):format(low, high)
    end
  end
end

-- Plain http only to this machine, where a receiver is tried out.
local function webhook_url(v)
  if type(v) ~= "string" then
    return "string expected"
  end
  local host = v:match "^http://([^:/]+)"
  if not (v:find "^https://[^/]" or host == "127.0.0.1" or host == "localhost") then
    return "must begin with https://"
  end
end

local retry_rules = {
  max_attempts = between(1, 10), initial_delay_ms = between(0, 10000), max_delay_ms = between(0, 60000),
}

local submit_rules = call.rules {
  model_input = R.any, input = R.any, webhook_endpoint = webhook_url, priority = between(0, 2),
  max_time_in_queue_seconds = between(10, 259200), inference_retry_config = R.table,
}

local body_fields = { "webhook_endpoint", "priority", "max_time_in_queue_seconds", "inference_retry_config" }

-- The body's value, and the options that are left for the request. A chain's input is wrapped too.
local function split_submit(opts)
  local body, o = {}, {}
  for name, value in pairs(opts) do o[name] = value end
  o.model_input, o.input = nil, nil
  for _, name in ipairs(body_fields) do body[name], o[name] = o[name], nil end
  body.model_input = opts.model_input
  if body.model_input == nil then
    body.model_input = opts.input
  end
  return body, o
end

-- What a second submit would do is start a second job: only what surely started none is repeated.
local submit_retry = { on = { 429, 503, "connect" } }

-- ---- a job -------------------------------------------------------------------------------------------

local job = {}
job.__index = job
job.__name = "moonpool.baseten.job"

function job:__tostring()
  return ("moonpool.baseten.job (%s)"):format(self.id)
end

local function is_id(v)
  return type(v) == "string" and v:find "^[%w%-_.]+$" ~= nil
end

local function job_of(self, id, path)
  return setmetatable({ id = id, request_id = id, client = self, path = path .. id }, job)
end

--- The service's account of the job: {status, webhook_status, created_at, status_at, errors, ...}, or
--- nil, err. status is QUEUED IN_PROGRESS SUCCEEDED FAILED EXPIRED CANCELED or WEBHOOK_FAILED.
function job:status(opts)
  take_turn(client.state(self.client), "status")
  local o = { method = "GET", path = self.path }
  for name, value in pairs(opts or {}) do o[name] = value end
  local res, err = self.client:request(o)
  if not res then
    return nil, err
  end
  if type(res.data) ~= "table" or type(res.data.status) ~= "string" then
    return nil, core.error("decode", "the reply has no status",
      { status = res.status, request_id = res.request_id })
  end
  self.last = res.data
  return res.data
end

local ends = { SUCCEEDED = true, FAILED = true, EXPIRED = true, CANCELED = true, WEBHOOK_FAILED = true }
local kinds = { EXPIRED = "total_timeout", CANCELED = "cancelled" }
local meanings = {
  FAILED = "the model failed", EXPIRED = "it waited in the queue for too long",
  CANCELED = "it was cancelled", WEBHOOK_FAILED = "its output could not be delivered to the webhook",
}

local function failure(self, status)
  local name = status.status
  local first = type(status.errors) == "table" and status.errors[1]
  local message = ("async request %s: %s"):format(self.id, meanings[name])
  if type(first) == "table" and type(first.message) == "string" then
    message = message .. ": " .. first.message
  end
  return core.error(kinds[name] or "http", message, {
    code = type(first) == "table" and first.code or name, job_status = status, retryable = false,
  })
end

local wait_rules = { interval = R.positive, max_interval = R.positive, timeout = R.duration }

--- Waits for the end: the last status when the job succeeded, else nil, err (err.job_status is the
--- status). {interval = 0.5, max_interval = 5, timeout =} s; a timeout leaves the job running.
function job:wait(opts)
  opts = options.check("wait", opts or {}, wait_rules, 2)
  local pause = opts.interval or 0.5
  local limit = math.max(opts.max_interval or 5, pause)
  local stop = opts.timeout and core.now() + opts.timeout or math.huge
  while true do
    local status, err = self:status()
    if not status then
      return nil, err
    end
    if status.status == "SUCCEEDED" then
      return status
    end
    if ends[status.status] then
      return nil, failure(self, status)
    end
    if core.now() + pause > stop then
      return nil, core.error("total_timeout", ("async request %s is still %s"):format(self.id, status.status),
        { job_status = status, retryable = true })
    end
    core.sleep(pause)
    pause = math.min(pause * 1.5, limit)
  end
end

--- Takes a queued job out of the queue: true; or nil, err when it was too late or failed.
function job:cancel()
  take_turn(client.state(self.client), "cancel")
  local res, err = self.client:request { method = "DELETE", path = self.path }
  if not res then
    return nil, err
  end
  local data = type(res.data) == "table" and res.data or {}
  if data.canceled then
    return true
  end
  return nil, core.error("http", type(data.message) == "string" and data.message
    or "the request was not cancelled: only queued ones can be", { status = res.status })
end

-- ---- methods -----------------------------------------------------------------------------------------

local function check_submit(opts)
  options.check("async_predict", opts, submit_rules, 3, call.secrets)
  if opts.inference_retry_config then
    options.check("async_predict: inference_retry_config", opts.inference_retry_config, retry_rules, 3)
  end
  if opts.model_input == nil and opts.input == nil then
    error("async_predict: model_input: missing", 3)
  end
end

--- Adds the methods. paths(client options) -> the paths of submit, of requests, of queue status.
function M.add(methods, paths)
  --- async_predict { model_input =, webhook_endpoint =, priority =, max_time_in_queue_seconds =,
  --- inference_retry_config = } -> job, or nil, err.
  function methods.async_predict(self, opts)
    check_submit(opts)
    local state = client.state(self, 2)
    local path, request = paths(state.options)
    local body, o = split_submit(opts)
    local text, why = json.encode(body)
    if not text then
      error("async_predict: model_input: " .. tostring(why), 2)
    end
    if #text > MAX_BODY then
      return nil, core.error("too_large", ("async_predict: a body of %d bytes, %d are allowed")
        :format(#text, MAX_BODY))
    end
    o.method, o.path, o.json = "POST", path, body
    o.hedge = false
    if o.retry == nil then
      o.retry = submit_retry
    end
    if o.timeout == nil then
      o.timeout = { connect = 10, read = 30 }
    end
    take_turn(state, "submit")
    local res, err = self:request(o)
    if not res then
      return nil, err
    end
    local id = type(res.data) == "table" and res.data.request_id
    if not is_id(id) then
      return nil, core.error("decode", "the reply has no request_id", { status = res.status })
    end
    return job_of(self, id, request)
  end

  --- The job of a request id kept from an earlier run.
  function methods.async_request(self, id)
    if not is_id(id) then
      error("async_request: a request id expected", 2)
    end
    local _, request = paths(client.state(self, 2).options)
    return job_of(self, id, request)
  end

  --- {num_queued_requests, num_in_progress_requests, ...}, or nil, err.
  function methods.async_queue_status(self)
    local state = client.state(self, 2)
    local _, _, queue = paths(state.options)
    take_turn(state, "queue")
    local res, err = self:request { method = "GET", path = queue }
    return res and res.data, err
  end
end

return M
