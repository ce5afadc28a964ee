-- moonpool.gateway.dialect: an error in the words of the front by which its caller
-- came.
local json = require "moonpool.json"

local M = {}

local statuses = {
  invalid = 400, too_large = 413, rate_limited = 429, unauthorized = 401, forbidden = 403, not_found = 404,
  connect = 502, tls = 502, decode = 502, http = 502, connect_timeout = 504, read_timeout = 504,
  write_timeout = 504, total_timeout = 504, pool_timeout = 503, budget = 503, breaker_open = 503,
  cancelled = 503, closed = 503,
}

--- An error of the gateway's own; fields: status, code, param.
function M.failure(kind, message, fields)
  local err = fields or {}
  err.kind, err.message = kind, message
  return err
end

--- The status for an error: what the upstream answered, where it did.
function M.status(err)
  local status = err.status
  if status and status >= 400 and status <= 599 then
    return status
  end
  return statuses[err.kind] or 500
end

local function text_of(value)
  return type(value) == "string" and value ~= "" and value or nil
end

-- What a service says in its own body, wherever it puts it.
local function said(doc)
  local e = doc.error
  if type(e) == "table" then
    return text_of(e.message) or text_of(e.detail)
  end
  return text_of(e) or text_of(doc.message) or text_of(doc.detail) or text_of(doc.error_message)
end

--- The sentence for an error; an upstream's own words where it has some.
function M.message(err)
  local body = err.status and err.body
  if type(body) == "string" and #body < 65536 and body:find "^%s*{" then
    local doc = json.decode(body)
    local text = type(doc) == "table" and said(doc)
    if text then
      return text
    end
  end
  return err.message or err.kind or "unknown error"
end

local openai_types = {
  [400] = "invalid_request_error", [401] = "authentication_error", [402] = "insufficient_quota",
  [403] = "permission_error", [404] = "not_found_error", [405] = "invalid_request_error",
  [413] = "invalid_request_error", [415] = "invalid_request_error", [422] = "invalid_request_error",
  [429] = "rate_limit_error",
}
local openai_codes = {
  unauthorized = "invalid_api_key", rate_limited = "rate_limit_exceeded", too_large = "request_too_large",
  not_found = "not_found",
}

local writers = {}

function writers.openai(status, message, err)
  local code = text_of(err.code) or openai_codes[err.kind]
  local kind = status >= 500 and "server_error" or openai_types[status] or "invalid_request_error"
  return {
    error = { message = message, type = kind, param = err.param or json.null, code = code or json.null },
  }
end

function writers.cohere(_, message, err)
  return { id = err.id, message = message }
end

local tei_types = { [400] = "validation", [413] = "validation", [422] = "validation", [429] = "overloaded" }

function writers.tei(status, message)
  return { error = message, error_type = tei_types[status] or status >= 500 and "backend" or "validation" }
end

function writers.ollama(_, message)
  return { error = message }
end

--- status, body as a value: the reply for an error.
function M.write(name, err)
  local status = M.status(err)
  return status, writers[name](status, M.message(err), err)
end

return M
