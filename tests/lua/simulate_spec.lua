-- Simulations: scenarios checked, run and told, and the charts.

local moonpool = require "moonpool"
local chart = require "moonpool.chart"
local simulate = require "moonpool.simulate"

local function raises(fragment, scenario)
  local ok, err = pcall(moonpool.simulate, scenario)
  assert.is_false(ok)
  assert.truthy(tostring(err):find(fragment, 1, true), tostring(err))
end

local function one(scenario)
  local result = moonpool.simulate(scenario)
  assert.equal(1, #result.policies)
  assert.is_nil(result.policies[1].violation)
  return result.policies[1]
end

local stalls = { latency = "lognormal:20ms,0.2", stall = { share = 0.01, time = 5 } }

describe("a simulation", function()
  it("shows what hedging does to stalls", function()
    local result = moonpool.simulate {
      load = { requests = 20000, concurrency = 32 }, server = stalls,
      policies = { "job", { name = "hedged", hedge = { after = "2*p95" } } },
    }
    local plain, hedged = result.policies[1], result.policies[2]
    assert.equal("job", plain.name)
    assert.is_true(plain.p99 > 5)
    assert.equal(20000, plain.attempts)
    assert.is_true(hedged.p999 <= 5 * hedged.p50)
    assert.is_true(hedged.attempts <= 20000 * 1.02)
    assert.equal(hedged.attempts, 20000 + hedged.hedges)
    assert.equal(20000, hedged.rows_ok)
  end)

  it("is the same for the same seed, and another for another", function()
    local scenario = { load = { requests = 500 }, server = stalls }
    local first, second = one(scenario), one(scenario)
    assert.equal(first.trace, second.trace)
    assert.equal(first.time, second.time)
    scenario.seed = 2
    assert.not_equal(first.trace, one(scenario).trace)
  end)

  it("is told another seed by the command line", function()
    local scenario = { load = { requests = 500 }, server = stalls, seed = 7 }
    local seventh = one(scenario).trace
    simulate.overrides.seed = 7
    scenario.seed = 1
    local ok, result = pcall(moonpool.simulate, scenario)
    simulate.overrides.seed = nil
    assert.is_true(ok, result)
    assert.equal(7, result.seed)
    assert.equal(seventh, result.policies[1].trace)
  end)

  it("lets the rows of a job fall into a policy's own batches", function()
    local result = moonpool.simulate {
      load = { rows = 1000, batch = 10, tokens = 50, concurrency = 4 },
      policies = { "job", { batch = 64 }, { batch = { size = 100, tokens = 1000 } } },
    }
    local requests = {}
    for i, r in ipairs(result.policies) do
      requests[i] = r.requests
      assert.equal(1000, r.rows_ok)
    end
    assert.same({ 100, 16, 50 }, requests) -- 10, 64 and 1000 / 50 rows
  end)

  it("draws service times from measured ones", function()
    local r = one { load = { requests = 1000, concurrency = 1 }, server = { latency = { 0.25, 0.25, 0.25 } } }
    assert.is_true(math.abs(r.p50 - 0.25) < 1e-6 and math.abs(r.max - 0.25) < 1e-6)
  end)

  it("takes latencies as the mock does", function()
    local latencies = { ["50ms"] = 0.05, ["uniform:50ms,51ms"] = 0.0505, ["lognormal:50ms,0"] = 0.05 }
    for text, expected in pairs(latencies) do
      local r = one { load = { requests = 100 }, server = { latency = text } }
      assert.is_true(math.abs(r.p50 - expected) < 0.0006, text .. " gave " .. r.p50)
    end
    assert.is_true(one { load = { requests = 100 }, server = { latency = 0.3 } }.p50 > 0.2999)
    assert.is_true(one { load = { requests = 5000 }, server = { latency = "exp:1s" } }.p999 > 5)
  end)

  it("measures the recovery after an outage", function()
    local r = one {
      load = { duration = 90, concurrency = 16 },
      server = { outage = { from = 30, to = 50, kind = "503" } },
    }
    assert.equal("number", type(r.recovery))
    assert.is_true(r.recovery <= 15)
    assert.equal(0, r.seconds.ok[41])
  end)

  it("counts 429s, and none where the rate is declared", function()
    local result = moonpool.simulate {
      load = { duration = 60, concurrency = 8 },
      server = { latency = 0.1, quota = { rpm = 600, tells = "nothing" } },
      policies = { "job", { rate = { rpm = 600 } } },
    }
    assert.is_true(result.policies[1].throttled_share > 0.02)
    local after_the_first = 0
    for i = 3, #result.policies[2].seconds.throttled do
      after_the_first = after_the_first + result.policies[2].seconds.throttled[i]
    end
    assert.equal(0, after_the_first)
  end)

  it("says how the requests fell on several servers, and why some failed", function()
    local r = one {
      load = { requests = 300, concurrency = 4 }, policy = "none",
      servers = { {}, { outage = { kind = "refuse" } } },
    }
    assert.equal(2, #r.server_attempts)
    assert.equal(300, r.server_attempts[1] + r.server_attempts[2])
    assert.equal(r.kinds.connect, r.failed)
    assert.is_true(r.failed > 50)
    assert.is_nil(r.recovery) -- from an outage without an end
  end)

  it("ends where it is told to", function()
    local result = moonpool.simulate {
      load = { requests = 10 }, max_time = 20, server = { outage = { kind = "silent" } },
    }
    assert.is_true(result.policies[1].unfinished)
    assert.matches("not done when the clock stopped", result:text(), 1, true)
  end)

  it("leaves a scenario as it was", function()
    local hedge = { after = "2*p95" }
    local scenario = { load = { requests = 10 }, policies = { { hedge = hedge } } }
    moonpool.simulate(scenario)
    assert.same({ load = { requests = 10 }, policies = { { hedge = { after = "2*p95" } } } }, scenario)
  end)
end)

describe("hooks in a simulation", function()
  local two = { load = { rate = 100, duration = 20 }, servers = { {}, { error = { share = 0.3 } } } }

  local function with(...)
    local scenario = { load = two.load, servers = two.servers, policies = { ... } }
    return table.unpack(moonpool.simulate(scenario).policies)
  end

  it("decide, on the virtual clock", function()
    local times = {}
    local r = with {
      route = function(view)
        times[#times + 1] = view.now
        return 1
      end,
    }
    assert.equal(0, r.server_attempts[2])
    assert.equal(r.requests, r.hooks.calls)
    assert.equal(r.requests, #times)
    assert.is_true(times[#times] - times[1] > 18 and times[#times] - times[1] < 20)
    assert.is_nil(r.hooks.last_error)
  end)

  it("of every kind are asked", function()
    local seen = {}
    local function note(view)
      seen[view.hook] = (seen[view.hook] or 0) + 1
    end
    with {
      retry = note, hedge = { delay = 0.021, hook = note }, rate = note, concurrency = note, breaker = note,
      route = note, classify = note, on_giveup = note,
    }
    for _, name in ipairs { "retry", "hedge", "rate", "concurrency", "breaker", "route", "classify" } do
      assert.is_true((seen[name] or 0) > 0, name .. " was not asked")
    end
  end)

  it("that fail leave the default, and are told of", function()
    local plain, broken = with("job", { name = "broken", route = function() return 99 end,
      retry = function() error "oh dear" end })
    assert.equal(plain.trace, broken.trace)
    assert.equal(broken.hooks.calls, broken.hooks.failed)
    local result = moonpool.simulate {
      load = two.load, servers = two.servers, policy = { route = function() return 99 end },
    }
    assert.matches("hooks asked .- failed and the default was taken; the last: route: ", result:text())
  end)

  it("come in whole policies, of which the parts about requests are left out", function()
    local result = moonpool.simulate {
      load = two.load, servers = two.servers,
      policy = { policy = { { name = "first", route = function() return 1 end },
        { name = "sign", before_request = function() error "never" end } } },
    }
    local r = result.policies[1]
    assert.equal("first+sign", r.name)
    assert.equal(0, r.server_attempts[2])
    assert.same({ "before_request" }, r.not_simulated)
    assert.matches("first+sign: not simulated, as there are no real requests: before_request", result:text(),
      1, true)
  end)
end)

describe("a wrong scenario", function()
  it("is refused with the name of what is wrong", function()
    raises("unknown option 'sever' (did you mean 'server'?)", { sever = {} })
    raises("load: unknown option 'requets'", { load = { requets = 1 } })
    raises("load: requests or rows, not both", { load = { requests = 1, rows = 1 } })
    raises("load: at most 5000000 requests", { load = { requests = 5000001 } })
    raises("load: at most 5000000 requests", { load = { rate = 1e6, duration = 3600 } })
    raises("server: latency: no distribution 'normal'", { server = { latency = "normal:20ms,1" } })
    raises("server: latency: an empty list", { server = { latency = {} } })
    raises("server: stall: share: must be a share", { server = { stall = { share = 2 } } })
    raises("servers[2]: unknown option 'plaes'", { servers = { {}, { plaes = 1 } } })
    raises("server: outage: to must be later", { server = { outage = { from = 5, to = 5 } } })
    raises("server: outage: kind: must be one of", { server = { outage = { kind = "flood" } } })
    raises("servers: 1 to 16 expected", { servers = {} })
    raises("policies: a list of 1 to 16 expected", { policies = {} })
    raises("policies[2]: hedge: unknown option 'delai'", { policies = { "job", { hedge = { delai = 1 } } } })
    raises("policies[2]: preset", { policies = { "job", "jobb" } })
    raises("policy: batch: a function cannot be simulated", { policy = { batch = function() end } })
    raises("policies[1]: policy[2]: unknown option 'hegde'", {
      policies = { { policy = { "job", { hegde = 1 } } }, "job" },
    })
    raises("batch: rows of the model have tokens", { policy = { batch = { chars = 100 } } })
    raises("timeout: unknown option 'atempt'", { timeout = { atempt = 1 } })
    raises("table of options expected", "job")
  end)

  it("is blamed on the line that gives it", function()
    for _, wrong in ipairs {
      { load = { requests = 0 } }, { policy = { retry = { base = -1 } } }, { server = { places = 0 } },
      { policies = { "a" } }, { timeout = { total = -1 } }, { policy = { batch = { bytes = 9 } } },
      { servers = {} }, { policies = {} }, { load = { requests = 1, rows = 1 } }, {}, { nmae = "" },
      { server = { outage = { to = 5, from = 6 } } }, { policy = { estimate_tokens = function() end } },
    } do
      local ok, err = pcall(function()
        moonpool.simulate(wrong)
      end)
      assert.is_true(ok or err:find "^[^\n]*simulate_spec.lua:%d+: simulate: " ~= nil, tostring(err))
    end
  end)
end)

describe("recovery", function()
  local function series(...)
    local list = {}
    for _, stretch in ipairs { ... } do
      for _ = 1, stretch[1] do list[#list + 1] = stretch[2] end
    end
    return list
  end

  it("is the time until three seconds bring what was usual", function()
    assert.equal(0, simulate.recovery(series({ 30, 100 }, { 10, 0 }, { 20, 100 }), 30, 40))
    assert.equal(5, simulate.recovery(series({ 30, 100 }, { 15, 0 }, { 20, 96 }), 30, 40))
    assert.equal(4.5, simulate.recovery(series({ 30, 100 }, { 15, 0 }, { 20, 96 }), 30, 40.5))
    assert.is_false(simulate.recovery(series({ 30, 100 }, { 10, 0 }, { 20, 94 }), 30, 40))
  end)

  it("is unknown without a before or an after", function()
    assert.is_nil(simulate.recovery(series({ 30, 100 }), 1, 5))
    assert.is_nil(simulate.recovery(series({ 30, 0 }), 10, 15))
    assert.is_nil(simulate.recovery(series({ 30, 100 }), 20, 29))
  end)
end)

describe("the report", function()
  local result

  before_each(function()
    result = moonpool.simulate {
      name = "a <b> & \"c\"", load = { rate = 50, duration = 40, tokens = 3 },
      servers = { { places = 8, queue = 3 }, { error = { share = 0.1, status = 502 }, weight = 2,
        outage = { from = 10, to = 20, kind = "429" }, quota = { rpm = 6000, tpm = 60000 } } },
      policies = { { name = "first" }, { name = "prénom <2>", preset = "gateway" } },
    }
  end)

  it("is a table with a line a policy, led by the seed and the scenario", function()
    local lines = {}
    for line in result:text():gmatch "[^\n]+" do
      lines[#lines + 1] = line
    end
    assert.equal('a <b> & "c" (seed 1)', lines[1])
    assert.equal("load: 50.0 requests a second arrive, for 40 s, 3 tokens a row", lines[2])
    assert.equal("server 1: latency lognormal:20ms,0.2, 8 places, a queue of 3", lines[3])
    assert.matches("answers 429 from 10 s to 20 s", lines[4], 1, true)
    assert.matches("10 % answered 502, quota of 6,000 requests and 60,000 tokens a minute", lines[4], 1, true)
    assert.matches("^policy +p50 +p90 +p99 +p99.9 +time +answers/s +attempts/request ", lines[5])
    assert.matches("^first  ", lines[6])
    assert.equal(utf8.len(lines[6]), utf8.len(lines[7]))
  end)

  it("is plain values without the series", function()
    local t = result:totable()
    assert.is_nil(getmetatable(t))
    assert.equal(1, t.seed)
    assert.is_nil(t.policies[1].seconds)
    assert.equal(result.policies[2].p99, t.policies[2].p99)
    assert.truthy(moonpool.json.encode(t))
    assert.truthy(result.policies[1].seconds)
  end)

  it("is a chart with every policy in the legend and nothing unescaped", function()
    local svg = result:svg()
    assert.truthy(svg:find("a &lt;b&gt; &amp; &quot;c&quot;", 1, true))
    assert.truthy(svg:find("prénom &lt;2&gt;", 1, true))
    assert.truthy(svg:find(">outage<", 1, true))
    assert.is_nil(svg:find "nan")
    assert.is_nil(svg:find "inf")
    local _, panels = svg:gsub("<g transform", "")
    assert.equal(6, panels)
  end)

  it("survives a run in which nothing was answered", function()
    local nothing = moonpool.simulate {
      load = { requests = 3 }, policy = "none", server = { outage = { kind = "refuse" } },
    }
    assert.matches(" 3%s*$", nothing:text():match "job[^\n]*" or nothing:text():match "none[^\n]*")
    assert.is_nil(nothing:svg():find "nan")
  end)
end)

describe("a chart's marks", function()
  it("are round numbers around the values", function()
    assert.same({ 0, 20, 40, 60, 80, 100 }, chart.ticks(0, 97, 5))
    assert.same({ 0, 1 }, chart.ticks(0, 0, 1))
    assert.same({ 40, 45, 50 }, chart.ticks(42, 48, 5) and chart.ticks(42, 48, 2))
  end)

  it("are 1, 2, 5 on a logarithmic axis, powers of ten on a long one", function()
    local function near(expected, list)
      assert.equal(#expected, #list)
      for i, v in ipairs(expected) do
        assert.is_true(math.abs(list[i] / v - 1) < 1e-9, ("%g is not %g"):format(list[i], v))
      end
    end
    near({ 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10 }, chart.log_ticks(0.03, 5.5))
    near({ 0.01, 0.1, 1, 10, 100 }, chart.log_ticks(0.02, 50))
    near({ 0.2, 0.5 }, chart.log_ticks(0.3, 0.3))
  end)
end)
