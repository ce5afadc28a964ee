-- moonpool.client.stream: client:stream: a reply read as it comes, as server-sent events or as raw
-- chunks.
--
-- The iterator waits between items. Leaving the loop, cancelling the token or the task drops the
-- connection. While the script does not ask, the server is held back by its connection.
local core = require "moonpool.core"
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local json = require "moonpool.json"
local options = require "moonpool.options"
local R = options.rule

local M = {}

local MAX_EVENT = 16 * 1024 * 1024 -- bytes of one event; more is an error, not memory

local rules = call.rules {
  path = R.string, url_path = R.string, method = R.one_of("GET", "POST", "PUT", "PATCH"), json = R.any,
  body = R.string, sse = R.boolean,
}

-- ---- server-sent events (HTML standard, section 9.2) --------------------------------------------------

-- An event: data, event, id, retry; .json is its data decoded when asked for (nil when it is no JSON).
local event_meta = {
  __name = "moonpool.event",
  __index = function(ev, name)
    if name ~= "json" then
      return nil
    end
    local value = json.decode(rawget(ev, "data"))
    rawset(ev, "json", value)
    return value
  end,
  __tostring = function(ev) return ev.data end,
}

--- A parser: feed(bytes) returns the list of events that are complete with them.
function M.parser()
  local rest, data, name, last_id, retry = "", nil, nil, nil, nil
  local first = true
  local events

  local function dispatch()
    if data then
      events[#events + 1] = setmetatable(
        { data = data, event = name or "message", id = last_id, retry = retry },
        event_meta)
    end
    data, name, retry = nil, nil, nil
  end

  local function line(text)
    if text == "" then
      return dispatch()
    end
    local field, value = text:match("^([^:]*):? ?(.*)$")
    if field == "data" then
      data = data and data .. "\n" .. value or value
      if #data > MAX_EVENT then
        error(core.error("too_large", "an event of the stream is larger than 16 MiB"), 0)
      end
    elseif field == "event" then
      name = value
    elseif field == "id" and not value:find("%z") then
      last_id = value
    elseif field == "retry" and value:find("^%d+$") then
      retry = tonumber(value) / 1000
    end
  end

  return function(bytes)
    events = {}
    local text = rest .. bytes
    if first then
      if #text < 3 and ("\239\187\191"):sub(1, #text) == text then
        rest = text
        return events
      end
      text = text:gsub("^\239\187\191", "")
      first = false
    end
    local at = 1
    while true do
      local from, to = text:find("\r\n?", at)
      local lf = text:find("\n", at, true)
      if lf and (not from or lf < from) then
        from, to = lf, lf
      end
      -- A CR at the very end may be half of a CRLF.
      if not from or (to == #text and text:sub(to, to) == "\r") then
        break
      end
      line(text:sub(at, from - 1))
      at = to + 1
    end
    rest = text:sub(at)
    if #rest > MAX_EVENT then
      error(core.error("too_large", "a line of the stream is longer than 16 MiB"), 0)
    end
    return events
  end
end

-- ---- the iterator -------------------------------------------------------------------------------------

-- How the call ended, as an error, or nil when the reply was whole.
local function ending(state, op)
  local r = core.call_wait(op)
  local info = core.result_info(r)
  if not info.kind and info.rows_ok == info.rows then
    return nil
  end
  local _, first = call.errors(state, r, info)
  return first
end

local function chunks(state, op)
  local over = false
  return function()
    if over then
      return nil
    end
    local bytes = core.stream_read(op)
    if bytes then
      return bytes
    end
    over = true
    local err = ending(state, op)
    if err then
      error(err, 0)
    end
    return nil
  end
end

local function events(next_chunk)
  local feed, queue, at = M.parser(), {}, 1
  return function()
    while not queue[at] do
      local bytes = next_chunk()
      if not bytes then
        return nil
      end
      queue, at = feed(bytes), 1
    end
    local ev = queue[at]
    at = at + 1
    if ev.data == "[DONE]" then -- how OpenAI-style streams say goodbye
      queue, at = {}, 1
      while next_chunk() do end
      return nil
    end
    return ev
  end
end

--- client:stream {...}: an iterator (with .status and .headers through its second form below), or
--- nil, err when no 2xx reply came. A fault in the middle is raised by the iterator.
function client.methods.stream(self, opts)
  local state = client.state(self, 2)
  options.check("stream", opts, rules, 2, { api_key = true, primary_api_key_override = true })
  if opts.json ~= nil and opts.body ~= nil then
    error("stream: json and body exclude each other", 2)
  end
  local spec = call.spec(state, opts, nil, "stream", 2)
  local has_body = opts.json ~= nil or opts.body ~= nil
  local payload = opts.json
  if payload == nil then
    payload = opts.body or ""
  end
  spec.method = opts.method or (has_body and "POST" or "GET")
  spec.path = call.own_path(state, "stream", opts, 3)
  spec.payloads, spec.no_body, spec.stream = { payload }, not has_body, true
  spec.idempotent = false -- a hedge would start the generation twice
  if spec.timeouts.read == nil then
    spec.timeouts.read = state.read_timeout or 1200
  end
  local op, err = call.start(state, spec, 2)
  if not op then
    return nil, err
  end
  local status, headers = core.stream_head(op)
  if not status then
    return nil, ending(state, op) or core.error("closed", "the reply was empty")
  end
  local sse = opts.sse
  if sse == nil then
    sse = (headers["content-type"] or ""):find("text/event-stream", 1, true) ~= nil
  end
  local next_item = chunks(state, op)
  if sse then
    next_item = events(next_item)
  end
  local closer = setmetatable({ status = status, headers = headers }, {
    __close = function() core.call_cancel(op) end,
  })
  return next_item, closer, nil, closer
end

return M
