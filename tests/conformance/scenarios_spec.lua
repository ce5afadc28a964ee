-- C50-C58: a server that throttles, fails and stalls, with counters. Stalls last a minute here, so a
-- client that waits for one instead of hedging, giving up or cancelling runs into the guard.

local moonpool = require "moonpool"
local rig = require "client_rig"

local STALL = 60

-- Inputs are JSON texts with a number that comes back as the vector.
local function inputs(n, padding)
  local list = {}
  for i = 1, n do list[i] = ('{"id":%d,"text":"%s"}'):format(i, ("x"):rep(padding or 0)) end
  return list
end

-- hook(seen, n) may answer or stall; counts what is processed and what succeeds.
local function scenario(hook)
  local count = { processed = 0, ok = 0 }
  local server = rig.embedder(function(seen, n)
    count.processed = count.processed + 1
    local reply = hook and hook(seen, n)
    if reply then return reply end
    count.ok = count.ok + 1
    return { json = rig.embeddings(seen.body.input), headers = { ["x-custom-header"] = "13",
      ["x-echo"] = seen.headers["x-extra"] } }
  end)
  return server, count
end

local function run(client, opts)
  return rig.within(40, client.embed, client, opts)
end

describe("conformance: scenarios", function()
  after_each(rig.close_all)

  it("C50 12 and 1000 inputs by four: in order, as many requests as batches, headers both ways", function()
    for _, n in ipairs { 12, 1000 } do
      local server, count = scenario()
      local texts = inputs(n)
      local res = assert(run(rig.client(server), { input = texts, batch_size = 4,
        extra_headers = { ["x-extra"] = "e" } }))
      assert.is_nil(rig.wrong_row(res, texts))
      for i, item in ipairs(res.data) do assert.equal(i, item.index) end
      assert.equal(n // 4, count.ok)
      assert.equal(n // 4, #res.response_headers)
      assert.equal("13", res.response_headers[1]["x-custom-header"])
      assert.equal("e", res.response_headers[n // 4]["x-echo"])
    end
  end)

  it("C51 the same under a limit of 1000 characters", function()
    for _, n in ipairs { 12, 1000 } do
      local most = 0
      local server, count = scenario(function(seen)
        local sum = 0
        for _, text in ipairs(seen.body.input) do sum = sum + #text end
        most = math.max(most, sum)
      end)
      local texts = inputs(n, 300)
      local res = assert(run(rig.client(server), { input = texts, batch_size = 4,
        max_chars_per_request = 1000 }))
      assert.is_nil(rig.wrong_row(res, texts))
      assert.is_true(count.ok >= n // 4 and count.ok <= n)
      assert.is_true(most <= 1000)
    end
  end)

  it("C52 a server that throttles for a while loses nobody", function()
    for _, case in ipairs { { 0.5, 12 }, { 2, 200 } } do
      local start
      local server = scenario(function()
        start = start or moonpool.now()
        if moonpool.now() - start < case[1] then return { status = 429, json = { error = "slow down" } } end
      end)
      local texts = inputs(case[2])
      local client = rig.keep(moonpool.client { base_url = server.url, max_retries = 10 })
      local res = assert(run(client, { input = texts, batch_size = 4 }))
      assert.is_nil(rig.wrong_row(res, texts))
    end
  end)

  it("C53 four failures in a hundred cost four requests", function()
    local server, count = scenario(function(_, n) return n <= 4 and { status = 500, json = {} } or nil end)
    local texts = inputs(100)
    local res = assert(run(rig.client(server), { input = texts, batch_size = 1 }))
    assert.is_nil(rig.wrong_row(res, texts))
    assert.same({ 104, 100 }, { count.processed, count.ok })
  end)

  it("C54 five stalls in a hundred are hedged, and cost five requests", function()
    local server, count = scenario(function(_, n) if n <= 5 then moonpool.sleep(STALL) end end)
    local texts = inputs(100)
    local client = rig.client(server)
    local res = assert(run(client, { input = texts, batch_size = 1, hedge_delay = 0.5,
      hedge_budget_pct = 0.10 }))
    assert.is_nil(rig.wrong_row(res, texts))
    assert.equal(105, count.processed)
    assert.equal(5, client:stats().hedges)
    assert.equal(5, client:stats().hedges_won)
  end)

  it("C55 three stalls in a hundred time out and are retried, with a total timeout or without", function()
    for _, total in ipairs { false, 20 } do
      local server, count = scenario(function(_, n) if n <= 3 then moonpool.sleep(STALL) end end)
      local texts = inputs(100)
      local res = assert(run(rig.client(server), { input = texts, batch_size = 1, timeout_s = 0.4,
        total_timeout_s = total or nil }))
      assert.is_nil(rig.wrong_row(res, texts))
      assert.equal(103, count.processed)
    end
  end)

  it("C56 one stall beyond the total timeout times out, and costs its own row only", function()
    local server = scenario(function(_, n) if n == 1 then moonpool.sleep(STALL) end end)
    local res, err = run(rig.client(server), { input = inputs(20), batch_size = 1, timeout_s = 0.3,
      total_timeout_s = 0.3 })
    assert.is_nil(err)
    assert.equal(1, #res.errors)
    assert.matches("timeout", res.errors[1].error.kind)
    assert.equal("total_timeout", (function()
      local _, e = run(rig.client(server), { input = { "1" }, total_timeout_s = 0.000001 })
      return e.kind
    end)())
  end)

  it("C57 ten stalls of twenty with no time left for a retry time out", function()
    local server = scenario(function(seen)
      if tonumber(seen.body.input[1]:match "%d+") <= 10 then moonpool.sleep(STALL) end
    end)
    local texts = inputs(20)
    local res, err = run(rig.client(server), { input = texts, batch_size = 1, timeout_s = 0.4,
      total_timeout_s = 0.5 })
    assert.is_nil(err)
    assert.equal(10, #res.errors)
    for i, e in ipairs(res.errors) do
      assert.equal(i, e.index)
      assert.matches("timeout", e.error.kind)
    end
    for i = 11, 20 do assert.same({ i, -i, 0.5 }, res[i]:totable()) end
  end)

  it("C58 a cancelled token returns at once and the server sees every stalled client go", function()
    local token = moonpool.cancel_token()
    local stalled, left = 0, 0
    local server = scenario(function(_, n)
      if n > 2 then
        stalled = stalled + 1
        local ok, err = pcall(moonpool.sleep, STALL)
        if not ok then
          left = left + 1
          error(err, 0)
        end
      end
    end)
    local client = rig.client(server)
    local cancelled_at, returned_at, err
    moonpool.scope(function(s)
      s:spawn(function()
        local _
        _, err = run(client, { input = inputs(12), batch_size = 1, cancel_token = token })
        returned_at = moonpool.now()
      end)
      rig.until_true("ten are stalled", function() return stalled == 10 end)
      cancelled_at = moonpool.now()
      token:cancel()
    end)
    assert.equal("cancelled", err.kind)
    assert.is_true(returned_at - cancelled_at < 1)
    assert.is_true(token:is_cancelled())
    rig.until_true("ten have gone", function() return left == 10 end)
    assert.equal(10, server:stats().disconnects)
    assert.equal(10, #err.errors)
    assert.equal(2, err.result.matrix and 12 - #err.errors)
  end)
end)
