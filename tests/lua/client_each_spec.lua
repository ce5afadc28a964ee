-- client:embed_each: order, backpressure, a bounded window, leaving early, errors in their places.

local moonpool = require "moonpool"
local rig = require "client_rig"

local function counter(n)
  local state = { pulled = 0 }
  return function()
    if n and state.pulled >= n then return nil end
    state.pulled = state.pulled + 1
    return tostring(state.pulled)
  end, state
end

describe("embed_each", function()
  after_each(rig.close_all)

  it("gives batches in the order of the source with all rows in place", function()
    local server = rig.embedder(function(seen)
      moonpool.sleep(0.001 * (tonumber(seen.body.input[1]) * 13 % 7))
    end)
    local source = counter(503)
    local row = 1
    for b in rig.client(server):embed_each(source, { batch_size = 10, max_concurrent_requests = 8 }) do
      assert.equal(row, b.first)
      assert.is_true(b.ok)
      assert.equal(#b.items, b.count)
      assert.is_nil(rig.wrong_row(b.matrix and setmetatable({}, {
        __len = function() return b.count end,
        __index = function(_, i) return b.matrix:row(i) end }), b.items))
      for i, item in ipairs(b.items) do
        assert.equal(tostring(row + i - 1), item)
      end
      row = row + b.count
    end
    assert.equal(504, row)
    assert.equal(51, #server.log)
  end)

  it("takes a list, records with a field, and a function that finds the text", function()
    local client = rig.client(rig.embedder())
    local seen = {}
    for b in client:embed_each({ "1", "2", "3" }, { batch_size = 2 }) do
      seen[#seen + 1] = b.matrix:row(1)[1]
    end
    assert.same({ 1, 3 }, seen)
    for b in client:embed_each({ { text = "4", id = 1 } }) do
      assert.same({ 4, -4, 0.5 }, b.matrix:row(1):totable())
      assert.equal(1, b.items[1].id)
    end
    for b in client:embed_each({ { body = "5" } }, { field = "body" }) do
      assert.equal(5, b.matrix:row(1)[1])
    end
    for b in client:embed_each({ { n = 6 } }, { text = function(item) return tostring(item.n) end }) do
      assert.equal(6, b.matrix:row(1)[1])
    end
  end)

  it("gives nothing for an empty source", function()
    local client = rig.client(rig.embedder())
    for _ in client:embed_each({}) do error "a batch" end
    for _ in client:embed_each(function() end) do error "a batch" end
  end)

  it("pulls no more than its window ahead of a slow consumer", function()
    local server = rig.embedder()
    local source, state = counter()
    local taken = 0
    for b in rig.client(server):embed_each(source, { batch_size = 5, max_concurrent_requests = 4 }) do
      taken = taken + b.count
      moonpool.sleep(0.002)
      assert.is_true(state.pulled - taken <= 20)
      if taken >= 200 then break end
    end
    assert.is_true(#server.log <= 45)
  end)

  it("keeps as many requests in flight as it may, and no more", function()
    local now, most = 0, 0
    local server = rig.embedder(function()
      now = now + 1
      most = math.max(most, now)
      moonpool.sleep(0.01)
      now = now - 1
    end)
    for _ in rig.client(server):embed_each(counter(100), { batch_size = 2, max_concurrent_requests = 6 }) do end -- luacheck: ignore
    assert.equal(6, most)
  end)

  it("cancels what is in flight when the loop is left", function()
    local cancelled, started = 0, 0
    local server = rig.embedder(function(seen)
      if seen.body.input[1] == "1" then return end
      started = started + 1
      local ok, err = pcall(moonpool.sleep, 60)
      if not ok then
        cancelled = cancelled + 1
        error(err, 0)
      end
    end)
    local client = rig.client(server)
    rig.within(10, function()
      for _ in client:embed_each(counter(), { batch_size = 1, max_concurrent_requests = 5 }) do break end -- luacheck: ignore
      rig.until_true("the server sees them go", function() return started > 0 and cancelled == started end)
    end)
    assert.equal(0, client:stats().in_flight)
  end)

  it("cancels them too when the body raises", function()
    local server = rig.embedder(function(seen) if seen.body.input[1] ~= "1" then moonpool.sleep(60) end end)
    local client = rig.client(server)
    assert.has_error(function()
      for _ in client:embed_each(counter(), { batch_size = 1, max_concurrent_requests = 3 }) do
        error("mine", 0)
      end
    end, "mine")
    rig.until_true("they are gone", function()
      return server:stats().connections_now == 0 or client:stats().in_flight == 0
    end)
  end)

  it("keeps the places of rows that fail", function()
    local server = rig.embedder(function(seen)
      for _, text in ipairs(seen.body.input) do
        if text == "7" then return { status = 401, json = {} } end
      end
    end)
    local items = { "1", { text = 5 }, "3", "4\xff", "5", "6", "7", "8", "9" }
    local failed, good = {}, {}
    for b in rig.client(server):embed_each(items, { batch_size = 3 }) do
      for _, e in ipairs(b.errors) do failed[b.first + e.index - 1] = e.error.kind end
      for i = 1, b.count do
        local v = b.matrix and b.matrix:row(i)[1]
        if v == v and v then good[b.first + i - 1] = v end
      end
      assert.equal(#b.errors == 0, b.ok)
    end
    assert.same({ [2] = "invalid", [4] = "invalid", [7] = "http", [8] = "http", [9] = "http" }, failed)
    assert.same({ [1] = 1, [3] = 3, [5] = 5, [6] = 6 }, good)
  end)

  it("lets the source wait, and raises what the source raises", function()
    local client = rig.client(rig.embedder())
    local source = counter(30)
    local rows = 0
    for b in client:embed_each(function() moonpool.sleep(0.001) return source() end, { batch_size = 4 }) do
      rows = rows + b.count
    end
    assert.equal(30, rows)
    assert.has_error(function()
      for _ in client:embed_each(function() error("source", 0) end) do end -- luacheck: ignore
    end, "source")
  end)

  it("gives batches as they end with ordered = false, each once", function()
    local server = rig.embedder(function(seen) if seen.body.input[1] == "1" then moonpool.sleep(0.05) end end)
    local seen, first = {}, nil
    local options = { batch_size = 5, max_concurrent_requests = 4, ordered = false }
    for b in rig.client(server):embed_each(counter(60), options) do
      first = first or b.first
      for i, item in ipairs(b.items) do
        assert.is_nil(seen[item])
        seen[item] = true
        assert.equal(tonumber(item), b.matrix:row(i)[1])
      end
    end
    for i = 1, 60 do assert.is_true(seen[tostring(i)]) end
    assert.is_true(first ~= 1)
  end)

  it("refuses unknown options and what is no source at once", function()
    local client = rig.client(rig.dead_url())
    assert.has_error(function() client:embed_each(5) end)
    assert.has_error(function() client:embed_each({ "a" }, { batchsize = 1 }) end)
    assert.has_error(function() client:embed_each({ "a" }, { batch_size = 0 }) end)
    assert.has_error(function() client:embed_each({ "a" }, { max_concurrent_requests = -1 }) end)
  end)

  it("ends with the error when the client is closed or the token cancelled", function()
    local client = rig.client(rig.embedder(function() moonpool.sleep(60) end))
    local ok, err = rig.within(10, function()
      return moonpool.scope(function(s)
        s:spawn(function() moonpool.sleep(0.01) client:close() end)
        return pcall(function() for _ in client:embed_each(counter(), { batch_size = 1 }) do end end) -- luacheck: ignore
      end)
    end)
    assert.is_false(ok)
    assert.equal("closed", err.kind)
    local token = moonpool.cancel_token()
    client = rig.client(rig.embedder(function() moonpool.sleep(60) end))
    ok, err = rig.within(10, function()
      return moonpool.scope(function(s)
        s:spawn(function() moonpool.sleep(0.01) token:cancel() end)
        return pcall(function() for _ in client:embed_each(counter(), { batch_size = 1, cancel_token = token }) do end end) -- luacheck: ignore
      end)
    end)
    assert.is_false(ok)
    assert.equal("cancelled", err.kind)
  end)
end)
