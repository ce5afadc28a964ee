-- moonpool.client.stream: client:stream: a reply read as it comes, as server-sent events or as raw
-- chunks.
--
-- The iterator waits between items. Leaving the loop, cancelling the token or the task drops the
-- connection. While the script does not ask, the server is held back by its connection.
local core = require "moonpool.core"
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local options = require "moonpool.options"
local sse = require "moonpool.client.sse"
local R = options.rule

local M = {}

local rules = call.rules {
  path = R.string, url_path = R.string, method = R.one_of("GET", "POST", "PUT", "PATCH"), json = R.any,
  body = R.string, sse = R.boolean,
}

--- A parser: feed(bytes) returns the list of events that are complete with them.
function M.parser()
  local parser = sse.new()
  return function(bytes) return parser:feed(bytes) end
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
  local parser, queue, at = sse.new(), {}, 1
  local over = false
  return function()
    while not queue[at] do
      if over then
        return nil
      end
      local bytes = next_chunk()
      over = not bytes
      queue, at = bytes and parser:feed(bytes) or parser:finish(), 1
    end
    local ev = queue[at]
    at = at + 1
    if ev.data == "[DONE]" then -- how OpenAI-style streams say goodbye
      queue, at, over = {}, 1, true
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
  local as_events = opts.sse
  if as_events == nil then
    as_events = (headers["content-type"] or ""):lower():find("text/event-stream", 1, true) ~= nil
  end
  local next_item = chunks(state, op)
  if as_events then
    next_item = events(next_item)
  end
  local closer = setmetatable({ status = status, headers = headers }, {
    __close = function() core.call_cancel(op) end,
  })
  return next_item, closer, nil, closer
end

return M
