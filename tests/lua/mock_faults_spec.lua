-- The mock's faults: their little languages, their reproducibility, and each of them on the wire.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local faults = require "moonpool.mock.faults"
local parse = require "moonpool.mock.parse"

local seed = 20240607

local function eventually(condition)
  for _ = 1, 20000 do
    if condition() then
      return
    end
    core.sleep(0.001)
  end
  error("it never happened", 2)
end

describe("mock.parse", function()
  it("reads durations and shares", function()
    for text, seconds in pairs { ["20ms"] = 0.02, ["5s"] = 5, ["1.5"] = 1.5, ["2m"] = 120, [" 3 s "] = 3 } do
      assert.equal(seconds, parse.duration(text))
    end
    assert.equal(0.25, parse.duration(0.25))
    for _, bad in ipairs { "", "x", "5 parsecs", "-1", "1..2", -1, "ms" } do
      local value, err = parse.duration(bad)
      assert.is_nil(value, tostring(bad))
      assert.is_string(err)
    end
    assert.equal(0.01, parse.share "0.01")
    assert.equal(0.01, parse.share "1%")
    for _, bad in ipairs { "1.1", "-0.1", "x", "200%", "" } do
      assert.is_nil((parse.share(bad)))
    end
  end)

  it("reads faults", function()
    assert.same({ share = 0.01, duration = 5 }, parse.slow "0.01:5s")
    assert.same({ status = 429, share = 0.1, headers = { ["retry-after"] = "2" } },
      parse.error "429:0.1:retry-after=2")
    assert.same({ start = 30, duration = 20, refuse = true }, parse.outage "30:20s:refuse")
    assert.same({ rpm = 600, tpm = 60000 }, parse.quota "600,60000")
    assert.same({ rpm = 0, tpm = 10 }, parse.quota ",10")
    assert.same({ limit = 8, status = 503 }, parse.concurrency "8:503")
    assert.same({ limit = 8, status = 429 }, parse.concurrency(8))
    assert.same({ count = 5, status = 500 }, parse.fail_first "5:500")
    assert.same({ count = 5, duration = 3 }, parse.stall_first "5:3s")
    local bad = {
      slow = { "0.01", "x:5s", "0.01:x", "1:2:3" }, error = { "429", "99:0.1", "429:2", "429:0.1:x" },
      outage = { "5", "5:1s:maybe" }, quota = { "x", "-1,5" }, concurrency = { "0", "x", "5:9" },
      fail_first = { "5", "x:500" }, stall_first = { "5", "5:x" },
      latency = { "x", "gamma:1,2", "lognormal:20ms", "uniform:1,2,3", "exp:x" },
    }
    for name, cases in pairs(bad) do
      for _, text in ipairs(cases) do
        local value, err = parse[name](text)
        assert.is_nil(value, name .. " " .. text)
        assert.is_string(err)
      end
    end
  end)

  it("draws latencies from the distribution named", function()
    local function sample(text, n)
      local latency, list = assert(parse.latency(text)), {}
      for i = 1, n do
        list[i] = latency(faults.draws(seed, i))
      end
      table.sort(list)
      return list
    end
    assert.same({ 0.02, 0.02, 0.02 }, sample("20ms", 3))
    local list = sample("lognormal:20ms,0.2", 4001)
    assert.is_true(math.abs(list[2001] - 0.02) < 0.0005) -- the median
    local ratio = list[math.floor(4001 * 0.8413)] / list[2001] -- one sigma
    assert.is_true(math.abs(math.log(ratio) - 0.2) < 0.02)
    list = sample("uniform:10ms,30ms", 2000)
    assert.is_true(list[1] >= 0.01 and list[1] < 0.0105 and list[2000] < 0.03 and list[2000] > 0.0295)
    list = sample("exp:10ms", 4001)
    assert.is_true(math.abs(list[2001] - 0.01 * math.log(2)) < 0.0005)
  end)
end)

describe("mock faults", function()
  it("depend on the seed and the request's number alone", function()
    local f = assert(faults.parse { error = { "429:0.1", "503:0.1" }, slow = "0.1:5s", reset = "0.1",
      short = 0.1, latency = "exp:10ms" })
    local function run(with, s)
      local out = {}
      for n = 1, 2000 do
        local p = faults.plan(with, s, n)
        out[n] = table.concat({ p.error and p.error.status or "-", tostring(p.stall), tostring(p.reset),
          tostring(p.short) }, " ")
      end
      return out
    end
    assert.same(run(f, seed), run(f, seed))
    assert.not_same(run(f, seed), run(f, seed + 1))
    -- another fault switched on does not move these
    local more = assert(faults.parse { error = { "429:0.1", "503:0.1" }, slow = "0.1:5s", reset = "0.1",
      short = 0.1, truncate = 0.5, shuffle = true })
    assert.same(run(f, seed), run(more, seed))
  end)

  it("come as often as asked", function()
    local f = assert(faults.parse { error = { "429:0.1", "503:0.05" }, slow = "0.01:5s", reset = "2%" })
    local count = { stall = 0, reset = 0 }
    local n = 20000
    for i = 1, n do
      local p = faults.plan(f, seed, i)
      count.stall = count.stall + (p.stall and 1 or 0)
      count.reset = count.reset + (p.reset and 1 or 0)
      local status = p.error and p.error.status
      if status then
        count[status] = (count[status] or 0) + 1
      end
    end
    -- within five standard deviations
    local function near(k, share)
      assert.is_true(math.abs(k - n * share) < 5 * math.sqrt(n * share * (1 - share)), k)
    end
    near(count[429], 0.1)
    near(count[503], 0.05)
    near(count.stall, 0.01)
    near(count.reset, 0.02)
  end)

  it("shuffle is a permutation, short leaves one out", function()
    local f = assert(faults.parse { shuffle = true, short = 1 })
    local plan = faults.plan(f, seed, 1)
    local order = faults.order(f, plan, 50)
    assert.equal(49, #order)
    local seen, moved = {}, false
    for i, k in ipairs(order) do
      assert.is_nil(seen[k])
      seen[k] = true
      moved = moved or i ~= k
    end
    assert.is_true(moved)
    local none = assert(faults.parse {})
    assert.is_nil(faults.order(none, faults.plan(none, seed, 1), 50))
  end)
end)

describe("mock quota", function()
  local quota = require "moonpool.mock.quota"
  local now = core.now
  local clock

  before_each(function()
    clock = 1000
    core.now = function() return clock end -- luacheck: ignore
  end)

  after_each(function()
    core.now = now -- luacheck: ignore
  end)

  -- Asks every `step` seconds for a minute; returns how many, and the most within one second.
  local function minute(spec, tokens, step)
    clock = 1000
    local q = quota.new(spec)
    local total, second, most = 0, {}, 0
    for i = 0, math.floor(60 / step) - 1 do
      clock = 1000 + i * step
      if q:admit(tokens, {}) then
        local s = math.floor(clock)
        total = total + 1
        second[s] = (second[s] or 0) + 1
        most = math.max(most, second[s])
      end
    end
    return total, most
  end

  it("admits exactly its rate, spread over the seconds", function()
    assert.same({ 600, 10 }, { minute({ rpm = 600, tpm = 0 }, 1, 0.0625) })
    assert.same({ 600, 10 }, { minute({ rpm = 600, tpm = 60000 }, 100, 0.0625) })
    assert.same({ 300, 5 }, { minute({ rpm = 600, tpm = 60000 }, 200, 0.0625) })
    local total, most = minute({ rpm = 100, tpm = 0 }, 1, 0.0625) -- not a whole number a second
    assert.is_true(total >= 98 and total <= 101, total)
    assert.is_true(most <= 2)
  end)

  it("lets a batch larger than a second's tokens pass, and charges the seconds after it", function()
    local total, most = minute({ rpm = 0, tpm = 6000 }, 1000, 0.25)
    assert.same({ 6, 1 }, { total, most })
  end)

  it("admits when it said it would", function()
    for _, spec in ipairs { { rpm = 600, tpm = 0 }, { rpm = 0, tpm = 600 }, { rpm = 90, tpm = 900 } } do
      local q = quota.new(spec)
      for _ = 1, 50 do
        local headers = {}
        while q:admit(30, headers) do
          headers = {}
        end
        clock = clock + tonumber(headers["retry-after-ms"]) / 1000
        assert.is_true((q:admit(30, headers)))
      end
    end
  end)
end)

describe("mock on the wire", function()
  local input = { "one", "two", "three", "four" }

  local function with_mock(opts, fn)
    opts.dim, opts.seed = opts.dim or 16, seed
    local mock <close> = assert(moonpool.mock(opts))
    local client <close> = moonpool.client { base_url = mock.url, retry = false, breaker = false }
    local function ask(path, json)
      return client:request { method = "POST", path = path or "/v1/embeddings",
        json = json or { input = input } }
    end
    fn(ask, mock, client)
  end

  local function plain_data()
    local data
    with_mock({}, function(ask) data = ask().data.data end)
    return data
  end

  it("chunk and dribble change nothing but the pieces", function()
    local want = plain_data()
    for _, opts in ipairs { { chunk = 1 }, { chunk = 7 }, { dribble = 40 }, { chunk = 3, dribble = 100 } } do
      with_mock(opts, function(ask)
        local r = assert(ask())
        assert.same(want, r.data.data)
        assert.equal(opts.chunk and "chunked" or nil, r.headers["transfer-encoding"])
        assert.same(want, ask().data.data) -- on the same connection
      end)
    end
  end)

  it("reset and truncate break replies in the middle", function()
    for _, name in ipairs { "reset", "truncate" } do
      with_mock({ [name] = 1 }, function(ask, mock)
        for _ = 1, 3 do
          local r, err = ask()
          assert.is_nil(r)
          assert.equal("connect", err.kind)
        end
        assert.equal(3, mock:stats().faults[name])
      end)
    end
  end)

  it("shuffle moves items, not their indices", function()
    local want = plain_data()
    with_mock({ shuffle = true }, function(ask)
      local moved = false
      for _ = 1, 5 do
        local data = ask().data.data
        for i, item in ipairs(data) do
          moved = moved or item.index ~= i - 1
          assert.same(want[item.index + 1], item)
        end
      end
      assert.is_true(moved)
    end)
  end)

  it("short leaves an item out in every dialect", function()
    with_mock({ short = 1 }, function(ask, mock)
      assert.equal(3, #ask().data.data)
      assert.equal(3, #ask("/embed", { inputs = input }).data)
      assert.equal(3, #ask("/rerank", { query = "q", texts = input }).data)
      assert.equal(3, #ask("/v2/embed", { texts = input, input_type = "search_query" }).data.embeddings.float)
      assert.equal(4, mock:stats().faults.short)
    end)
  end)

  it("error answers with its status, headers and the dialect's body", function()
    with_mock({ error = "429:1:retry-after-ms=20" }, function(ask, mock)
      local _, err = ask()
      assert.equal(429, err.status)
      assert.is_true(math.abs(err.retry_after - 0.02) < 1e-6)
      assert.equal("rate_limit_exceeded", core.json_decode(err.body).error.code)
      _, err = ask("/embed", { inputs = "a" })
      assert.equal("Overloaded", core.json_decode(err.body).error_type)
      _, err = ask("/v2/embed", { texts = { "a" }, input_type = "search_query" })
      assert.is_string(core.json_decode(err.body).message)
      local stats = mock:stats()
      assert.equal(3, stats.throttled)
      assert.equal(3, stats.faults.error)
      assert.equal(0, stats.inputs)
    end)
    with_mock({ error = { "500:1" } }, function(ask)
      local _, err = ask()
      assert.equal(500, err.status)
      assert.is_nil(err.retry_after)
    end)
  end)

  it("fail_first fails that many and no more", function()
    with_mock({ fail_first = "2:503" }, function(ask)
      assert.equal(503, select(2, ask()).status)
      assert.equal(503, select(2, ask()).status)
      assert.equal(200, ask().status)
    end)
  end)

  it("latency, stalls and workers take time", function()
    with_mock({ latency = "5ms", latency_per_input = "5ms", stall_first = "1:20ms" }, function(ask, mock)
      assert.is_true(ask().time >= 0.045)
      assert.is_true(ask().time >= 0.025)
      assert.equal(1, mock:stats().faults.stall)
    end)
    with_mock({ latency = "10ms", workers = 1 }, function(ask)
      local before = moonpool.now()
      moonpool.gather { ask, ask, ask }
      assert.is_true(moonpool.now() - before >= 0.03)
    end)
  end)

  it("concurrency refuses the one too many", function()
    with_mock({ concurrency = "2:503", stall_first = "2:60s" }, function(ask, mock)
      moonpool.scope(function(scope)
        scope:spawn(ask)
        scope:spawn(ask)
        eventually(function() return mock:stats().in_flight == 2 end)
        local _, err = ask()
        assert.equal(503, err.status)
        assert.equal(1, mock:stats().faults.concurrency)
        scope:cancel()
      end)
      eventually(function() return mock:stats().in_flight == 0 end)
      assert.equal(2, mock:stats().disconnects)
      assert.equal(3, mock:stats().max_in_flight)
      assert.equal(200, ask().status)
    end)
  end)

  it("outage is 503, or no reply at all, and passes", function()
    with_mock({ outage = "0:100s" }, function(ask)
      assert.equal(503, select(2, ask()).status)
    end)
    with_mock({ outage = "0:50ms:refuse" }, function(ask)
      local _, err = ask()
      assert.equal("connect", err.kind)
      eventually(function() return ask() ~= nil end)
    end)
  end)

  -- Two at once, for a client that has read the headers of the first would wait by itself: the reply
  -- that came and the error of the other.
  local function two(ask)
    local outcomes = moonpool.gather {
      function() return table.pack(ask()) end,
      function() return table.pack(ask()) end,
    }
    local first, second = outcomes[1], outcomes[2]
    if not first[1] then
      first, second = second, first
    end
    return assert(first[1]), second[2]
  end

  it("quota answers 429 and says how long", function()
    with_mock({ quota = "60,0" }, function(ask)
      local r, err = two(ask)
      assert.equal("60", r.headers["x-ratelimit-limit-requests"])
      assert.equal("0", r.headers["x-ratelimit-remaining-requests"])
      assert.is_truthy(r.headers["x-ratelimit-reset-requests"]:match "^%d+ms$")
      assert.equal(429, err.status)
      assert.is_true(err.retry_after > 0 and err.retry_after <= 1)
    end)
    with_mock({ quota = "0,60" }, function(ask)
      local r, err = two(ask) -- five tokens each, at one a second
      assert.equal("60", r.headers["x-ratelimit-limit-tokens"])
      assert.equal(429, err.status)
      assert.is_true(err.retry_after > 1)
    end)
  end)

  it("hook decides for single requests", function()
    local seen = {}
    with_mock({ hook = function(req, n, job)
      seen[n] = req.path .. " " .. job.rows
      if n == 2 then
        return { status = 418, body = "teapot", headers = { ["X-Pot"] = "tea" } }
      elseif n == 3 then
        return { reset = true }
      end
    end }, function(ask)
      assert.equal(200, ask().status)
      local _, err = ask()
      assert.same({ 418, "teapot" }, { err.status, err.body })
      _, err = ask()
      assert.equal("connect", err.kind)
      assert.equal(200, ask().status)
      assert.equal("/v1/embeddings 4", seen[4])
    end)
  end)

  it("the client gets every row right through the worst of it", function()
    local texts = {}
    for i = 1, 600 do
      texts[i] = "text number " .. i
    end
    local want
    with_mock({}, function(_, _, client)
      want = assert(client:embed { input = texts, model = "m", batch_size = 16 })
    end)
    local mock <close> = assert(moonpool.mock { dim = 16, seed = seed, shuffle = true, chunk = 1,
      error = { "429:0.1:retry-after-ms=5", "503:0.1" }, reset = 0.1, truncate = 0.05 })
    local client <close> = moonpool.client { base_url = mock.url,
      retry = { max_attempts = 12, base = 0.001, throttle_base = 0.001, budget = 1, reserve = 1000 } }
    local res = assert(client:embed { input = texts, model = "m", batch_size = 16 })
    assert.is_true(res.ok)
    for i = 1, #texts do
      assert.equal(core.json_encode(want[i]:totable()), core.json_encode(res[i]:totable()))
    end
    assert.is_true(mock:stats().faults.reset + mock:stats().faults.error > 0)
  end)
end)
