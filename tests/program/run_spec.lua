-- `moonpool run` as a whole program: arguments, exit codes, interruption, the end. $MOONPOOL is the
-- binary, $LUA_CPATH finds the module for stock lua5.4.

local moonpool = os.getenv "MOONPOOL" or "build/moonpool"
local dir

local function write(name, text)
  local path = dir .. "/" .. name
  local f = assert(io.open(path, "w"))
  f:write(text)
  f:close()
  return path
end

-- Runs a shell command: what it wrote (both streams) and its exit code.
local function sh(command)
  local f = assert(io.popen("( " .. command .. "\n) 2>&1; echo \"rc=$?\"", "r"))
  local text = f:read "a"
  f:close()
  local out, rc = text:match "^(.*)rc=(%d+)\n$"
  return out, tonumber(rc)
end

local function run(script, args, input)
  local path = write("script.lua", script)
  return sh(string.format("%s run %s %s %s", moonpool, path, args or "", input or "</dev/null"))
end

-- Starts `command` in the background and, once it has written the line "ready", runs `signals` with
-- $pid set. No sleeping: the line comes through a fifo.
local function interrupt(command, signals)
  return sh(string.format([[
cd %s && rm -f fifo && mkfifo fifo
env --default-signal=INT %s >fifo 2>err &
pid=$!
exec 9<fifo
read line <&9
%s
cat <&9
wait $pid
rc=$?
cat err
exit $rc]], dir, command, signals))
end

describe("moonpool run", function()
  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir -p " .. dir))
    local here = io.popen("pwd"):read "l"
    if not moonpool:match "^/" then
      moonpool = here .. "/" .. moonpool
    end
  end)

  teardown(function() os.execute("rm -rf " .. dir) end)

  it("gives the script its arguments as lua does", function()
    local out, rc = run([[
print(arg[0]:match "[^/]*$", #arg, arg[1], arg[2], ...)
print(type(moonpool.sleep), require "moonpool" == moonpool)]], "a 'b c'")
    assert.equal("script.lua\t2\ta\tb c\ta\tb c\nfunction\ttrue\n", out)
    assert.equal(0, rc)
  end)

  it("reads a script from standard input", function()
    local out, rc = sh(string.format("echo 'print(#arg, ...)' | %s run - x", moonpool))
    assert.equal("1\tx\n", out)
    assert.equal(0, rc)
  end)

  it("runs the main chunk as a task", function()
    local out, rc = run [[
local core = require "moonpool.core"
local t = moonpool.now()
moonpool.sleep(0.001)
print(core.in_task(), moonpool.now() > t)
print(moonpool.map({1, 2}, function(x) moonpool.sleep(0) return x + 1 end)[2])]]
    assert.equal("true\ttrue\n3\n", out)
    assert.equal(0, rc)
  end)

  it("exits 1 with message and traceback on an uncaught error", function()
    local out, rc = run [[
local function culprit() error "broken" end
moonpool.scope(function(s)
  s:spawn(function() moonpool.sleep(0) culprit() end)
  moonpool.sleep(20)
end)]]
    assert.equal(1, rc)
    assert.matches("moonpool: .-script.lua:1: broken", out)
    assert.matches("culprit", out)
    out, rc = run [[error(moonpool.error("connect", "refused"))]]
    assert.equal(1, rc)
    assert.equal("moonpool: connect: refused\n", out) -- a service's error is a sentence
    assert.equal(out, (run [[
local function deep() assert(nil, moonpool.error("connect", "refused")) end deep()]]))
    out, rc = sh(("MOONPOOL_LOG=debug %s run %s/script.lua"):format(moonpool, dir))
    assert.equal(1, rc)
    assert.matches("^moonpool: connect: refused\nstack traceback:.*deep", out)
    out, rc = run "this is no Lua"
    assert.equal(1, rc)
    assert.matches("script.lua:1:", out)
    out, rc = sh(moonpool .. " run " .. dir .. "/none.lua")
    assert.equal(1, rc)
    assert.matches("none.lua", out)
  end)

  it("exits 2 on wrong usage", function()
    for _, line in ipairs { "run", "run --wrong x.lua" } do
      local out, rc = sh(moonpool .. " " .. line)
      assert.equal(2, rc, line)
      assert.matches("usage", out:lower())
    end
    local _, rc = sh(moonpool .. " no-such-command")
    assert.equal(2, rc)
  end)

  it("exits as moonpool.exit says, from any depth, past any pcall", function()
    local deep = [[
moonpool.scope(function(s)
  s:spawn(function()
    local _ <close> = setmetatable({}, {__close = function() print "closed" end})
    moonpool.sleep(20)
  end)
  moonpool.sleep(0)
  while true do
    pcall(function()
      for _ in coroutine.wrap(function() pcall(moonpool.exit, %s) print "wrong" end) do end
    end)
    print "wrong"
  end
end)]]
    local cases = { ["7"] = 7, ["true"] = 0, ["false"] = 1, ["{ok = true, errors = {}}"] = 0,
      ["{ok = false, errors = {{index = 1}}}"] = 3 }
    for value, code in pairs(cases) do
      local out, rc = run(deep:format(value))
      assert.equal("closed\n", out)
      assert.equal(code, rc, value)
    end
    local out, rc = run [[moonpool.exit(nil, moonpool.error("connect", "refused"))]]
    assert.equal("moonpool: connect: refused\n", out)
    assert.equal(1, rc)
    out, rc = run [[io.write "flushed" os.exit(4, true)]]
    assert.equal("flushed", out)
    assert.equal(4, rc)
  end)

  it("ends when the main chunk returns, whatever is still open", function()
    local out, rc = run [[
local iterator, _, _, scope = moonpool.map(function() return 1 end, {ordered = false}, function()
  local _ <close> = setmetatable({}, {__close = function() print "closed" end})
  moonpool.sleep(20)
end)
moonpool.sleep(0)
keep = {iterator, scope}]]
    assert.equal(("closed\n"):rep(32), out)
    assert.equal(0, rc)
  end)

  it("says what hangs instead of hanging", function()
    local out, rc = run [[moonpool.channel(1):get()]]
    assert.equal(1, rc)
    assert.matches("deadlock", out)
  end)

  it("loads modules beside the script and needs no Lua files of its own", function()
    write("beside.lua", "return 5")
    local out = sh(string.format("cd %s && echo 'print((require [[beside]]))' > s.lua && %s run s.lua",
      dir, moonpool))
    assert.equal("5\n", out)
    out = sh(string.format("cd / && %s run %s/s2.lua", moonpool,
      write("s2.lua", "print(moonpool.version ~= nil)"):match "^(.*)/"))
    assert.equal("true\n", out)
  end)

  it("takes MOONPOOL_PATH over what is embedded", function()
    os.execute("mkdir -p " .. dir .. "/dev/moonpool")
    write("dev/moonpool/special.lua", "return 'from the path'")
    local path = write("s3.lua", "print((require 'moonpool.special'))")
    local out = sh(string.format("MOONPOOL_PATH=%s/dev %s run %s", dir, moonpool, path))
    assert.equal("from the path\n", out)
  end)

  it("survives a closed pipe", function()
    local path = write("s4.lua", "for i = 1, 100000 do print(i) end")
    local out = sh(string.format("%s run %s | head -n 1", moonpool, path))
    assert.equal("1\n", out)
  end)
end)

local sleeping = [[
moonpool.scope(function(s)
  s:spawn(function()
    local _ <close> = setmetatable({}, {__close = function() print "closed" end})
    moonpool.sleep(20)
  end)
  moonpool.sleep(0)
  print "ready" io.stdout:flush()
  moonpool.sleep(20)
  print "not interrupted"
end)]]

-- Bounded by its own clock, so that a test that fails does not hang.
local spinning = [[
local stop = os.clock() + 15
local _ <close> = setmetatable({}, {__close = function()
  local n = 0
  for i = 1, 50 do n = n + i end
  print("closed", n)
end})
print "ready" io.stdout:flush()
while os.clock() < stop do
  pcall(function()
    for _ in coroutine.wrap(function()
      while os.clock() < stop do pcall(function() while os.clock() < stop do end end) end
    end) do end
  end)
end
print "not interrupted"]]

describe("an interrupted run", function()
  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir -p " .. dir))
  end)

  teardown(function() os.execute("rm -rf " .. dir) end)

  it("ends its tasks and exits 130 when it waits", function()
    local out, rc = interrupt(moonpool .. " run " .. write("s.lua", sleeping), "kill -INT $pid")
    assert.equal("closed\n", out)
    assert.equal(130, rc)
  end)

  it("exits 143 on SIGTERM", function()
    local out, rc = interrupt(moonpool .. " run " .. write("s.lua", sleeping), "kill -TERM $pid")
    assert.equal("closed\n", out)
    assert.equal(143, rc)
  end)

  it("stops a script that spins, through pcall and generators", function()
    local out, rc = interrupt(moonpool .. " run " .. write("s.lua", spinning), "kill -INT $pid")
    assert.equal("closed\t1275\n", out)
    assert.equal(130, rc)
  end)

  it("ends at once on the second signal", function()
    local path = write("s.lua", [[
moonpool.scope(function(s)
  s:spawn(function()
    pcall(moonpool.sleep, 20)
    print "one" io.stdout:flush()
    moonpool.shield(moonpool.sleep, 20)
  end)
  moonpool.sleep(0)
  print "ready" io.stdout:flush()
  moonpool.sleep(20)
end)
print "not interrupted"]])
    local out, rc = interrupt(moonpool .. " run " .. path,
      "kill -INT $pid; read line <&9; kill -INT $pid")
    assert.equal("", out)
    assert.equal(130, rc)
  end)

  it("can put its work in order before it ends", function()
    local path = write("s.lua", [[
local ok, err = pcall(function()
  print "ready" io.stdout:flush()
  moonpool.sleep(20)
end)
moonpool.shield(function() moonpool.sleep(0.001) print("saved", err.kind, err.message) end)]])
    local out, rc = interrupt(moonpool .. " run " .. path, "kill -INT $pid")
    assert.equal("saved\tcancelled\tinterrupted\n", out)
    assert.equal(130, rc)
  end)

  it("raises in stock lua5.4, whose own handling comes back afterwards", function()
    local path = write("s.lua", [[
local moonpool = require "moonpool"
print(pcall(moonpool.scope, function(s)
  s:spawn(function() print "ready" io.stdout:flush() end)
  moonpool.sleep(20)
end))
print(moonpool.scope(function() moonpool.sleep(0) return "goes on" end))]])
    local out, rc = interrupt("lua5.4 " .. path, "kill -INT $pid")
    assert.equal("false\tcancelled: interrupted\ngoes on\n", out)
    assert.equal(0, rc)
    path = write("s.lua", "local moonpool = require 'moonpool'\n" .. sleeping)
    out, rc = interrupt("lua5.4 " .. path, "kill -INT $pid")
    assert.matches("^closed\n", out)
    assert.matches("interrupted", out)
    assert.equal(1, rc)
    path = write("s.lua", [[
local moonpool = require "moonpool"
moonpool.sleep(0)
print "ready" io.stdout:flush()
local stop = os.clock() + 15
while os.clock() < stop do end
print "not interrupted"]])
    out, rc = interrupt("lua5.4 " .. path, "kill -INT $pid")
    assert.matches("interrupted!", out)
    assert.equal(1, rc)
  end)

  it("stops a task that spins under stock lua5.4", function()
    local path = write("s.lua", "local moonpool = require 'moonpool'\nmoonpool.scope(function()\n"
      .. spinning .. "\nend)")
    local out, rc = interrupt("lua5.4 " .. path, "kill -INT $pid")
    assert.matches("closed\t1275\n", out)
    assert.matches("interrupted", out)
    assert.equal(1, rc)
  end)
end)

describe("stock lua5.4", function()
  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir -p " .. dir))
  end)

  teardown(function() os.execute("rm -rf " .. dir) end)

  it("leaves by moonpool.exit and os.exit in a task", function()
    local path = write("s.lua", [[
local moonpool = require "moonpool"
moonpool.scope(function()
  local _ <close> = setmetatable({}, {__close = function() print "closed" end})
  moonpool.sleep(0)
  pcall(moonpool.exit, 6)
  print "wrong"
end)]])
    local out, rc = sh("lua5.4 " .. path)
    assert.equal("closed\n", out)
    assert.equal(6, rc)
    path = write("s.lua", [[
local moonpool = require "moonpool"
moonpool.scope(function() moonpool.sleep(0) os.exit(5, true) end)]])
    out, rc = sh("lua5.4 " .. path)
    assert.equal("", out)
    assert.equal(5, rc)
  end)

  it("closes with tasks left open", function()
    local path = write("s.lua", [[
local moonpool = require "moonpool"
keep = {moonpool.map(function() return 1 end, {ordered = false}, function() moonpool.sleep(20) end)}
print "end"]])
    local out, rc = sh("lua5.4 " .. path)
    assert.equal("end\n", out)
    assert.equal(0, rc)
  end)

  it("runs the specs of the tasks inside the binary too", function()
    local out, rc = sh(moonpool .. " run $(command -v busted) -o TAP tests/lua/task_scope_spec.lua "
      .. "tests/lua/task_flow_spec.lua")
    assert.equal(0, rc, out)
    assert.matches("ok 50", out)
  end)
end)
