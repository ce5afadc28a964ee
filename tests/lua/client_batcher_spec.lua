-- client:batcher: many tasks' texts in few requests, each caller its own rows and its own fate.

local moonpool = require "moonpool"
local rig = require "client_rig"

after_each(rig.close_all)

-- A server that holds each request until release() is called once for it; then answers by the rig.
local function held(hook)
  local gate = moonpool.semaphore(1000)
  for _ = 1, 1000 do gate:acquire() end
  local up = rig.serve(function(seen, n)
    gate:acquire()
    local reply = hook and hook(seen, n)
    return reply or { json = rig.embeddings(seen.body.input) }
  end)
  return up, function() gate:release() end
end

local function sizes(up)
  local list = {}
  for i, seen in ipairs(up.log) do list[i] = #seen.body.input end
  return list
end

describe("client:batcher", function()
  it("sends at once while a slot is free and gathers while all are busy", function()
    local up, release = held()
    local b = rig.keep(rig.client(up):batcher { slots = 2 })
    local results = {}
    moonpool.scope(function(scope)
      local function ask(i)
        scope:spawn(function() results[i] = assert(b:embed(tostring(i), { model = "m" })) end)
      end
      ask(1)
      rig.until_true("the first is there", function() return #up.log == 1 end)
      ask(2)
      rig.until_true("the second is there", function() return #up.log == 2 end)
      for i = 3, 9 do ask(i) end
      moonpool.sleep(0)
      assert.equal(2, #up.log)
      release()
      rig.until_true("the gathered are there", function() return #up.log == 3 end)
      release()
      release()
    end)
    assert.same({ 1, 1, 7 }, sizes(up))
    for i = 1, 9 do
      assert.equal(1, #results[i])
      assert.same(rig.vector(tostring(i)), results[i][1]:totable())
    end
    local stats = b:stats()
    assert.equal(9, stats.submissions)
    assert.equal(9, stats.request_rows)
    assert.equal(3, stats.requests)
    assert.equal(7, stats.largest)
  end)

  it("shares the usage out so that it sums exactly", function()
    local up, release = held(function(seen)
      local doc = rig.embeddings(seen.body.input)
      doc.usage = { prompt_tokens = 101, total_tokens = 103 }
      return { json = doc }
    end)
    local b = rig.keep(rig.client(up):batcher { slots = 1 })
    local prompt, total = 0, 0
    moonpool.scope(function(scope)
      scope:spawn(function() b:embed "0" end)
      rig.until_true("one is there", function() return #up.log == 1 end)
      for i = 1, 7 do
        scope:spawn(function()
          local res = assert(b:embed(("%d "):rep(i):format(i, i, i, i, i, i, i)))
          prompt, total = prompt + res.usage.prompt_tokens, total + res.usage.total_tokens
        end)
      end
      moonpool.sleep(0)
      release()
      release()
    end)
    assert.same({ 1, 7 }, sizes(up))
    assert.equal(101, prompt)
    assert.equal(103, total)
  end)

  it("joins only what the service can answer alike", function()
    local up, release = held()
    local b = rig.keep(rig.client(up):batcher { slots = 1 })
    moonpool.scope(function(scope)
      scope:spawn(function() b:embed("0", { model = "a" }) end)
      rig.until_true("one is there", function() return #up.log == 1 end)
      for _, opts in ipairs {
        { model = "a" }, { model = "a" }, { model = "b" }, { model = "a", user = "u" }, { model = "b" },
      } do
        scope:spawn(function() assert(b:embed("1", opts)) end)
      end
      moonpool.sleep(0)
      for _ = 1, 4 do release() end
    end)
    table.sort(up.log, function(x, y) return x.n < y.n end)
    local seen = {}
    for i = 2, #up.log do
      local body = up.log[i].body
      seen[#seen + 1] = body.model .. (body.user or "") .. #body.input
    end
    table.sort(seen)
    assert.same({ "a2", "au1", "b2" }, seen)
  end)

  it("lets one caller's bad text fail that caller only", function()
    local up, release = held(function(seen)
      for _, text in ipairs(seen.body.input) do
        if text == "666" then
          return { status = 400, json = { error = { message = "no such number" } } }
        end
      end
    end)
    local b = rig.keep(rig.client(up, { retry = rig.quick }):batcher { slots = 1 })
    local good, bad = 0, nil
    moonpool.scope(function(scope)
      scope:spawn(function() b:embed "0" end)
      rig.until_true("one is there", function() return #up.log == 1 end)
      for _, text in ipairs { "1", "2", "666", "3", "4" } do
        scope:spawn(function()
          local res, err = b:embed(text)
          if res then
            good = good + 1
            assert.same(rig.vector(text), res[1]:totable())
          else
            bad = err
          end
        end)
      end
      moonpool.sleep(0)
      for _ = 1, 20 do release() end
    end)
    assert.equal(4, good)
    assert.equal(400, bad.status)
  end)

  it("drops a row that is cancelled before it is sent, and keeps the others' request", function()
    local up, release = held()
    local b = rig.keep(rig.client(up):batcher { slots = 1 })
    local token = moonpool.cancel_token()
    local other, cancelled, late
    moonpool.scope(function(scope)
      scope:spawn(function() b:embed "0" end)
      rig.until_true("one is there", function() return #up.log == 1 end)
      scope:spawn(function() other = assert(b:embed { "1", "2" }) end)
      scope:spawn(function() cancelled = select(2, b:embed("3", { cancel_token = token })) end)
      scope:spawn(function() late = select(2, b:embed("4", { timeout = 0.01 })) end)
      rig.until_true("the late one is late", function() return late end)
      token:cancel()
      rig.until_true("the cancelled one is cancelled", function() return cancelled end)
      release()
      release()
    end)
    assert.equal("cancelled", cancelled.kind)
    assert.equal("total_timeout", late.kind)
    assert.same({ 1, 2 }, sizes(up))
    assert.equal(2, #other)
    assert.equal(2, b:stats().dropped)
  end)

  it("ends a call with the task that made it", function()
    local up, release = held()
    local b = rig.keep(rig.client(up):batcher { slots = 1 })
    moonpool.scope(function(scope)
      scope:spawn(function() b:embed "0" end)
      rig.until_true("one is there", function() return #up.log == 1 end)
      local task = scope:spawn(function() b:embed "1" end)
      moonpool.sleep(0)
      task:cancel()
      moonpool.sleep(0)
      release()
    end)
    assert.same({ 1 }, sizes(up))
  end)

  it("says what is wrong with its arguments, and is closed once", function()
    local up = rig.embedder()
    local client = rig.client(up)
    assert.has_error(function() client:batcher { slots = 0 } end)
    assert.has_error(function() client:batcher { slot = 1 } end)
    local b = client:batcher()
    for _, bad in ipairs { 3, {}, true } do
      assert.has_error(function() b:embed(bad) end)
    end
    assert.has_error(function() b:embed({ "a", 3 }) end)
    assert.has_error(function() b:embed("a", { priority = 2 }) end)
    assert.has_error(function() b:embed("a", { modell = "x" }) end)
    assert.equal(1, #assert(b:embed "1"))
    b:close()
    b:close()
    assert.equal("closed", select(2, b:embed "1").kind)
    assert.matches("closed", tostring(b))
  end)
end)
