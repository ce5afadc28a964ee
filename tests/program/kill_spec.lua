-- A job that is killed again and again, at random and between any two steps that change files;
-- scripts/kill-test is the first a thousand times.

local core = require "moonpool.core"
local kill = require "kill_rig"
local moonpool = require "moonpool"
local program = require "program_rig"

local mock, url

setup(function()
  program.set_up()
  mock = program.start "mock --port 0 --latency 0.01"
  url = mock:url()
end)
teardown(function()
  mock:signal "KILL"
  mock:wait()
  program.tear_down()
end)

local function sums(dir)
  local list = {}
  for _, name in ipairs(assert(core.listdir(dir))) do
    if name ~= "index.json" then
      list[name] = name:match "^part" and core.sum(program.read(dir:match "[^/]+$" .. "/" .. name)) or true
    end
  end
  return list
end

local function text(n, word)
  local lines = {}
  for i = 1, n do
    lines[i] = i == 5 and "" or word .. " " .. i
  end
  return table.concat(lines, "\n") .. "\n"
end

local function embed(env, input, out)
  local f = assert(io.popen(("%s '%s' embed --quiet --url %s --batch-size 4 --max-concurrent 1 "
    .. "--shard-rows 8 -i '%s' -o '%s' 2>'%s/e'; echo $?"):format(
    env, program.binary, url, input, out, program.dir)))
  local code = f:read "l"
  f:close()
  return tonumber(code)
end

describe("a job under kill -9", function()
  it("ends with the bytes of an undisturbed run", function()
    local did = kill.run {
      binary = program.binary, dir = program.dir, url = url, rows = 6000, cycles = 50, seed = 7,
      longest = 0.4, args = "--max-concurrent 8 --batch-size 64 --shard-rows 1000",
    }
    assert.equal(50, did.cycles)
    assert.is_true(did.kills > 0)
    assert.is_true(did.jobs > 0)
  end)

  it("goes on from between any two steps, new or changed", function()
    if os.getenv "MOONPOOL_SANITIZED" then
      return -- its run-time must be loaded first
    end
    local library = program.dir .. "/kill_at.so"
    assert(os.execute(("${CC:-cc} -shared -fPIC -o '%s' tests/support/kill_at.c -ldl"):format(library)))
    local dir, whole, changed = program.dir .. "/steps", program.dir .. "/whole1", program.dir .. "/whole2"
    local first = program.write("first.txt", text(20, "row"))
    local second = program.write("second.txt", "new\n" .. text(18, "row") .. "more\n")
    assert.equal(3, embed("", first, whole))
    assert.equal(3, embed("", second, changed))
    local want, want_changed = sums(whole), sums(changed)
    local steps = 0
    for at = 1, math.huge do
      os.execute(("rm -rf '%s'"):format(dir))
      local env = ("LD_PRELOAD='%s' KILL_AT=%d"):format(library, at)
      local code = embed(env, first, dir)
      if code == 137 then
        assert.equal(3, embed("", first, dir), at)
      end
      assert.same(want, sums(dir), at)
      local code2 = embed(env, second, dir)
      if code2 == 137 then
        local index = program.dir .. "/steps/index.json"
        assert.truthy(core.stat(index), at)
        assert.equal(3, embed("", second, dir), at)
      end
      assert.same(want_changed, sums(dir), at)
      assert.is_true(moonpool.json.decode(program.read "steps/index.json").complete)
      if code ~= 137 and code2 ~= 137 then
        break
      end
      steps = at
    end
    assert.is_true(steps > 40, steps)
  end)
end)
