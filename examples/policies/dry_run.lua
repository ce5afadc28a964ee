-- dry_run - what would that policy have done? It is asked about everything and decides nothing.
--
--   local dry_run = require "examples.policies.dry_run"
--   local trial = dry_run(require "examples.policies.canary" { share = 0.1 })
--   local client = moonpool.client { base_url = url, policy = trial }
--   ... print(trial:report())
--
-- Every hook of the policy runs with the real facts; its verdict is counted and handed to
-- log(hook, verdict, argument, view) and the default decision is taken. Its errors are counted as those
-- of any hook. Tables in it (retry = {...}) are left out: they would be obeyed.
--
-- dry_run(policy, log): log is optional. What it gets of a view it must take at once.

local trial = {}
trial.__index = trial

--- Lines "hook verdict: times", most frequent first.
function trial:report()
  local list = {}
  for text, n in pairs(self.counts) do list[#list + 1] = { text = text, n = n } end
  table.sort(list, function(a, b) return a.n > b.n or a.n == b.n and a.text < b.text end)
  for i, line in ipairs(list) do list[i] = ("%s: %d"):format(line.text, line.n) end
  return table.concat(list, "\n")
end

-- Numbers are many: by their size, not one by one.
local function shown(v)
  if math.type(v) == "float" then return ("about %.1g"):format(v) end
  if type(v) == "table" then return "a rewrite" end
  return tostring(v)
end

return function(policy, log)
  local counts = {}
  local out = { name = "dry_run of " .. (policy.name or "policy") }
  local function watch(name, fn)
    return function(view)
      local verdict, argument = fn(view)
      local text = name .. " " .. shown(verdict)
      counts[text] = (counts[text] or 0) + 1
      if log and verdict ~= nil then log(name, verdict, argument, view) end
    end
  end
  for name, value in pairs(policy) do
    local fn = type(value) == "table" and value.hook or value
    if type(fn) == "function" then out[name] = watch(name, fn) end
  end
  return setmetatable(out, { __index = setmetatable({ counts = counts }, trial) })
end
