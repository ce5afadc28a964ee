-- moonpool.policy: declarations of retry, hedge, rate, concurrency, batch, breaker and route, and
-- functions in their place: checked, and compiled to the core's policy struct and to a set of hooks.
--
--   declare.lua   the tables users write, and their fields in the struct
--   hooks.lua     the functions
--   package.lua   whole policies: presets, modules, several in one
local core = require "moonpool.core"
local declare = require "moonpool.policy.declare"
local hooks = require "moonpool.policy.hooks"
local options = require "moonpool.options"
local whole = require "moonpool.policy.package"
local R = options.rule

local M = {
  places = declare.places, add = declare.add,
  preset = whole.preset, expand = whole.expand,
  hooks_of = hooks.of, hooks_of_call = hooks.of_call,
}

--- Rules of the options that name a hook or a whole policy, for clients and calls.
M.rules = { policy = R.either(R.off, R.string, R.table), tag = R.any }
for _, name in ipairs(declare.bare_hooks) do M.rules[name] = R.either(R.off, R.func) end

--- The compiled policy: a preset (or an earlier policy) with the places that `t` declares on top.
function M.compile(base, t, where, level)
  level = (level or 2) + 1
  local fields = {}
  for _, place in ipairs(declare.places) do
    if t[place] ~= nil then
      declare.add(place, t[place], fields, where, level)
    end
  end
  for name, value in pairs(t.fields or {}) do fields[name] = value end
  if type(base) == "string" and not whole.presets[base] then
    error(("%s: preset: must be one of job, gateway, interactive, none, got '%s'"):format(where, base), level)
  end
  return core.policy(base or "job", fields)
end

--- moonpool.policy.retry {...} and so on: a checked declaration to be used in several places.
for _, place in ipairs(declare.places) do
  M[place] = function(t) return (declare.approve(place, t, "policy." .. place, 2)) end
end

--- moonpool.policy.combine {a, b}: several policies as one, see package.lua.
function M.combine(list)
  if type(list) ~= "table" then
    error("policy.combine: a list of policies expected", 2)
  end
  return (whole.combine(list, "policy.combine", 2))
end

return M
