-- moonpool.client.post: client:batch_post and client:request: any JSON API, one request a payload.
local core = require "moonpool.core"
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local json = require "moonpool.json"
local options = require "moonpool.options"
local R = options.rule

local M = {}

local methods = {
  GET = true, POST = true, PUT = true, PATCH = true, DELETE = true, HEAD = true, OPTIONS = true,
}
local with_body = { POST = true, PUT = true, PATCH = true }

local function http_method(v)
  if type(v) ~= "string" or not methods[v] then
    return "Invalid HTTP method (GET POST PUT PATCH DELETE HEAD OPTIONS)"
  end
end

local batch_rules = call.rules {
  path = R.string, url_path = R.string, payloads = R.table, method = http_method,
  payload_headers = R.table,
}
local request_rules = call.rules {
  path = R.string, method = http_method, json = R.any, body = R.string,
}

-- ---- results ------------------------------------------------------------------------------------------

local lazy = {}

function lazy.requests(res)
  local list = {}
  for k = 1, res._info.rows do
    local row = rawget(res, k)
    list[k] = row and {
      time = row.time, attempts = row.attempts, hedges = row.hedges or 0, status = row.status,
      headers = row.headers, request_id = row.request_id, first = k, count = 1,
    } or { attempts = 0, hedges = 0, first = k, count = 1 }
  end
  return list
end

local function column(field)
  return function(res)
    local t = {}
    for k = 1, res._info.rows do t[k] = res[k] and res[k][field] end
    return t
  end
end

lazy.data = column "data"
lazy.individual_request_times = column "time"
lazy.response_headers = column "headers"

local meta = { __name = "moonpool.batch" }

function meta.__index(res, name)
  local make = lazy[name]
  if not make then
    return nil
  end
  local value = make(res)
  rawset(res, name, value)
  return value
end

-- What a refusal repeats of the key stands in the row's data as well as in the error.
local function explain(state, row, err)
  local body = err.body
  call.explain(state, err)
  if err.body ~= body then
    row.data = json.decode(err.body)
    if row.data == nil then
      row.data = err.body
    end
  end
end

-- Tens of thousands of replies become tables a slice a turn, so that the loop goes on meanwhile.
local function build(state, r)
  local info = core.result_info(r)
  local res, errors = {}, {}
  local from = 1
  repeat
    from = core.result_rows(r, res, errors, from)
    if from then
      core.pause()
    end
  until not from
  for _, e in ipairs(errors) do
    e.error.endpoint = state.urls[e.error.endpoint_index]
    e.error.endpoint_index = nil
    explain(state, res[e.index], e.error)
  end
  if info.kind then
    local err = call.error(info.kind, info.kind == "cancelled" and "cancelled"
      or info.kind == "total_timeout" and "the call's total timeout passed" or "the client was closed")
    local missing = {}
    for i = 1, info.rows do
      if not res[i] then
        res[i] = { error = err, time = info.total_time, attempts = 0, headers = {} }
        missing[#missing + 1] = { index = i, error = err }
      end
    end
    for _, e in ipairs(missing) do errors[#errors + 1] = e end
    table.sort(errors, function(a, b) return a.index < b.index end)
  end
  res.ok = #errors == 0
  res.errors = errors
  res.total_time = info.total_time
  res._info = info
  return setmetatable(res, meta), info
end

-- ---- calls ----------------------------------------------------------------------------------------------

-- These calls decode MessagePack too; the callers' own Accept headers come later and replace this.
local function accept(state, spec)
  if state.own_accept then
    return
  end
  table.insert(spec.headers, 1, "Accept")
  table.insert(spec.headers, 2, "application/json, application/msgpack")
end

local function row_headers(state, opts, level)
  local list = opts.payload_headers
  if not list then
    return nil
  end
  local out = {}
  for i, h in pairs(list) do
    out[i] = options.headers("batch_post", h, level + 1)
    state.remember(h)
  end
  return out
end

function client.methods.batch_post(self, opts)
  local state = client.state(self, 2)
  options.check("batch_post", opts, batch_rules, 2, call.secrets)
  local payloads = opts.payloads
  if payloads == nil then
    error("batch_post: payloads: missing", 2)
  end
  if #payloads == 0 then
    error("batch_post: payloads: must not be empty", 2)
  end
  local method = opts.method or "POST"
  local spec = call.spec(state, opts, nil, "batch_post", 2)
  spec.method, spec.path, spec.payloads = method, call.own_path(state, "batch_post", opts, 3), payloads
  spec.no_body = not with_body[method]
  spec.row_headers = row_headers(state, opts, 2)
  accept(state, spec)
  local r, err = call.run(state, spec)
  if not r then
    return nil, err
  end
  local res, info = build(state, r)
  if info.kind == "cancelled" or info.kind == "closed" then
    err = call.error(info.kind, info.kind)
    err.errors, err.result = res.errors, res
    return nil, err
  end
  return res
end

--- One exchange: {data, body (as it came), status, headers, time, attempts}, or nil, err.
function client.methods.request(self, opts)
  local state = client.state(self, 2)
  options.check("request", opts, request_rules, 2, call.secrets)
  if opts.json ~= nil and opts.body ~= nil then
    error("request: json and body exclude each other", 2)
  end
  local has_body = opts.json ~= nil or opts.body ~= nil
  local method = opts.method or (has_body and "POST" or "GET")
  local spec = call.spec(state, opts, nil, "request", 2)
  local payload = opts.json
  if payload == nil then
    payload = opts.body or ""
  end
  if type(opts.json) == "string" then
    payload = json.encode(opts.json)
  end
  spec.method, spec.path, spec.payloads = method, call.own_path(state, "request", opts, 3), { payload }
  spec.no_body = not has_body and not with_body[method]
  accept(state, spec)
  local r, err = call.run(state, spec)
  if not r then
    return nil, err
  end
  local raw = core.result_info(r).exchanges > 0 and core.result_body(r, 1) or nil
  local res, info = build(state, r)
  local row = res[1]
  if row.error then
    return nil, row.error
  end
  row.body = raw
  row.ok, row.total_time, row.errors, row.requests = true, info.total_time, {}, res.requests
  return row
end

return M
