-- moonpool.cli.simulate: policies against modelled servers on a virtual clock.
local json = require "moonpool.json"
local parser = require "moonpool.cli.parser"

local simulate = {
  name = "simulate",
  summary = "Try policies on a modelled server, faster than time.",
  epilog = [[
SCRIPT is Lua that returns a scenario (or calls moonpool.simulate with one):

  return {
    load = { requests = 20000, concurrency = 32 },           -- or rate = 50, duration = 120
    server = { latency = "lognormal:20ms,0.2", stall = { share = 0.01, time = 5 } },
    policies = { "job", { name = "hedged", hedge = { after = "2*p95" } } },
  }

Policies are declared as on a client. The core that decides is the client's own; only the servers
and the clock are models. The same seed gives the same result. examples/simulations has more.

Examples:
  moonpool simulate examples/simulations/quota.lua
  moonpool simulate scenario.lua --seed 7 --svg chart.svg]],
}

local function seed(text)
  local value = math.tointeger(tonumber(text))
  if not value or value < 0 or value > 2 ^ 53 then
    return nil, ("'%s' is no whole number"):format(text)
  end
  return value
end

function simulate.configure(p)
  p:argument("script", "Scenario; - is standard input."):argname "SCRIPT"
  p:option("--seed", "Seed of all dice (default: the scenario's, or 1)."):argname "N":convert(seed)
  p:option("--svg", "Write a chart of latency, extra load and recovery."):argname "FILE"
  p:flag("--json", "Print the figures as JSON.")
end

local function fail(code, message)
  parser.stop(code, "moonpool simulate: " .. message .. "\n")
end

-- A script that only returns a scenario has no line to blame for what is wrong in it.
local function run_scenario(script, scenario)
  local run = require "moonpool.simulate".run
  local ok, result = pcall(run, scenario)
  if ok then
    return result
  elseif type(result) ~= "string" then
    error(result, 0)
  end
  fail(1, script .. ": " .. result:gsub("^[^\n:]*:%d+: ", ""):gsub("^simulate: ", ""))
end

local function result_of(script, args)
  local module = require "moonpool.simulate"
  local report = require "moonpool.simulate.report"
  local chunk, err = loadfile(script ~= "-" and script or nil)
  if not chunk then
    fail(1, err)
  end
  moonpool = require "moonpool" -- luacheck: ignore
  module.overrides.seed, module.last = args.seed, nil
  local value = chunk()
  if report.is(value) then
    return value
  elseif type(value) == "table" then
    return run_scenario(script, value)
  elseif module.last then
    return module.last
  end
  fail(1, script .. ": returns no scenario (a table is expected)")
end

local function write(path, text)
  local file, err = io.open(path, "w")
  local ok = file and file:write(text)
  local closed, why = true, nil
  if file then
    closed, why = file:close()
  end
  if not ok or not closed then
    fail(1, err or path .. ": " .. tostring(why or "cannot write"))
  end
end

--- args as parsed. 1 when the policy core broke one of its promises, else 0.
function simulate.run(args)
  local result = result_of(args.script, args)
  if args.json then
    io.stdout:write(json.encode(result:totable(), { sort_keys = true }), "\n")
  else
    io.stdout:write(result:text())
  end
  if args.svg then
    write(args.svg, result:svg())
    if not args.json then
      io.stdout:write("chart written to ", args.svg, "\n")
    end
  end
  for _, r in ipairs(result.policies) do
    if r.violation then
      return 1
    end
  end
  return 0
end

return simulate
