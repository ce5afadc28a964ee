-- Scopes, spawn, await, cancellation, deadlines. Runs under stock lua5.4 and in the binary.

local moonpool = require "moonpool"
local core = require "moonpool.core"

local function closer(log, name)
  return setmetatable({}, { __close = function() log[#log + 1] = name end })
end

-- A wait that ends only by cancellation: a guard, never reached in time.
local function forever()
  moonpool.sleep(60)
  error("nobody cancelled")
end

describe("scope", function()
  it("returns what its function returns", function()
    assert.same({ 1, nil, 3, n = 3 }, table.pack(moonpool.scope(function() return 1, nil, 3 end)))
    assert.equal(0, select("#", moonpool.scope(function() end)))
  end)

  it("ends only after all its tasks", function()
    local done = 0
    moonpool.scope(function(s)
      for _ = 1, 20 do
        s:spawn(function()
          moonpool.sleep(0.001)
          done = done + 1
        end)
      end
    end)
    assert.equal(20, done)
  end)

  it("passes arguments and results, any number of them", function()
    moonpool.scope(function(s)
      assert.equal(0, select("#", s:spawn(function() end):await()))
      assert.equal(7, s:spawn(function(x) return x end, 7):await())
      local many = s:spawn(function(...) return ... end, table.unpack({}, 1, 200))
      assert.equal(200, select("#", many:await()))
      assert.equal(200, select("#", many:await()))
      assert.equal("done", many:status())
    end)
  end)

  it("cancels the siblings of a failed task and raises its error", function()
    local log = {}
    local err = { "boom" }
    local ok, got = pcall(moonpool.scope, function(s)
      for i = 1, 3 do
        s:spawn(function()
          local _ <close> = closer(log, i)
          forever()
        end)
      end
      s:spawn(function()
        moonpool.sleep(0)
        error(err)
      end)
      forever()
    end)
    assert.is_false(ok)
    assert.equal(err, got)
    table.sort(log)
    assert.same({ 1, 2, 3 }, log)
  end)

  it("gives whoever awaits the failed task its error", function()
    local seen
    pcall(moonpool.scope, function(s)
      local child = s:spawn(function() error("mine", 0) end)
      local _, err = pcall(child.await, child)
      seen = err
    end)
    assert.equal("mine", seen)
  end)

  it("cancels the children when the body fails", function()
    local log = {}
    assert.has_error(function()
      moonpool.scope(function(s)
        s:spawn(function()
          local _ <close> = closer(log, "closed")
          forever()
        end)
        moonpool.sleep(0)
        error("body", 0)
      end)
    end, "body")
    assert.same({ "closed" }, log)
  end)

  it("never starts a task that was cancelled before its turn", function()
    local ran = false
    moonpool.scope(function(s)
      local child = s:spawn(function() ran = true end)
      assert.is_true(child:cancel())
      assert.is_false(child:cancel())
      local ok, err = pcall(child.await, child)
      assert.is_false(ok)
      assert.equal("cancelled", err.kind)
      assert.equal("cancelled", child:status())
    end)
    assert.is_false(ran)
  end)

  it("does not fail because one child was cancelled", function()
    local n = 0
    moonpool.scope(function(s)
      local child = s:spawn(forever)
      s:spawn(function()
        moonpool.sleep(0.002)
        n = n + 1
      end)
      moonpool.sleep(0)
      child:cancel()
    end)
    assert.equal(1, n)
  end)

  it("collects errors when asked", function()
    local errors, a, b = moonpool.scope(function(s)
      for i = 1, 3 do
        s:spawn(function() error("e" .. i, 0) end)
      end
      moonpool.sleep(0)
      return "a", "b"
    end, { on_error = "collect" })
    table.sort(errors)
    assert.same({ "e1", "e2", "e3" }, errors)
    assert.equal("ab", a .. b)
  end)

  it("ends quietly after scope:cancel()", function()
    assert.equal("rest", moonpool.scope(function(s)
      s:spawn(forever)
      s:cancel()
      return "rest"
    end))
    assert.equal(0, select("#", moonpool.scope(function(s)
      s:cancel()
      moonpool.sleep(1)
    end)))
  end)

  it("takes no task after its end", function()
    local leaked
    moonpool.scope(function(s) leaked = s end)
    assert.has_error(function() leaked:spawn(print) end)
  end)

  it("refuses wrong arguments by name", function()
    assert.has_error(function() moonpool.scope(1) end)
    assert.has_error(function() moonpool.scope(print, { deadline = -1 }) end)
    assert.has_error(function() moonpool.scope(print, { deadline = 0 / 0 }) end)
    assert.has_error(function() moonpool.scope(print, { on_error = "ignore" }) end)
    assert.has_error(function() moonpool.scope(print, { cancel_token = {} }) end)
    assert.has_error(function() moonpool.sleep(-1) end)
    assert.has_error(function() moonpool.sleep(0 / 0) end)
    assert.has_error(function() moonpool.timeout(-1, print) end)
  end)

  it("does not let a task await itself", function()
    moonpool.scope(function(s)
      local task
      task = s:spawn(function() return pcall(task.await, task) end)
      local ok, err = task:await()
      assert.is_false(ok)
      assert.matches("await itself", err)
    end)
  end)
end)

describe("nested scopes", function()
  it("are cancelled from outside, inner first closed", function()
    local log = {}
    pcall(moonpool.scope, function(outer)
      outer:spawn(function()
        local _ <close> = closer(log, "outer")
        moonpool.scope(function(inner)
          inner:spawn(function()
            local _ <close> = closer(log, "inner")
            forever()
          end)
          forever()
        end)
      end)
      moonpool.sleep(0.002)
      error "stop"
    end)
    assert.same({ "inner", "outer" }, log)
  end)

  it("inherit the earlier deadline", function()
    moonpool.scope(function()
      moonpool.scope(function(inner)
        assert.is_true(inner:deadline() <= 5)
        assert.is_true(core.deadline() <= 5)
        moonpool.scope(function(s) assert.is_true(s:deadline() <= 1) end, { deadline = 1 })
      end, { deadline = 100 })
      moonpool.shield(function() assert.is_nil(core.deadline()) end)
    end, { deadline = 5 })
  end)

  it("end by the outer deadline with the outer's error", function()
    local inner_err
    local ok, err = pcall(moonpool.scope, function()
      local _, e = pcall(moonpool.scope, forever, { deadline = 50 })
      inner_err = e
      error(e, 0)
    end, { deadline = 0.005 })
    assert.is_false(ok)
    assert.equal("total_timeout", err.kind)
    assert.equal("cancelled", inner_err.kind)
  end)
end)

describe("timeout", function()
  it("gives results or nil and total_timeout", function()
    assert.equal(3, select("#", moonpool.timeout(10, function(...) return ... end, 1, nil, nil)))
    local res, err = moonpool.timeout(0.002, forever)
    assert.is_nil(res)
    assert.equal("total_timeout", err.kind)
    assert.matches("^total_timeout: ", tostring(err))
  end)

  it("raises what the function raises", function()
    assert.has_error(function() moonpool.timeout(10, error, "x", 0) end, "x")
  end)

  it("does not overtake a function that was in time", function()
    assert.equal("ok", moonpool.timeout(0, function() return "ok" end))
  end)
end)

describe("cancellation", function()
  it("comes again at every wait however often it is caught", function()
    local times = 0
    moonpool.scope(function(s)
      local child = s:spawn(function()
        for _ = 1, 5 do
          local ok, err = pcall(forever)
          if not ok and err.kind == "cancelled" then
            times = times + 1
          end
        end
      end)
      moonpool.sleep(0)
      child:cancel()
    end)
    assert.equal(5, times)
  end)

  it("closes in the end a task that never stops waiting", function()
    local log = {}
    moonpool.scope(function(s)
      local child = s:spawn(function()
        local _ <close> = closer(log, "closed")
        while true do
          pcall(moonpool.sleep, 1)
        end
      end)
      moonpool.sleep(0)
      child:cancel()
    end)
    assert.same({ "closed" }, log)
  end)

  it("leaves a result that was already there", function()
    local got
    moonpool.scope(function(s)
      local ch = moonpool.channel(1)
      local child = s:spawn(function() got = ch:get() end)
      moonpool.sleep(0)
      ch:put("value")
      child:cancel()
    end)
    assert.equal("value", got)
  end)

  it("is kept out by shield, and raised after it", function()
    local log = {}
    moonpool.scope(function(s)
      local child = s:spawn(function()
        moonpool.shield(function()
          moonpool.sleep(0.005)
          log[#log + 1] = "shielded"
        end)
        moonpool.sleep(0)
        log[#log + 1] = "wrong"
      end)
      moonpool.sleep(0)
      child:cancel()
    end)
    assert.same({ "shielded" }, log)
  end)

  it("lets shield clean up in a task that is cancelled already", function()
    local cleaned
    moonpool.scope(function(s)
      local child = s:spawn(function()
        local ok, err = pcall(forever)
        moonpool.shield(function()
          moonpool.sleep(0.001)
          cleaned = true
        end)
        error(not ok and err, 0)
      end)
      moonpool.sleep(0)
      child:cancel()
    end)
    assert.is_true(cleaned)
  end)

  it("runs <close> handlers that wait before the cancellation is known", function()
    local log = {}
    pcall(moonpool.scope, function()
      local _ <close> = setmetatable({}, { __close = function()
        moonpool.sleep(0.001)
        log[#log + 1] = "waited"
      end })
      error "unwind"
    end)
    assert.same({ "waited" }, log)
  end)
end)

describe("cancel_token", function()
  it("ends every scope that carries it", function()
    local token = moonpool.cancel_token()
    assert.is_false(token:is_cancelled())
    local n = 0
    moonpool.scope(function(s)
      for _ = 1, 3 do
        s:spawn(function()
          local ok, err = pcall(moonpool.scope, forever, { cancel_token = token })
          if not ok and err.kind == "cancelled" then
            n = n + 1
          end
        end)
      end
      moonpool.sleep(0)
      token:cancel()
      token:cancel()
    end)
    assert.is_true(token:is_cancelled())
    assert.equal(3, n)
  end)

  it("is forgotten by scopes that ended", function()
    local token = moonpool.cancel_token()
    moonpool.scope(function() end, { cancel_token = token })
    collectgarbage()
    token:cancel()
    local ok, err = pcall(moonpool.scope, forever, { cancel_token = token })
    assert.is_false(ok)
    assert.equal("cancelled", err.kind)
  end)
end)

describe("deadlock", function()
  it("is an error, not a hang", function()
    if core.in_task() then
      return -- it would end the program, and this test with it
    end
    local ch = moonpool.channel(1)
    local ok, err = pcall(ch.get, ch)
    assert.is_false(ok)
    assert.matches("deadlock", tostring(err))
    ok, err = pcall(moonpool.scope, function(s)
      s:spawn(function() ch:get() end)
      ch:get()
    end)
    assert.is_false(ok)
    assert.matches("deadlock", tostring(err))
    assert.equal(1, moonpool.scope(function() moonpool.sleep(0) return 1 end))
  end)
end)

describe("a failed task", function()
  it("keeps the traceback of where it failed", function()
    local function deep_inside() error("here") end
    local _, err = pcall(moonpool.scope, function(s)
      s:spawn(function()
        moonpool.sleep(0)
        deep_inside()
      end)
    end)
    assert.matches("deep_inside", core.traceback_of(err))
    assert.is_nil(core.traceback_of("another"))
  end)
end)
