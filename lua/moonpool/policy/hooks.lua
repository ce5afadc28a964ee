-- moonpool.policy.hooks: the functions among policies: found, merged, put together.
local declare = require "moonpool.policy.declare"

local M = {}

local names = {}
for _, place in ipairs(declare.places) do names[#names + 1] = place end
for _, name in ipairs(declare.bare_hooks) do names[#names + 1] = name end
M.names = names

local function hook_of(v)
  if type(v) == "function" then
    return v
  end
  if type(v) == "table" then
    return v.hook
  end
end

--- {name = function} of a table of options; nil when there is none.
function M.of(o)
  local found
  for _, name in ipairs(names) do
    local fn = hook_of(o[name])
    if fn then
      found = found or {}
      found[name] = fn
    end
  end
  return found
end

--- The hooks of a call: the client's, but for those that the call replaces or switches off. nil: the
--- client's serve as they are.
function M.of_call(clients, o)
  local own = M.of(o)
  local off
  for _, name in ipairs(names) do
    if o[name] == false and clients and clients[name] then
      off = true
    end
  end
  if not own and not off then
    return nil
  end
  local all = {}
  for name, fn in pairs(clients or {}) do
    if o[name] ~= false then
      all[name] = fn
    end
  end
  for name, fn in pairs(own or {}) do all[name] = fn end
  return all
end

-- ---- several in one place -----------------------------------------------------------------------

-- The first that decides.
local function first(list)
  return function(view)
    for i = 1, #list do
      local a, b = list[i](view)
      if a ~= nil and a ~= "default" then
        return a, b
      end
    end
  end
end

local function passes(v)
  return v == nil or v == true or v == 0 or v == "default"
end

-- The first that does not let it go. What lets it go has counted it: stateful ones come last.
local function gate(list)
  return function(view)
    for i = 1, #list do
      local a, b = list[i](view)
      if not passes(a) then
        return a, b
      end
    end
  end
end

local function shut(list)
  return function(view)
    for i = 1, #list do
      local a = list[i](view)
      if a then
        return a
      end
    end
  end
end

local function smallest(list)
  return function(view)
    local least
    for i = 1, #list do
      local n = list[i](view)
      if n and (not least or n < least) then
        least = n
      end
    end
    return least
  end
end

local function all(list)
  return function(view)
    for i = 1, #list do list[i](view) end
  end
end

-- Headers of all; of body and path the first.
local function rewrite(list)
  return function(view)
    local out
    for i = 1, #list do
      local t = list[i](view)
      if t then
        out = out or { headers = {} }
        for name, value in pairs(t.headers or {}) do
          if out.headers[name] == nil then
            out.headers[name] = value
          end
        end
        if out.body == nil then
          out.body = t.body
        end
        if out.path == nil then
          out.path = t.path
        end
      end
    end
    return out
  end
end

local ways = {
  rate = gate, concurrency = smallest, breaker = shut, batch = smallest, on_giveup = all,
  before_request = rewrite,
}

--- One function for a list of them in the place of `name`.
function M.join(name, list)
  if #list < 2 then
    return list[1]
  end
  return (ways[name] or first)(list)
end

return M
