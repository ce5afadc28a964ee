-- gather, race, map, channels, semaphores; coroutines of the user's own; where one cannot wait.

local moonpool = require "moonpool"
local core = require "moonpool.core"

describe("gather and race", function()
  it("gather keeps the order and takes tasks too", function()
    moonpool.scope(function(s)
      local task = s:spawn(function() return "t", "dropped" end)
      local got = moonpool.gather { function() moonpool.sleep(0.003) return 1 end, task,
        function() end, function() return 4 end }
      assert.same({ 1, "t", nil, 4, n = 4 }, got)
    end)
    assert.same({ n = 0 }, moonpool.gather {})
    assert.has_error(function() moonpool.gather { 1 } end)
  end)

  it("gather raises the first error and cancels the rest", function()
    local cancelled
    local ok, err = pcall(moonpool.gather, {
      function()
        local done, e = pcall(moonpool.sleep, 60)
        cancelled = not done and e.kind
      end,
      function() error("first", 0) end })
    assert.is_false(ok)
    assert.equal("first", err)
    assert.equal("cancelled", cancelled)
  end)

  it("race gives the first to end, a result or an error", function()
    local lost
    assert.same({ 1, 2 }, { moonpool.race {
      function()
        local ok, err = pcall(moonpool.sleep, 60)
        lost = not ok and err.kind
      end,
      function() moonpool.sleep(0.001) return 1, 2 end } })
    assert.equal("cancelled", lost)
    assert.has_error(function()
      moonpool.race { function() moonpool.sleep(60) end, function() error("e", 0) end }
    end, "e")
    assert.has_error(function() moonpool.race {} end)
  end)

  it("race cancels the tasks that lost", function()
    moonpool.scope(function(s)
      local slow = s:spawn(moonpool.sleep, 60)
      local fast = s:spawn(function() return "fast" end)
      assert.equal("fast", moonpool.race { slow, fast })
      pcall(slow.await, slow)
      assert.equal("cancelled", slow:status())
    end)
  end)
end)

describe("map", function()
  it("keeps the order whatever ends first", function()
    local got = moonpool.map({ 5, 1, 3 }, function(ms, i)
      moonpool.sleep(ms / 1000)
      return ms * 10 + i
    end)
    assert.same({ 51, 12, 33, n = 3 }, got)
    assert.same({ n = 0 }, moonpool.map({}, print))
  end)

  it("never runs more than the window", function()
    local now, most = 0, 0
    local list = {}
    for i = 1, 100 do
      list[i] = i
    end
    moonpool.map(list, { window = 7 }, function()
      now = now + 1
      most = math.max(most, now)
      moonpool.sleep(0)
      now = now - 1
    end)
    assert.equal(7, most)
  end)

  it("pulls from an iterator that waits, one puller at a time", function()
    local i, inside = 0, 0
    local function source()
      inside = inside + 1
      assert(inside == 1, "two workers in the iterator")
      moonpool.sleep(0)
      inside = inside - 1
      i = i + 1
      return i <= 50 and i or nil
    end
    local got = moonpool.map(source, { window = 8 }, function(x)
      moonpool.sleep(0)
      return x
    end)
    assert.equal(50, got.n)
    for k = 1, 50 do
      assert.equal(k, got[k])
    end
  end)

  it("takes a generator", function()
    local gen = coroutine.wrap(function()
      for i = 1, 10 do
        moonpool.sleep(0)
        coroutine.yield(i)
      end
    end)
    assert.equal(10, #moonpool.map(gen, { window = 4 }, function(x) return x end))
  end)

  it("unordered is an iterator over what is done", function()
    local seen, order = {}, {}
    for i, r in moonpool.map({ 30, 1, 10 }, { ordered = false }, function(ms)
      moonpool.sleep(ms / 1000)
      return ms
    end) do
      seen[i] = r
      order[#order + 1] = i
    end
    assert.same({ 30, 1, 10 }, seen)
    assert.equal(3, #order)
  end)

  it("unordered cancels the rest when the loop is left, and raises errors", function()
    local before, running = core.task_count(), 0
    for _ in moonpool.map({ 1, 2, 3, 4 }, { ordered = false, window = 2 }, function(x) -- luacheck: ignore 512
      running = running + 1
      if x > 1 then
        moonpool.sleep(60)
      end
      return x
    end) do
      break
    end
    assert.equal(before, core.task_count())
    assert.is_true(running <= 3)
    assert.has_error(function()
      for _ in moonpool.map({ 1, 2 }, { ordered = false }, function() error("bad", 0) end) do -- luacheck: ignore
      end
    end, "bad")
    assert.equal(before, core.task_count())
  end)

  it("raises the first error", function()
    assert.has_error(function()
      moonpool.map({ 1, 2, 3 }, function(x)
        moonpool.sleep(0)
        if x == 2 then
          error("two", 0)
        end
      end)
    end, "two")
  end)

  it("runs 100,000 items in bounded memory", function()
    local n = 0
    local function source()
      n = n + 1
      return n <= 100000 and n or nil
    end
    collectgarbage()
    local before, sum, most = collectgarbage("count"), 0, 0
    moonpool.map(source, { window = 32 }, function(x)
      moonpool.sleep(0)
      sum = sum + x
      if x % 5000 == 0 then
        collectgarbage()
        most = math.max(most, collectgarbage("count") - before)
      end
    end)
    assert.equal(100000 * 100001 // 2, sum)
    assert.is_true(most < 500, "grew by " .. most .. " KB")
  end)

  it("refuses wrong arguments by name", function()
    assert.has_error(function() moonpool.map(1, print) end)
    assert.has_error(function() moonpool.map({}, {}, 1) end)
    assert.has_error(function() moonpool.map({}, { window = 0 }, print) end)
    assert.has_error(function() moonpool.map({}, 3, print) end)
  end)
end)

describe("channel", function()
  it("is bounded, ordered, and drains after close", function()
    local ch, got, most = moonpool.channel(3), {}, 0
    moonpool.scope(function(s)
      s:spawn(function()
        for i = 1, 50 do
          assert(ch:put(i))
          most = math.max(most, #ch)
        end
        ch:close()
      end)
      for v in ch do
        got[#got + 1] = v
        moonpool.sleep(0)
      end
    end)
    assert.equal(50, #got)
    assert.equal(50, got[50])
    assert.equal(3, most)
    local ok, err = ch:put(1)
    assert.is_nil(ok)
    assert.equal("closed", err.kind)
    assert.has_error(function() ch:put(nil) end)
  end)

  it("wakes all who wait when it closes, and forgets the cancelled", function()
    local ch = moonpool.channel(1)
    moonpool.scope(function(s)
      for _ = 1, 3 do
        s:spawn(function() assert.is_nil(ch:get()) end)
      end
      local gone = s:spawn(function() ch:get() end)
      moonpool.sleep(0)
      gone:cancel()
      ch:close()
    end)
  end)
end)

describe("semaphore", function()
  it("limits, in order of arrival, and gives back on errors", function()
    local sem, now, most, order = moonpool.semaphore(2), 0, 0, {}
    moonpool.scope(function(s)
      for i = 1, 10 do
        s:spawn(function()
          pcall(sem.with, sem, function()
            order[#order + 1] = i
            now = now + 1
            most = math.max(most, now)
            moonpool.sleep(0)
            now = now - 1
            error "given back"
          end)
        end)
      end
    end)
    assert.equal(2, most)
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, order)
    assert.equal(2, sem.free)
    assert.has_error(function() sem:release() end)
  end)

  it("loses no place when a waiter is cancelled", function()
    local sem = moonpool.semaphore(1)
    moonpool.scope(function(s)
      sem:acquire()
      local waiter = s:spawn(function() sem:with(function() end) end)
      moonpool.sleep(0)
      waiter:cancel()
      sem:release()
    end)
    assert.equal(1, sem.free)
  end)
end)

describe("coroutines of the user's own", function()
  it("wait inside a task without stopping the others", function()
    local log = {}
    local function generator(name)
      return coroutine.wrap(function()
        for i = 1, 3 do
          moonpool.sleep(0)
          coroutine.yield(name .. i)
        end
      end)
    end
    moonpool.scope(function(s)
      for _, name in ipairs { "a", "b" } do
        s:spawn(function()
          for v in generator(name) do
            log[#log + 1] = v
          end
        end)
      end
    end)
    assert.equal("a1 b1 a2 b2 a3 b3", table.concat(log, " "))
  end)

  it("run the loop when they are in no task", function()
    local co = coroutine.create(function(x)
      moonpool.sleep(0.001)
      local y = coroutine.yield(x + 1)
      moonpool.sleep(0.001)
      return y + 1
    end)
    assert.same({ true, 2 }, { coroutine.resume(co, 1) })
    assert.same({ true, 11 }, { coroutine.resume(co, 10) })
    assert.equal("dead", coroutine.status(co))
  end)

  it("behave as in Lua otherwise", function()
    assert.same({ false, "cannot resume dead coroutine" },
      { coroutine.resume((function() local c = coroutine.create(print) coroutine.close(c) return c end)()) })
    assert.is_false((coroutine.resume(coroutine.running())))
    local ok, err = pcall(coroutine.wrap(function() error "inside" end))
    assert.is_false(ok)
    assert.matches("inside", err)
    local closed
    pcall(coroutine.wrap(function()
      local _ <close> = setmetatable({}, { __close = function() closed = true end })
      error "x"
    end))
    assert.is_true(closed)
    assert.has_error(function() coroutine.resume(1) end)
    assert.has_error(function() coroutine.wrap(1) end)
  end)

  it("are cancelled where they wait, inside out", function()
    local log = {}
    moonpool.scope(function(s)
      local child = s:spawn(function()
        local gen = coroutine.wrap(function()
          local _ <close> = setmetatable({}, { __close = function() log[#log + 1] = "gen" end })
          moonpool.sleep(60)
        end)
        local ok, err = pcall(gen)
        log[#log + 1] = not ok and err.kind
      end)
      moonpool.sleep(0)
      child:cancel()
    end)
    assert.same({ "gen", "cancelled" }, log)
  end)

  it("cannot be resumed or closed by another task while they wait", function()
    moonpool.scope(function(s)
      local co = coroutine.create(function() moonpool.sleep(0.005) return "done" end)
      local owner = s:spawn(function() return coroutine.resume(co) end)
      moonpool.sleep(0)
      local ok, err = coroutine.resume(co)
      assert.is_false(ok)
      assert.matches("waits inside a task", err)
      assert.has_error(function() coroutine.close(co) end)
      assert.same({ true, "done" }, { owner:await() })
    end)
  end)

  it("a task itself cannot yield", function()
    local ok, err = pcall(moonpool.scope, function() coroutine.yield(1) end)
    assert.is_false(ok)
    assert.matches("coroutine.yield outside", err)
  end)
end)

describe("a wait with a C function in between", function()
  local function attempts(fn)
    local ok, err = pcall(moonpool.scope, fn)
    assert.is_false(ok)
    assert.matches("cannot wait here", tostring(err))
  end
  it("raises clearly", function()
    attempts(function() table.sort({ 3, 1, 2 }, function(a, b) moonpool.sleep(0) return a < b end) end)
    attempts(function() ("x"):gsub("x", function() moonpool.sleep(0) end) end)
    attempts(function()
      table.sort({ 3, 1, 2 }, function(a, b)
        local ok, err = coroutine.resume(coroutine.create(function() moonpool.sleep(0) end))
        if not ok then
          error(err, 0)
        end
        return a < b
      end)
    end)
    package.preload.waiting_module = function() moonpool.sleep(0) end
    attempts(function() require "waiting_module" end)
    assert.equal(1, moonpool.scope(function() moonpool.sleep(0) return 1 end))
  end)
end)

describe("pcall and metamethods", function()
  it("wait across", function()
    moonpool.scope(function()
      assert.same({ true, 5 }, { pcall(function() moonpool.sleep(0) return 5 end) })
      local ok, trace = xpcall(function() moonpool.sleep(0) error "e" end, debug.traceback)
      assert.is_false(ok)
      assert.matches("traceback", trace)
      local t = setmetatable({}, { __index = function(_, k) moonpool.sleep(0) return k end })
      assert.equal("key", t.key)
      for v in function(_, v) moonpool.sleep(0) return (v or 0) < 3 and (v or 0) + 1 or nil end do
        assert.is_true(v <= 3)
      end
    end)
  end)
end)

describe("errors", function()
  it("are tables that read well", function()
    local err = moonpool.error("connect", "refused", { endpoint = "http://x", attempts = 3 })
    assert.equal("connect: refused (after 3 attempts)", tostring(err))
    assert.equal("http://x", err.endpoint)
    assert.is_true(moonpool.is_error(err))
    assert.is_false(moonpool.is_error {})
  end)

  it("strict raises errors and failed rows", function()
    local res = { ok = true, errors = {} }
    assert.equal(res, moonpool.strict(res))
    local err = moonpool.error("connect", "refused")
    assert.has_error(function() moonpool.strict(nil, err) end, err)
    local ok, e = pcall(moonpool.strict, { 1, 2, 3, ok = false, errors = { { index = 2, error = err } } })
    assert.is_false(ok)
    assert.equal("connect", e.kind)
    assert.matches("1 of 3 rows failed; first, row 2: connect: refused", tostring(e))
  end)
end)

describe("system helpers", function()
  it("answer or say why not", function()
    assert.is_true(core.wall() > 1e9)
    assert.is_true(core.hrtime() > 0)
    assert.equal(8, #core.random_hex(4))
    local dir = os.tmpname()
    os.remove(dir)
    assert.is_true(core.mkdir(dir))
    local ok, err, errno = core.mkdir(dir)
    assert.is_nil(ok)
    assert.matches(dir, err, 1, true)
    assert.equal(17, errno)
    local file = assert(io.open(dir .. "/a", "w"))
    file:write "12345"
    assert.is_true(core.fsync(file))
    file:close()
    assert.is_true(core.rename(dir .. "/a", dir .. "/b"))
    assert.same({ "b" }, core.listdir(dir))
    assert.equal(5, core.stat(dir .. "/b").size)
    assert.equal("directory", core.stat(dir).type)
    assert.is_nil(core.stat(dir .. "/none"))
    assert.is_true(core.fsync(dir))
    os.remove(dir .. "/b")
    assert.is_true(core.rmdir(dir))
  end)

  it("tasks() tells of each where it was spawned, what it waits in and where", function()
    moonpool.scope(function(scope)
      local channel = moonpool.channel(1)
      local function wait()
        local value = channel:get()
        return value
      end
      scope:spawn(wait)
      moonpool.sleep(0.001)
      local found
      for _, t in ipairs(moonpool.tasks()) do
        if t.waits == "get" then found = t end
      end
      assert.equal("waiting", found.state)
      assert.matches("task_flow_spec.lua:%d+$", found.spawned)
      assert.matches("task_flow_spec.lua:%d+$", found.at)
      assert.not_equal(found.spawned, found.at)
      assert.equal("pending", found.task:status())
      channel:put(1)
    end)
    local before = #moonpool.tasks()
    moonpool.scope(function(scope) scope:spawn(function() end) end)
    assert.equal(before, #moonpool.tasks())
  end)

  it("a traceback says which task it is of", function()
    local _, err = pcall(moonpool.scope, function(scope)
      scope:spawn(function() error "inside" end)
    end)
    assert.matches("inside", err, 1, true)
    local trace = require "moonpool.core".traceback_of(err)
    assert.matches("%[in a task spawned at [^\n]*task_flow_spec.lua:%d+%]", trace)
  end)
end)
