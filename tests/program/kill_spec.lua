-- A job that is killed again and again; scripts/kill-test is the same a thousand times.

local kill = require "kill_rig"
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
end)
