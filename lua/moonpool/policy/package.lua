-- moonpool.policy.package: a whole policy as a value: a table that a module returns and a client takes.
--
--   { name = "cost_cap", preset = "job", retry = {...} or function, ..., before_request = function }
--
-- Its own methods come by a metatable, so that a misspelt place is found.
local core = require "moonpool.core"
local declare = require "moonpool.policy.declare"
local hooks = require "moonpool.policy.hooks"
local options = require "moonpool.options"
local R = options.rule

local M = {}

M.presets = { job = true, gateway = true, interactive = true, none = true }

local rules = { name = R.text, description = R.string, preset = R.one_of("job", "gateway", "interactive",
  "none") }
for _, place in ipairs(declare.places) do rules[place] = R.any end
for _, name in ipairs(declare.bare_hooks) do rules[name] = R.either(R.off, R.func) end

-- A place as a table, where it can be one: a function is {hook = function}.
local function as_table(v)
  if type(v) == "function" then
    return { hook = v }
  end
  if type(v) == "table" then
    return v
  end
end

-- Field by field, `mine` first; short forms and false stand for the whole place.
local function merged(mine, other)
  if mine == nil then
    return other
  end
  local a, b = as_table(mine), as_table(other)
  if not a or not b then
    return mine
  end
  local t = {}
  for k, v in pairs(b) do t[k] = v end
  for k, v in pairs(a) do t[k] = v end
  return t
end

-- What a hook sees of a place whose table is merged: its own function is joined apart.
local function without_hook(v)
  if type(v) == "function" then
    return nil
  end
  if type(v) ~= "table" or v.hook == nil then
    return v
  end
  local t, any = {}, false
  for k, x in pairs(v) do
    if k ~= "hook" then
      t[k] = x
      any = true
    end
  end
  return any and t or nil
end

local function named(p)
  return type(p.name) == "string" and p.name or "policy"
end

--- combine {a, b, ...}: all of them; where two declare the same, the first one's word counts. Hooks of
--- one place are asked in turn: the first that decides, every gate, every listener.
function M.combine(list, where, level)
  where, level = where or "policy.combine", (level or 1) + 1
  local out, functions, titles = {}, {}, {}
  if #list == 0 then
    error(where .. ": a list of policies expected", level)
  end
  for i, given in ipairs(list) do
    local p = M.resolve(given, ("%s[%d]"):format(where, i), level)
    titles[i] = named(p)
    out.preset = out.preset or p.preset
    for _, place in ipairs(declare.places) do out[place] = merged(out[place], without_hook(p[place])) end
    for name, fn in pairs(hooks.of(p) or {}) do
      functions[name] = functions[name] or {}
      table.insert(functions[name], fn)
    end
  end
  for name, fns in pairs(functions) do
    local fn = hooks.join(name, fns)
    out[name] = rules[name] ~= R.any and fn or merged(out[name], { hook = fn })
  end
  out.name = table.concat(titles, "+")
  return out
end

--- A policy from what stands for one: a preset's name, a table, a list of these.
function M.resolve(p, where, level)
  level = (level or 1) + 1
  if type(p) == "string" then
    if not M.presets[p] then
      error(("%s: must be one of job, gateway, interactive, none or a table, got '%s'"):format(where, p),
        level)
    end
    return M.preset(p)
  end
  if type(p) ~= "table" then
    error(("%s: a policy's table or the name of a preset expected, got a %s"):format(where, type(p)), level)
  end
  if p[1] ~= nil then
    return (M.combine(p, where, level))
  end
  options.check(where, p, rules, level)
  return p
end

local presets = {}

--- What a preset comes to, as a policy: {name=, preset=, retry = {...}, ...}.
function M.preset(name)
  if not M.presets[name] then
    error("policy.preset: must be one of job, gateway, interactive, none", 2)
  end
  if not presets[name] then
    presets[name] = declare.places_of(core.policy_fields(core.policy(name, {})))
  end
  local copy = { name = name, preset = name }
  for _, place in ipairs(declare.places) do
    local from = presets[name][place]
    copy[place] = from
    if type(from) == "table" then
      copy[place] = {}
      for k, v in pairs(from) do copy[place][k] = v end
    end
  end
  return copy
end

--- Options with those of `o.policy` filled in where `o` says nothing itself.
function M.expand(o, where, level)
  if o.policy == nil or o.policy == false then
    return o
  end
  local p = M.resolve(o.policy, where .. ": policy", (level or 1) + 1)
  local all = {}
  for k, v in pairs(o) do all[k] = v end
  all.preset = o.preset or p.preset
  for _, place in ipairs(declare.places) do all[place] = merged(o[place], p[place]) end
  for _, name in ipairs(declare.bare_hooks) do
    if o[name] == nil then
      all[name] = p[name]
    end
  end
  all.policy_name = named(p)
  return all
end

return M
