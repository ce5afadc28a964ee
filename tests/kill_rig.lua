-- A job that is killed again and again: `moonpool embed` against a mock, kill -9 at random moments, until
-- the job is done; its files must be byte for byte those of an undisturbed run. Used by a spec for some
-- cycles and by scripts/kill-test for a thousand.

local moonpool = require "moonpool"
local core = require "moonpool.core"

local M = {}

local function sh(line)
  local f = assert(io.popen(line, "r"))
  local text = f:read "a"
  f:close()
  return text
end

local function read(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

local function part_files(dir)
  local files = {}
  for _, name in ipairs(assert(core.listdir(dir))) do
    if name:match "^part%-" then
      files[name] = core.sum(read(dir .. "/" .. name))
    end
  end
  return files
end

--- kill.run { binary=, dir=, url=, rows=, cycles=, args=, seed=, preload = {library, calls} }: kills until
--- `cycles` are done; { cycles=, jobs=, asked=, rows= }. Raises at the first difference. after: what the
--- environment of the n-th cycle is, in place of a kill from outside.
function M.run(o)
  math.randomseed(o.seed or 1)
  local input = o.dir .. "/kill.txt"
  local f = assert(io.open(input, "w"))
  for i = 1, o.rows do
    local n = i % 13 == 0 and i // 2 or i
    f:write(i % 997 == 0 and "\n" or ("row %d of a job that is killed again and again\n"):format(n))
  end
  f:close()
  local command = ("'%s' embed --url %s --model m -i '%s' -o '%s' --quiet --json %s"):format(o.binary,
    o.url, input, "%s", o.args or "")
  sh(("rm -rf '%s/whole'; %s 2>&1"):format(o.dir, command:format(o.dir .. "/whole")))
  local want = part_files(o.dir .. "/whole")
  assert(next(want), "the undisturbed run made nothing")
  local out, did = o.dir .. "/killed", { cycles = 0, jobs = 0, asked = 0, kills = 0, rows = o.rows }
  sh(("rm -rf '%s'"):format(out))
  while did.cycles < o.cycles do
    did.cycles = did.cycles + 1
    local text = sh(("%s timeout -s KILL %.3f %s 2>'%s/kill.err'; echo; echo rc=$?"):format(
      o.env and o.env(did.cycles) or "", o.env and 60 or math.random() * (o.longest or 0.8),
      command:format(out), o.dir))
    local done = text:match '"rows":%d+' ~= nil
    local err = read(o.dir .. "/kill.err"):gsub("[^\n]*Killed[^\n]*\n", "")
    assert(err == "", err)
    if not done then
      did.kills = did.kills + 1
    else
      did.jobs = did.jobs + 1
      local got = part_files(out)
      for name, sum in pairs(want) do
        assert(got[name] == sum, ("%s differs after %d cycles"):format(name, did.cycles))
        got[name] = nil
      end
      assert(next(got) == nil, "a file too many: " .. tostring(next(got)))
      assert(moonpool.json.decode(read(out .. "/index.json")).complete)
      sh(("rm -rf '%s'"):format(out))
    end
  end
  return did
end

return M
