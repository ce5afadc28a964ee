-- `moonpool simulate` as a user starts it.

local json = require "moonpool".json
local binary = assert(os.getenv "MOONPOOL", "run by scripts/test")

local function output(command)
  local pipe = assert(io.popen(("'%s' %s 2>&1; echo \"status $?\""):format(binary, command)))
  local text = pipe:read "a"
  pipe:close()
  return text
end

local function file(text)
  local path = os.tmpname()
  local f <close> = assert(io.open(path, "w"))
  f:write(text)
  return path
end

local function read(path)
  local f <close> = assert(io.open(path))
  return f:read "a"
end

local scenario = [[
return {
  name = "two policies",
  load = { requests = 2000, concurrency = 8 },
  server = { stall = { share = 0.02, time = 2 } },
  policies = { "job", { name = "hedged", hedge = { after = "2*p95" } } },
}]]

describe("moonpool simulate", function()
  local script, svg

  before_each(function()
    script, svg = file(scenario), os.tmpname()
  end)

  after_each(function()
    os.remove(script)
    os.remove(svg)
  end)

  it("prints a table and writes a chart", function()
    local text = output(("simulate %s --svg %s"):format(script, svg))
    assert.matches("^two policies %(seed 1%)\n", text)
    assert.matches("\njob +%d", text)
    assert.matches("\nhedged +%d", text)
    assert.matches("chart written to " .. svg, text, 1, true)
    assert.matches("status 0\n$", text)
    local chart = read(svg)
    assert.matches("^<svg ", chart)
    assert.matches("</svg>\n$", chart)
  end)

  it("gives the same for the same seed", function()
    local a = output(("simulate %s --seed 5"):format(script))
    assert.equal(a, output(("simulate %s --seed 5"):format(script)))
    assert.matches("(seed 5)", a, 1, true)
    local b = output(("simulate %s --seed 6"):format(script))
    assert.not_equal(a:match "\njob[^\n]*", b:match "\njob[^\n]*")
  end)

  it("prints JSON alone where that is wanted", function()
    local text = output(("simulate %s --json --svg %s"):format(script, svg))
    local value = json.decode(text:match "^(.-)\nstatus 0\n$")
    assert.equal(1, value.seed)
    assert.equal("hedged", value.policies[2].name)
    assert.is_true(value.policies[2].hedges > 0)
  end)

  it("runs a script that calls moonpool.simulate itself, from standard input too", function()
    local called = file(scenario:gsub("return {", "moonpool.simulate {", 1))
    assert.matches("^two policies", output("simulate " .. called))
    assert.matches("^two policies", output("simulate - < " .. called))
    os.remove(called)
  end)

  it("runs under moonpool run as well", function()
    local called = file("local r = moonpool.simulate { load = { requests = 10 } }\nprint(r.policies[1].ok)")
    assert.equal("10\nstatus 0\n", output("run " .. called))
    os.remove(called)
  end)

  it("says what is wrong with a scenario", function()
    local wrong = file "return { load = { requets = 3 } }"
    local text = output("simulate " .. wrong)
    assert.matches("load: unknown option 'requets' (did you mean 'requests'?)", text, 1, true)
    assert.is_nil(text:find("traceback", 1, true))
    assert.matches("status 1\n$", text)
    os.remove(wrong)
    assert.matches("status 1\n$", output "simulate /nowhere/at/all.lua")
    assert.matches("returns no scenario", output "simulate - < /dev/null", 1, true)
    assert.matches("status 1\n$", output(("simulate %s --svg /nowhere/a.svg"):format(script)))
    assert.matches("status 2\n$", output "simulate")
    assert.matches("status 2\n$", output(("simulate %s --seed x"):format(script)))
  end)

  it("ends on Ctrl+C in the middle of a long simulation", function()
    local long = file [[
      io.stdout:write "ready\n"
      io.stdout:flush()
      return { load = { requests = 5000000 }, policies = { "job", "job", "job", "job", "job", "job" } }]]
    local pipe = assert(io.popen(("echo $$; exec '%s' simulate %s"):format(binary, long)))
    local pid = pipe:read "l"
    assert.equal("ready", pipe:read "l")
    os.execute("kill -INT " .. pid)
    assert.equal("", pipe:read "a")
    local _, how, code = pipe:close()
    assert.same({ "exit", 130 }, { how, code })
    os.remove(long)
  end)
end)

describe("the example scenarios", function()
  local pipe = io.popen "ls examples/simulations/*.lua"
  for path in pipe:lines() do
    it(path .. " runs", function()
      local text = output("simulate " .. path)
      assert.matches("status 0\n$", text)
      assert.is_nil(text:find("broke a promise", 1, true))
    end)
  end
  pipe:close()
end)
