-- What the specs of policies share: a client whose hooks write down what they see.
local rig = require "client_rig"

local M = {}

M.fields = {
  "hook", "now", "id", "tag", "method", "path", "url", "host", "first", "count", "left", "bytes", "tokens",
  "attempts", "hedges", "is_hedge", "endpoint", "endpoints", "last_endpoint", "elapsed", "time",
  "deadline_left", "delay", "budget", "in_flight", "class", "kind", "status", "message", "retry_after",
  "never_sent", "tokens_used", "body", "received", "request_id",
}

--- Everything a view shows, as a table.
function M.facts(view)
  local t = {}
  for _, name in ipairs(M.fields) do t[name] = view[name] end
  return t
end

--- A hook that keeps its facts in `list` and returns what `verdict` (a function of the view, or nil) does.
function M.recorder(list, verdict)
  return function(view)
    list[#list + 1] = M.facts(view)
    if verdict then return verdict(view, #list) end
  end
end

--- A server that answers the n-th request with replies[n], and embeds from then on.
function M.script(replies)
  return rig.embedder(function(_, n)
    return replies[n]
  end)
end

function M.hooks(client)
  return client:stats().hooks
end

--- Runs a script with the stock interpreter; what it wrote, its standard error included.
function M.output_of(script)
  local name = os.tmpname()
  local f = assert(io.open(name, "w"))
  f:write(script)
  f:close()
  local pipe = assert(io.popen("lua5.4 " .. name .. " 2>&1"))
  local text = pipe:read "a"
  pipe:close()
  os.remove(name)
  return text
end

return M
