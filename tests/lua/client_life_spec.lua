-- What ends a call early: the five timeouts, tokens, tasks and deadlines, closing; and that nothing is
-- left behind.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local rig = require "client_rig"

-- A server whose handler never answers; .left counts clients that went.
local function stalled()
  local left = { 0 }
  local server = rig.serve(function()
    local ok, err = pcall(moonpool.sleep, 60)
    if not ok then
      left[1] = left[1] + 1
      error(err, 0)
    end
  end)
  return server, left
end

local function fails(client, o)
  o = o or {}
  o.input = o.input or { "1" }
  local res, err = rig.within(20, client.embed, client, o)
  assert.is_nil(res)
  return err
end

describe("timeouts", function()
  after_each(rig.close_all)

  it("read: the server is silent after the request", function()
    local server, left = stalled()
    local client = rig.client(server,
      { timeout = { read = 0.05 }, retry = { max_attempts = 2, base = 0.001 } })
    local err = fails(client)
    assert.equal("read_timeout", err.kind)
    assert.equal(2, err.attempts)
    assert.equal(server.url, err.endpoint)
    rig.until_true("both have gone", function() return left[1] == 2 end)
  end)

  it("read: the server stops in the middle of the body", function()
    local server = rig.serve(function()
      return { body = ('{"data":[' .. (" "):rep(100)), fault = { cut = 50, ends = "hang" } }
    end)
    local err = fails(rig.client(server, { timeout = { read = 0.05 }, retry = false }))
    assert.equal("read_timeout", err.kind)
  end)

  it("read: is no limit for a slow reply that goes on", function()
    local server = rig.serve(function(seen)
      local body = require("moonpool.json").encode(rig.embeddings(seen.body.input))
      return { body = body, fault = { dribble = #body // 8, gap = 0.02 } }
    end)
    local client = rig.client(server, { timeout = { read = 0.1 }, retry = false })
    assert.is_nil(rig.wrong_row(assert(client:embed { input = { "1", "2" } }), { "1", "2" }))
  end)

  it("attempt: bounds the whole attempt, also one that keeps talking", function()
    local server = rig.serve(function()
      return { body = (" "):rep(10000), fault = { dribble = 1, gap = 0.005 } }
    end)
    local err = fails(rig.client(server, { timeout = 0.1, retry = false }))
    assert.equal("read_timeout", err.kind)
    err = fails(rig.client(server, { retry = false }), { timeout = 0.1 })
    assert.equal("read_timeout", err.kind)
    err = fails(rig.client(server, { retry = false }), { timeout_s = 0.1 })
    assert.equal("read_timeout", err.kind)
  end)

  it("connect: a handshake that nobody answers", function()
    local client = rig.client("https://" .. rig.silent_listener(),
      { timeout = { connect = 0.05 }, retry = false })
    local err = fails(client)
    assert.equal("connect_timeout", err.kind)
  end)

  it("connect: a port where nobody listens is refused at once", function()
    local err = fails(rig.client(rig.dead_url(), { retry = { max_attempts = 2, base = 0.001 } }))
    assert.equal("connect", err.kind)
    assert.equal(2, err.attempts)
    assert.is_true(err.retryable)
    assert.is_nil(err.status)
  end)

  it("write: a server that does not read", function()
    local client = rig.client("http://" .. rig.silent_listener(),
      { timeout = { write = 0.1 }, retry = false })
    local _, err = rig.within(20, client.request, client, { path = "/", body = ("x"):rep(32 << 20) })
    assert.equal("write_timeout", err.kind)
  end)

  it("pool: admitted requests that get no connection", function()
    local client = rig.client(stalled(), { pool = { max_connections = 1 },
      timeout = { pool = 0.05, read = 0.4 }, retry = false })
    local _, err = rig.within(20, client.embed, client, { input = { "1", "2" }, batch_size = 1 })
    local kinds = {}
    for _, e in ipairs(err.errors) do kinds[e.error.kind] = e.error end
    assert.is_table(kinds.read_timeout)
    assert.is_table(kinds.pool_timeout)
    assert.matches("max_connections", kinds.pool_timeout.message)
  end)

  it("pool: does not count what waits for its turn under max_concurrent_requests", function()
    local server = rig.embedder(function() moonpool.sleep(0.03) end)
    local client = rig.client(server,
      { max_concurrent_requests = 1, timeout = { pool = 0.05 }, retry = false })
    local texts = rig.texts(6)
    assert.is_nil(rig.wrong_row(assert(client:embed { input = texts, batch_size = 1 }), texts))
  end)

  it("total: alone is enough, and what came in time stays", function()
    local server = rig.embedder(function(seen) if seen.body.input[1] ~= "1" then moonpool.sleep(60) end end)
    local client = rig.client(server)
    local res, err = rig.within(20, client.embed, client,
      { input = rig.texts(3), batch_size = 1, total_timeout = 0.2 })
    assert.is_nil(err)
    assert.is_false(res.ok)
    assert.same({ 1, -1, 0.5 }, res[1]:totable())
    assert.same({ 2, 3 }, { res.errors[1].index, res.errors[2].index })
    assert.equal("total_timeout", res.errors[1].error.kind)
    local e = fails(client, { input = { "2" }, total_timeout = 0.05 })
    assert.equal("total_timeout", e.kind)
    e = fails(rig.client(server, { timeout = { total = 0.05 } }), { input = { "2" } })
    assert.equal("total_timeout", e.kind)
    e = fails(rig.client(server, { total_timeout = 0.05 }), { input = { "2" } })
    assert.equal("total_timeout", e.kind)
  end)

  it("total: the nearest of the call's, the client's and the scope's deadline counts", function()
    local server = stalled()
    local client = rig.client(server, { total_timeout = 0.05 })
    local start = moonpool.now()
    local _, err = moonpool.timeout(5, function() return client:embed { input = { "1" } } end)
    assert.matches("the call's total timeout", err.message)
    assert.is_true(moonpool.now() - start < 4)
    client = rig.client(server, { total_timeout = 30 })
    _, err = moonpool.timeout(0.05, function() return client:embed { input = { "1" } } end)
    assert.equal("total_timeout", err.kind)
    assert.is_true(moonpool.now() - start < 9)
  end)

  it("total: covers backoff and Retry-After", function()
    local server = rig.serve(function()
      return { status = 429, headers = { ["retry-after"] = "60" }, json = {} }
    end)
    local e = fails(rig.client(server), { total_timeout = 0.1 })
    assert.is_true(e.kind == "total_timeout" or e.kind == "rate_limited")
    assert.equal(1, #server.log)
  end)
end)

describe("a cancel token", function()
  after_each(rig.close_all)

  it("ends the calls that hold it, and the server sees them go", function()
    local server, left = stalled()
    local client = rig.client(server)
    local token = moonpool.cancel_token()
    local errors = rig.within(20, function()
      return moonpool.gather {
        function()
          return select(2, client:embed { input = rig.texts(4), batch_size = 1, cancel_token = token })
        end,
        function()
          return select(2, client:batch_post { path = "/", payloads = { {}, {} }, cancel_token = token })
        end,
        function() return select(2, client:request { path = "/", cancel_token = token }) end,
        function() return select(2, client:rerank { query = "q", texts = { "a" }, cancel_token = token }) end,
        function() return select(2, client:classify { inputs = { "a" }, cancel_token = token }) end,
        function()
          rig.until_true("all have arrived", function() return #server.log == 9 end)
          token:cancel()
        end,
      }
    end)
    for i = 1, 5 do assert.equal("cancelled", errors[i].kind, i) end
    assert.is_true(token:is_cancelled())
    rig.until_true("the server saw nine leave", function() return left[1] == 9 end)
    assert.equal(9, server:stats().disconnects)
    assert.equal(0, client:stats().in_flight)
  end)

  it("does not touch calls without it, and refuses later calls with it", function()
    local server = rig.embedder(function() moonpool.sleep(0.02) end)
    local client = rig.client(server)
    local token = moonpool.cancel_token()
    local got = moonpool.gather {
      function() return (client:embed { input = { "1" } }) end,
      function() token:cancel() end,
    }
    assert.same({ 1, -1, 0.5 }, got[1][1]:totable())
    local n = #server.log
    local _, err = client:embed { input = { "1" }, cancel_token = token }
    assert.equal("cancelled", err.kind)
    assert.equal(n, #server.log)
  end)

  it("can be the client's, and may be cancelled from the backoff too", function()
    local server = rig.serve(function() return { status = 503, json = {} } end)
    local token = moonpool.cancel_token()
    local client = rig.client(server, { cancel_token = token, retry = { base = 8, cap = 8 } })
    local _, err = rig.within(20, function()
      return moonpool.scope(function(s)
        s:spawn(function()
          rig.until_true("it waits", function() return #server.log == 1 end)
          token:cancel()
        end)
        return client:embed { input = { "1" } }
      end)
    end)
    assert.equal("cancelled", err.kind)
  end)

  it("keeps the rows that were done", function()
    local token = moonpool.cancel_token()
    local server = rig.embedder(function(seen)
      if seen.body.input[1] == "3" then token:cancel() moonpool.sleep(60) end
    end)
    local client = rig.client(server, { max_concurrent_requests = 1 })
    local res, err = rig.within(20, client.embed, client,
      { input = rig.texts(4), batch_size = 1, cancel_token = token })
    assert.is_nil(res)
    assert.equal("cancelled", err.kind)
    assert.same({ 1, -1, 0.5 }, err.result[1]:totable())
    assert.same({ 3, 4 }, { err.errors[1].index, err.errors[2].index })
  end)
end)

describe("a task", function()
  after_each(rig.close_all)

  it("that is cancelled takes its call with it", function()
    local server, left = stalled()
    local client = rig.client(server)
    rig.within(20, function()
      moonpool.scope(function(s)
        local task = s:spawn(function() client:embed { input = rig.texts(3), batch_size = 1 } end)
        rig.until_true("three are there", function() return #server.log == 3 end)
        task:cancel()
        rig.until_true("three have gone", function() return left[1] == 3 end)
      end)
    end)
    assert.equal(0, client:stats().in_flight)
  end)

  it("with a deadline gives the call that long", function()
    local server, left = stalled()
    local client = rig.client(server)
    local res, err = moonpool.timeout(0.1, function() return client:embed { input = { "1" } } end)
    assert.is_nil(res)
    assert.equal("total_timeout", err.kind)
    rig.until_true("it has gone", function() return left[1] == 1 end)
  end)

  it("is one of two hundred on one client", function()
    local server = rig.embedder(function() moonpool.sleep(0.002) end)
    local client = rig.client(server)
    local n = 0
    moonpool.scope(function(s)
      for i = 1, 200 do
        s:spawn(function()
          local texts = rig.texts(3, i * 10)
          assert(not rig.wrong_row(assert(client:embed { input = texts }), texts))
          n = n + 1
        end)
      end
    end)
    assert.equal(200, n)
    assert.equal(200, #server.log)
    assert.equal(200, client:stats().calls)
  end)
end)

describe("a client", function()
  after_each(rig.close_all)

  it("that is closed ends its open calls with closed", function()
    local server, left = stalled()
    local client = rig.client(server)
    local errors = rig.within(20, function()
      return moonpool.gather {
        function() return select(2, client:embed { input = rig.texts(3), batch_size = 1 }) end,
        function() return select(2, client:request { path = "/" }) end,
        function()
          rig.until_true("all are there", function() return #server.log == 4 end)
          client:close()
        end,
      }
    end)
    assert.equal("closed", errors[1].kind)
    assert.equal("closed", errors[2].kind)
    rig.until_true("they have gone", function() return left[1] == 4 end)
    local res, err = client:embed { input = { "1" } }
    assert.is_nil(res)
    assert.equal("closed", err.kind)
    client:close()
  end)

  it("may be a to-be-closed variable", function()
    local server = rig.embedder()
    local kept
    do
      local client <close> = moonpool.client { base_url = server.url }
      kept = client
      assert(client:embed { input = { "1" } })
    end
    assert.equal("closed", select(2, kept:embed { input = { "1" } }).kind)
    rig.until_true("the connection is closed", function() return server:stats().connections_now == 0 end)
  end)

  it("that nobody holds is collected with its connections, its open calls first", function()
    local server = rig.embedder()
    local gone = setmetatable({}, { __mode = "k" })
    do
      local client = moonpool.client { base_url = server.url, retry = rig.quick }
      gone[client] = true
      assert(client:embed { input = { "1" } })
    end
    assert.equal(1, server:stats().connections_now)
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(gone))
    rig.until_true("the connection is closed", function() return server:stats().connections_now == 0 end)
    -- an open call keeps its client alive: its task still has it
    local res
    moonpool.scope(function(s)
      s:spawn(function() res = moonpool.client { base_url = server.url }:embed { input = { "2" } } end)
      moonpool.sleep(0)
      collectgarbage()
      collectgarbage()
    end)
    assert.same({ 2, -2, 0.5 }, res[1]:totable())
  end)

  it("leaves no call, connection or attempt behind", function()
    local server = rig.mock { error = { "503:0.2" }, reset = 0.1 }
    local client = rig.client(server)
    for _ = 1, 5 do client:embed { input = rig.texts(40), batch_size = 4 } end
    local stats = client:stats()
    assert.equal(0, stats.in_flight)
    assert.equal(0, stats.engine.calls_open)
    assert.equal(stats.attempts, stats.requests + stats.retries)
    client:close()
    rig.until_true("no connection is left", function() return server:stats().connections_now == 0 end)
  end)

  it("shares a pool, whose limit holds for all", function()
    local now, most = 0, 0
    local server = rig.embedder(function()
      now = now + 1
      most = math.max(most, now)
      moonpool.sleep(0.005)
      now = now - 1
    end)
    local pool = moonpool.pool { max_connections = 3 }
    local a, b = rig.client(server, { pool = pool }), rig.client(server, { client_wrapper = pool })
    local got = moonpool.gather {
      function() return (a:embed { input = rig.texts(12), batch_size = 1 }) end,
      function() return (b:embed { input = rig.texts(12), batch_size = 1 }) end,
    }
    assert.is_true(got[1].ok and got[2].ok)
    assert.equal(3, most)
    assert.is_true(server:stats().connections_opened <= 3)
  end)

  it("counts", function()
    local server = rig.embedder(function(_, n)
      if n == 2 then return { status = 503, json = {} } end
      if n == 3 then return { status = 429, json = {} } end
      if n == 5 then return { status = 400, json = {} } end
    end)
    local client = rig.client(server, { max_concurrent_requests = 1 })
    local res = client:embed { input = rig.texts(4), batch_size = 1 }
    assert.equal(1, #res.errors)
    local stats = client:stats()
    assert.same({ calls = 1, requests = 4, attempts = 6, retries = 2, ok = 3, failed = 1, rows = 4,
      rows_failed = 1, throttled = 1, hedges = 0, in_flight = 0 },
      { calls = stats.calls, requests = stats.requests, attempts = stats.attempts, retries = stats.retries,
        ok = stats.ok, failed = stats.failed, rows = stats.rows, rows_failed = stats.rows_failed,
        throttled = stats.throttled, hedges = stats.hedges, in_flight = stats.in_flight })
    assert.is_true(stats.bytes_sent > 0 and stats.bytes_received > 0)
    assert.equal(1, stats.pool.opened)
    assert.equal(5, stats.pool.reused)
    assert.equal(1, stats.pool.open)
    assert.equal("openai", stats.provider)
  end)
end)

describe("errors", function()
  after_each(rig.close_all)

  it("have the fields of the contract", function()
    local server = rig.serve(function()
      return { status = 429, headers = { ["retry-after"] = "300", ["x-request-id"] = "theirs" },
        json = { error = { message = "too many requests", type = "requests" } } }
    end)
    local err = fails(rig.client(server))
    assert.equal("rate_limited", err.kind)
    assert.equal(429, err.status)
    assert.equal(300, err.retry_after)
    assert.equal(1, err.attempts)
    assert.matches("too many requests", err.body)
    assert.matches("too many requests", err.message)
    assert.matches("rate_limited", tostring(err))
    assert.is_boolean(err.retryable)
    assert.is_string(err.request_id)
    assert.equal(server.url, err.endpoint)
    assert.is_true(moonpool.is_error(err))
  end)

  it("are retried only where that makes sense", function()
    for status, attempts in pairs { [400] = 1, [401] = 1, [403] = 1, [404] = 1, [422] = 1,
      [408] = 3, [409] = 3,
      [425] = 3, [429] = 3, [500] = 3, [501] = 3, [503] = 3, [529] = 3 } do
      local server = rig.serve(function() return { status = status, json = {} } end)
      local err = fails(rig.client(server, { breaker = false, retry = { max_attempts = 3, base = 0.001,
        throttle_base = 0.001, cap = 0.002 } }))
      assert.equal(status, err.status)
      assert.equal(attempts, err.attempts, status)
      assert.equal(attempts, #server.log, status)
    end
  end)

  it("are not repeated where only refused connections should be", function()
    local reset = { fault = { raw = true, ends = "reset" } }
    local cases = { -- policy, requests that reach a server which resets, attempts at a dead one
      { { on = { 429, "connect" } }, 1, 2 },
      { { on = { "transport" } }, 2, 2 },
      { { never = { "timeout", "connect" } }, 2, 1 },
    }
    for i, case in ipairs(cases) do
      local retry = case[1]
      retry.max_attempts, retry.base = 2, 0.001
      local server = rig.serve(function() return reset end)
      local err = fails(rig.client(server, { retry = retry }))
      assert.equal("connect", err.kind)
      assert.equal(case[2], #server.log, i)
      err = fails(rig.client(rig.dead_url(), { retry = retry }))
      assert.equal(case[3], err.attempts, i)
    end
  end)

  it("of a part fail its rows only", function()
    local server = rig.embedder(function(seen)
      if seen.body.input[1] == "5" then return { status = 403, json = {} } end
    end)
    local res = assert(rig.client(server):embed { input = rig.texts(9), batch_size = 2 })
    assert.is_false(res.ok)
    assert.same({ 5, 6 }, { res.errors[1].index, res.errors[2].index })
    assert.equal(2, #res.errors)
    assert.same({ 9, -9, 0.5 }, res[9]:totable())
    assert.is_true(res[5][1] ~= res[5][1])
    local ok, err = pcall(moonpool.strict, res)
    assert.is_false(ok)
    assert.equal(403, err.status)
    assert.matches("2 of 9 rows failed; first, row 5", err.message)
    assert.equal(res, err.result)
  end)

  it("are raised by strict, which else passes the result on", function()
    local client = rig.client(rig.embedder())
    local res = moonpool.strict(client:embed { input = { "1" } })
    assert.equal(1, #res)
    client = rig.client(rig.dead_url(), { retry = false })
    local ok, err = pcall(function() return moonpool.strict(client:embed { input = { "1" } }) end)
    assert.is_false(ok)
    assert.equal("connect", err.kind)
  end)

  it("too_large: a reply beyond the limit of headers", function()
    local server = rig.serve(function()
      local headers = {}
      for i = 1, 60 do headers["x-h" .. i] = ("v"):rep(4000) end
      return { json = {}, headers = headers }
    end)
    local _, err = rig.client(server, { retry = false }):request { path = "/" }
    assert.equal("too_large", err.kind)
  end)
end)

describe("the engine", function()
  it("has nothing open after all of these", function()
    collectgarbage()
    collectgarbage()
    local client = rig.client(rig.embedder())
    local engine = client:stats().engine
    assert.equal(0, engine.calls_open)
    assert.equal(0, engine.queued_bytes)
    rig.close_all()
    assert.is_function(core.call_start)
  end)
end)
