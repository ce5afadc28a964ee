-- Hooks that err: the default decision is taken, it is counted, and nothing else comes to harm.

local moonpool = require "moonpool"
local rig = require "client_rig"
local policy_rig = require "policy_rig"

local script = policy_rig.script

local function error_reply(status)
  return { status = status, json = { error = { message = "no" } } }
end

local function embed(client, o)
  o = o or {}
  o.input = o.input or { "1", "2" }
  return rig.within(30, client.embed, client, o)
end

describe("a hook that errs", function()
  after_each(rig.close_all)

  -- Every hook at once, each with the same fault.
  local function all_of(fn)
    local o = { hedge = { delay = 5, hook = fn } }
    for _, name in ipairs {
      "classify", "retry", "route", "concurrency", "breaker", "rate", "batch", "estimate_tokens",
      "before_request", "after_response", "on_giveup",
    } do
      o[name] = fn
    end
    return o
  end

  local function two_endpoints(o)
    local a, b = script { error_reply(503) }, script { error_reply(503) }
    o.endpoints = { { base_url = a.url }, { base_url = b.url } }
    o.retry = { base = 0.001, hook = o.retry }
    return rig.keep(moonpool.client(o)), a, b
  end

  it("raising: the call ends as without it", function()
    local client, a, b = two_endpoints(all_of(function() error("on purpose") end))
    local res = assert(embed(client))
    assert.is_nil(rig.wrong_row(res, { "1", "2" }))
    assert.equal(3, #a.log + #b.log)
    local hooks = policy_rig.hooks(client)
    assert.equal(hooks.calls, hooks.errors)
    assert.equal(0, hooks.bad_verdicts + hooks.stopped)
    for _, name in ipairs {
      "classify", "retry", "hedge", "route", "concurrency", "breaker", "rate", "batch", "estimate_tokens",
      "before_request", "after_response",
    } do
      assert.truthy(hooks[name].errors > 0, name)
    end
    assert.truthy(hooks.last_error:find "on purpose")
  end)

  it("raising what is no text", function()
    local values = { {}, setmetatable({}, { __tostring = function() error "no" end }), true, 5,
      moonpool.error("http", "an error table") }
    for i = 1, 6 do
      local client = rig.client(rig.embedder(), { classify = function() error(values[i]) end })
      assert(embed(client))
      assert.equal(1, policy_rig.hooks(client).errors)
    end
  end)

  it("a stack overflow", function()
    local function deep() return 1 + deep() end
    local client = rig.client(rig.embedder(), { classify = deep })
    assert(embed(client))
    assert(embed(client))
    local hooks = policy_rig.hooks(client)
    assert.equal(2, hooks.errors + hooks.stopped) -- a million slots take their time
  end)

  it("nonsense for a verdict", function()
    for _, value in ipairs { {}, "nonsense", function() end, -1, 0 / 0, math.huge } do
      local client = two_endpoints(all_of(function() return value end))
      local res = assert(embed(client))
      assert.is_nil(rig.wrong_row(res, { "1", "2" }))
      local hooks = policy_rig.hooks(client)
      assert.truthy(hooks.bad_verdicts > 5)
      assert.equal(0, hooks.errors)
    end
  end)

  it("a view that was kept raises, in later hooks too", function()
    local kept, method, said = nil, nil, {}
    local client = rig.client(rig.embedder(), {
      classify = function(view)
        if kept then
          said[1], said[2] = pcall(function() return kept.status end)
          said[3], said[4] = pcall(method, kept, "content-type")
        end
        kept, method = kept or view, view.header
      end,
    })
    assert(embed(client))
    local ok, why = pcall(function() return kept.status end)
    assert.is_false(ok)
    assert.truthy(why:find "only while its hook runs")
    assert(embed(client))
    assert.is_false(said[1])
    assert.truthy(said[2]:find "only while its hook runs")
    assert.is_false(said[3])
    client:close()
    kept = setmetatable({ kept }, { __gc = function(t) pcall(function() return t[1].status end) end })
  end)

  it("a view is read-only, knows its fields and hides what it is", function()
    local ok, said = {}, {}
    local client = rig.client(rig.embedder(), { classify = function(view)
      ok[1], said[1] = pcall(function() view.status = 1 end)
      ok[2], said[2] = pcall(function() return view.staus end)
      ok[3], said[3] = pcall(setmetatable, view, {})
      ok[4], said[4] = pcall(view.load, view, 9)
      ok[5], said[5] = pcall(view.row, view, 3)
      ok[6], said[6] = pcall(view.header, {}, "x")
      said[7] = getmetatable(view)
      said[8] = tostring(view)
    end })
    assert(embed(client))
    assert.same({ false, false, false, false, false, false }, ok)
    assert.truthy(said[1]:find "read%-only")
    assert.truthy(said[2]:find "no field 'staus'")
    assert.truthy(said[4]:find "no such endpoint")
    assert.truthy(said[5]:find "no such row")
    assert.truthy(said[6]:find "view expected")
    assert.is_false(said[7])
    assert.equal("moonpool.view", said[8])
  end)

  it("waiting raises, and says why", function()
    local said = {}
    local client
    client = rig.client(rig.embedder(), { classify = function()
      for i, fn in ipairs {
        function() moonpool.sleep(0.01) end,
        function() moonpool.scope(function() end) end,
        function() client:embed { input = { "3" } } end,
        function() coroutine.yield() end,
        function() moonpool.client({ base_url = "http://127.0.0.1:1" }):request { path = "/" } end,
        function() moonpool.exit(1) end,
      } do
        local ok, why = pcall(fn)
        said[i] = not ok and tostring(why) or "no error"
      end
    end })
    assert(embed(client))
    assert.truthy(said[1]:find "cannot wait inside a policy hook")
    assert.truthy(said[2]:find "cannot wait inside a policy hook")
    assert.truthy(said[3]:find "cannot start a call")
    assert.truthy(said[4]:find "outside a coroutine" or said[4]:find "yield")
    assert.truthy(said[5]:find "cannot start a call")
    assert.truthy(said[6]:find "cannot end the program")
    -- In a task too, where others can wait.
    moonpool.scope(function(scope)
      scope:spawn(function() assert(embed(client)) end)
    end)
    assert.truthy(said[1]:find "cannot wait inside a policy hook")
  end)

  it("may cancel calls and close the client: they end behind it", function()
    local client
    local token = moonpool.cancel_token()
    client = rig.client(script { error_reply(500) }, { retry = function()
      token:cancel()
      return "retry", 5
    end })
    local _, err = embed(client, { cancel_token = token })
    assert.equal("cancelled", err.kind)

    client = rig.client(script { error_reply(500) }, { retry = function()
      client:close()
      return "retry", 5
    end })
    _, err = embed(client)
    assert.equal("closed", err.kind)
  end)

  it("may collect garbage that cancels calls when it goes", function()
    local core = require "moonpool.core"
    local stalled = rig.serve(function() moonpool.sleep(60) end)
    local idle = rig.client(stalled)
    local state = require("moonpool.client.client").state(idle)
    local spec = require("moonpool.client.embed").spec(idle, { input = { "1" } })
    local client = rig.client(rig.embedder(), { classify = function()
      core.call_start_kept = nil
      collectgarbage()
      collectgarbage()
    end })
    core.call_start_kept = core.call_start(state.core, spec)
    rig.until_true("it is under way", function() return #stalled.log == 1 end)
    assert(embed(client))
    rig.until_true("it was cancelled", function() return idle:stats().in_flight == 0 end)
  end)

  it("a client that is collected while its calls run asks nobody any more", function()
    local server = rig.embedder(function(_, n)
      if n == 1 then moonpool.sleep(0.05) end
    end)
    local asked = 0
    moonpool.scope(function(scope)
      scope:spawn(function()
        local client = moonpool.client { base_url = server.url, classify = function() asked = asked + 1 end }
        client:embed { input = { "1" } }
      end)
      moonpool.sleep(0.01)
      collectgarbage()
      collectgarbage()
    end)
    assert.truthy(asked <= 1)
    collectgarbage()
  end)

  it("functions and clients that hold each other are collected", function()
    local gone = setmetatable({}, { __mode = "k" })
    do
      local client
      client = moonpool.client { base_url = "http://127.0.0.1:1", classify = function() return client end }
      gone[client] = true
      client:close()
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(gone))
  end)
end)

describe("a hook that takes too long", function()
  after_each(rig.close_all)

  -- What spins and how: each must end, and the call with it.
  local spins = {
    ["an empty loop"] = function() while true do end end,
    ["a loop of pcalls"] = function() while true do pcall(function() while true do end end) end end,
    ["pcalls in pcalls"] = function()
      local function nest(n)
        while true do pcall(n > 0 and nest or error, n - 1) end
      end
      nest(5)
    end,
    ["a coroutine"] = function()
      coroutine.wrap(function() while true do end end)()
    end,
    ["coroutines in coroutines that catch"] = function()
      local function nest(n)
        while true do coroutine.resume(coroutine.create(n > 0 and nest or error), n - 1) end
      end
      nest(3)
    end,
    ["coroutines whose end is good"] = function()
      local function spin() pcall(function() while true do end end) end
      while true do coroutine.wrap(spin)() end
    end,
    ["the text of its error"] = function()
      error(setmetatable({}, { __tostring = function() while true do end end }))
    end,
    ["one that allocates"] = function()
      local t = {}
      while true do t = { t } if #t > 1 then break end t = {} end
    end,
  }
  -- ThreadSanitizer delivers a signal at the next call into the C library, and these make none.
  if os.getenv "MOONPOOL_SANITIZED" == "thread" then
    for _, name in ipairs { "an empty loop", "a loop of pcalls", "a coroutine",
      "coroutines whose end is good", "the text of its error" } do
      spins[name] = nil
    end
  end
  for name, fn in pairs(spins) do
    it("is stopped: " .. name, function()
      local client = rig.client(rig.embedder(), { classify = fn })
      local began = moonpool.now()
      assert(embed(client))
      assert.truthy(moonpool.now() - began < 10)
      local hooks = policy_rig.hooks(client)
      assert.equal(1, hooks.stopped)
      assert.equal(1, hooks.slow)
      assert.equal(0, hooks.errors)
      assert.truthy(hooks.last_error:find "stopped")
      -- The next ones run as if nothing had been, and no debug hook stays behind.
      local n = 0
      assert(embed(client, { classify = function()
        for i = 1, 1000 do n = n + i end
        assert(not debug.gethook())
      end }))
      assert.equal(500500, n)
      hooks = policy_rig.hooks(client)
      assert.equal(1, hooks.stopped)
      assert.equal(0, hooks.errors)
    end)
  end

  it("is counted as slow when it comes to an end by itself, and its verdict holds", function()
    local server = script { error_reply(404) }
    local client = rig.client(server, { retry = function()
      local stop = moonpool.now() + 0.02
      repeat until moonpool.now() > stop
      return true, 0
    end })
    assert(embed(client))
    local hooks = policy_rig.hooks(client)
    assert.equal(1, hooks.retry.slow)
    assert.equal(0, hooks.stopped)
    assert.equal(2, #server.log)
    assert.truthy(hooks.time >= 0.02)
  end)
end)

describe("the log of hooks", function()
  it("has one line a minute, with the number of the others", function()
    local text = policy_rig.output_of [[
      local moonpool = require "moonpool"
      local mock = assert(moonpool.mock { dim = 4 })
      local client = moonpool.client { base_url = mock.url, classify = function() error("on purpose", 0) end }
      for i = 1, 5 do assert(client:embed { input = { "a" } }) end
      assert(client:stats().hooks.errors == 5)
    ]]
    local _, lines = text:gsub("hook classify: on purpose", "")
    assert.equal(1, lines, text)
  end)
end)
