-- The pipeline under embed_each: a source that waits holds nothing up, half batches are flushed, what
-- is held is bounded, and everything ends when the loop does. Each test runs outside a task and in one.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local pipeline = require "moonpool.client.pipeline"
local rig = require "client_rig"

-- A pipeline whose batches need no work but what `o` says.
local function new(o)
  o.new = o.new or function() return {} end
  o.add = o.add or function() end
  o.wait = o.wait or function(batch) return #batch.items end
  o.size, o.window = o.size or 2, o.window or 3
  if o.flush_interval == nil then o.flush_interval = false end
  return pipeline.new(o)
end

local function numbers(n)
  local state = { pulled = 0 }
  return function()
    if n and state.pulled >= n then return nil end
    state.pulled = state.pulled + 1
    return state.pulled
  end, state
end

-- A source that gives what is put, and waits for it meanwhile.
local function tap()
  local items, more, ended = {}, core.waitlist(), false
  local self = { waiting = 0 }
  function self.put(...)
    for _, item in ipairs { ... } do items[#items + 1] = item end
    more:wake()
  end
  function self.finish()
    ended = true
    more:wake()
  end
  function self.next()
    while #items == 0 and not ended do
      self.waiting = self.waiting + 1
      more:wait()
      self.waiting = self.waiting - 1
    end
    return table.remove(items, 1)
  end
  return self
end

local function all(p)
  local items = {}
  for batch in function() return p:take() end do
    assert.equal(#items + 1, batch.first)
    table.move(batch.items, 1, batch.count, #items + 1, items)
  end
  return items
end

for _, where in ipairs { "outside a task", "in a task" } do
  local function test(name, fn)
    it(name .. ", " .. where, function()
      if where == "in a task" then
        assert(moonpool.timeout(20, function()
          fn()
          return true
        end))
      else
        fn()
      end
    end)
  end

  describe("pipeline", function()
    test("gives all items in order", function()
      for _, n in ipairs { 0, 1, 2, 3, 1000 } do
        local p = new { next_item = numbers(n) }
        local items = all(p)
        assert.equal(n, #items)
        for i = 1, n do assert.equal(i, items[i]) end
        assert.is_nil(p:take())
      end
    end)

    test("gives a finished batch while its source waits", function()
      local source = tap()
      local p = new { next_item = source.next, size = 2, window = 8 }
      source.put(1, 2, 3)
      assert.same({ 1, 2 }, p:take().items)
      source.put(4)
      assert.same({ 3, 4 }, p:take().items)
      source.put(5)
      source.finish()
      assert.same({ 5 }, p:take().items)
      assert.is_nil(p:take())
    end)

    test("sends a half batch when the source has gone quiet", function()
      local source = tap()
      local p = new { next_item = source.next, size = 10, flush_interval = 0.01 }
      for i = 1, 30 do -- the task of the flusher rests and wakes
        source.put(i)
        assert.same({ i }, p:take().items)
      end
      source.put(31, 32)
      assert.same({ 31, 32 }, p:take().items)
      p:close()
    end)

    test("keeps a half batch back without a flush interval", function()
      local source = tap()
      local p = new { next_item = source.next, size = 3, flush_interval = false }
      source.put(1)
      moonpool.scope(function(s)
        s:spawn(function()
          moonpool.sleep(0.02)
          source.put(2, 3)
        end)
        assert.same({ 1, 2, 3 }, p:take().items)
        p:close()
      end)
    end)

    test("does not flush batches that are full in time", function()
      local sizes = {}
      local p = new { next_item = numbers(100), size = 10, flush_interval = 60 }
      for batch in function() return p:take() end do sizes[#sizes + 1] = batch.count end
      assert.same({ 10, 10, 10, 10, 10, 10, 10, 10, 10, 10 }, sizes)
    end)

    test("holds no more than its window, flushed batches included", function()
      local source, started = tap(), 0
      local p = new {
        next_item = source.next, size = 4, window = 2, flush_interval = 0.001,
        start = function() started = started + 1 end,
      }
      for i = 1, 6 do source.put(i) end
      local taken = p:take()
      assert.same({ 1, 2, 3, 4 }, taken.items)
      for i = 7, 40 do source.put(i) end
      moonpool.sleep(0.02)
      assert.is_true(started <= 3, started) -- one taken, two held
      source.finish()
      assert.equal(36, #all(setmetatable({ take = function(self)
        local batch = p:take()
        if batch then batch.first = batch.first - 4 end
        return batch, self
      end }, nil)))
    end)

    test("asks the source for no more than it may hold", function()
      local source, state = numbers()
      local p = new { next_item = source, size = 5, window = 4 }
      for k = 1, 50 do
        p:take()
        moonpool.sleep(0)
        assert.is_true(state.pulled - 5 * k <= 20)
      end
      p:close()
    end)

    test("changes tasks once a batch and not once an item", function()
      local turns, at, stop = 0, 0, false
      local source = numbers(10000)
      local function next_item()
        local i = source()
        if i and i % 1000 == 1 then at = turns end
        assert.equal(at, i and turns or at)
        return i
      end
      local scope <close> = core.open_scope()
      scope:spawn(function()
        while not stop do
          turns = turns + 1
          moonpool.sleep(0)
        end
      end)
      assert.equal(10000, #all(new { next_item = next_item, size = 1000, window = 10 }))
      stop = true
    end)

    test("goes on feeding while finished batches are taken", function()
      local source, state = numbers(1000)
      local p = new {
        next_item = source, size = 1, window = 10,
        wait = function(batch) if batch.first == 1 then moonpool.sleep(0.01) end end,
      }
      for k = 1, 900 do
        p:take()
        assert.is_true(state.pulled >= k + 4, "the queue ran dry")
      end
      p:close()
    end)

    test("gives what was read before the source raised, then raises the same", function()
      local reason = { "a table" }
      local n = 0
      local p = new { next_item = function()
        n = n + 1
        if n == 4 then error(reason, 0) end
        return n
      end }
      assert.same({ 1, 2 }, p:take().items)
      assert.same({ 3 }, p:take().items)
      local ok, err = pcall(p.take, p)
      assert.is_false(ok)
      assert.equal(reason, err)
      assert.is_nil(p:take())
    end)

    test("stops where a batch cannot be started", function()
      local cancelled = {}
      local p = new {
        next_item = numbers(), size = 1, window = 5,
        start = function(batch) if batch.items[1] == 3 then error("no third", 0) end end,
        cancel = function(batch) cancelled[#cancelled + 1] = batch.items[1] end,
      }
      assert.same({ 1 }, p:take().items)
      assert.same({ 2 }, p:take().items)
      assert.has_error(function() p:take() end, "no third")
      assert.same({}, cancelled)
    end)

    test("lets start wait, and keeps the order", function()
      local p = new {
        next_item = numbers(20), size = 1, window = 4, flush_interval = 0.001,
        start = function(batch) if batch.items[1] % 5 == 1 then moonpool.sleep(0.003) end end,
      }
      assert.equal(20, #all(p))
    end)

    test("gives batches as they end when order does not matter", function()
      local seen, first = {}, nil
      local p = new {
        next_item = numbers(40), size = 2, window = 5, ordered = false,
        wait = function(batch)
          if batch.first == 1 then moonpool.sleep(0.02) end
          return batch.first
        end,
      }
      for batch, value in function() return p:take() end do
        assert.equal(batch.first, value)
        first = first or value
        for _, item in ipairs(batch.items) do
          assert.is_nil(seen[item])
          seen[item] = true
        end
      end
      assert.equal(40, #seen)
      assert.is_true(first ~= 1)
    end)

    test("works on batches in tasks of their own, in order", function()
      local now, most = 0, 0
      local p = new {
        next_item = numbers(30), size = 1, window = 6, tasks = true,
        wait = function(batch)
          now = now + 1
          most = math.max(most, now)
          moonpool.sleep(0.001 * (batch.first * 7 % 5))
          now = now - 1
          if batch.first == 29 then error("the 29th", 0) end
        end,
      }
      for i = 1, 28 do assert.equal(i, p:take().first) end
      assert.has_error(function() p:take() end, "the 29th")
      p:close()
      assert.is_true(most >= 3 and most <= 6, most)
    end)

    -- A source of one item that then waits, and tells how often it was left.
    local function stuck()
      local state = { calls = 0, left = 0 }
      return function()
        local _ <close> = setmetatable({}, { __close = function() state.left = state.left + 1 end })
        state.calls = state.calls + 1
        if state.calls > 1 then moonpool.sleep(60) end
        return 1
      end, state
    end

    test("ends its tasks when it is closed", function()
      local source, state = stuck()
      local p = new { next_item = source, size = 1, flush_interval = 0.01 }
      p:take()
      rig.until_true("the source waits", function() return state.calls == 2 end)
      p:close()
      assert.equal(2, state.left)
      p:close()
      assert.is_nil(p:take())
    end)

    test("ends when its iterator is dropped", function()
      local source, state = stuck()
      local function begin()
        local p = new { next_item = source, size = 1, flush_interval = 0.01 }
        local guard = p:guard()
        assert.same({ 1 }, guard.pipeline:take().items)
        rig.until_true("the source waits", function() return state.calls == 2 end)
      end
      moonpool.scope(function()
        begin()
        collectgarbage()
      end)
      assert.equal(2, state.left)
    end)
  end)
end

describe("embed_each with a slow source", function()
  after_each(rig.close_all)

  it("delivers rows while the source says nothing", function()
    local client = rig.client(rig.embedder())
    local source = tap()
    local rows = 0
    source.put("1", "2")
    for b in client:embed_each(source.next, { flush_interval = 0.01 }) do
      rows = rows + b.count
      assert.equal(rows - b.count + 1, b.first)
      assert.equal(rows, b.matrix:row(b.count)[1])
      if rows == 2 then source.put("3") end
      if rows == 3 then source.put("4", "5") end
      if rows == 5 then source.finish() end
    end
    assert.equal(5, rows)
  end)

  it("reads a pipe as it comes", function()
    local client = rig.client(rig.embedder())
    local fifo = os.tmpname()
    os.remove(fifo)
    assert(os.execute("mkfifo " .. fifo))
    local pipe <close> = assert(io.popen(("echo 1; echo 2; read x <%s; echo 3"):format(fifo), "r"))
    local lines <close> = core.open_lines(pipe)
    local rows = 0
    assert(rig.within(20, function()
      for b in client:embed_each(function() return (lines:read()) end, { flush_interval = 0.01 }) do
        rows = rows + b.count
        if rows == 2 then
          local other <close> = assert(io.open(fifo, "w"))
          other:write "go on\n"
        end
      end
      return true
    end))
    os.remove(fifo)
    assert.equal(3, rows)
  end)

  it("gives the rows before an error of the source", function()
    local client = rig.client(rig.embedder())
    local n, rows = 0, 0
    local ok, err = pcall(function()
      local function next_text()
        n = n + 1
        if n == 8 then error("torn", 0) end
        return tostring(n)
      end
      for b in client:embed_each(next_text, { batch_size = 3 }) do rows = rows + b.count end
    end)
    assert.is_false(ok)
    assert.equal("torn", err)
    assert.equal(7, rows)
  end)

  it("refuses senseless options before the source is touched, at the caller's line", function()
    local client = rig.client(rig.dead_url())
    local function source() error "touched" end
    for _, opts in ipairs { { flush_interval = 0 }, { flush_interval = "soon" }, { field = 5 },
      { dimensions = -1 } } do
      local ok, err = pcall(function()
        client:embed_each(source, opts)
      end)
      assert.is_false(ok)
      assert.matches("each_spec.lua:%d+: embed", err)
    end
    client:embed_each(source, { flush_interval = false })
  end)

  it("runs with a consumer that makes calls of its own", function()
    local client = rig.client(rig.embedder())
    local rows = 0
    for b in client:embed_each(rig.texts(40), { batch_size = 4, max_concurrent_requests = 2 }) do
      assert.equal(7, assert(client:embed { input = "7" }).matrix:row(1)[1])
      rows = rows + b.count
    end
    assert.equal(40, rows)
  end)
end)
