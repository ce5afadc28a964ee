-- Policies as values: presets, tables with functions in them, modules, several in one; what is refused.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local rig = require "client_rig"
local policy_rig = require "policy_rig"

local policy = moonpool.policy

local function compiled(o)
  return core.policy_fields(policy.compile(o.preset or "job", o, "test", 1))
end

describe("presets", function()
  after_each(rig.close_all)

  it("come apart into places and back without a loss", function()
    for _, name in ipairs { "job", "gateway", "interactive", "none" } do
      local p = policy.preset(name)
      assert.equal(name, p.name)
      assert.equal(name, p.preset)
      local places = {}
      for _, place in ipairs(policy.places) do places[place] = p[place] end
      places.preset = name
      assert.same(compiled { preset = name }, compiled(places), name)
    end
  end)

  it("have the documented numbers", function()
    local job = policy.preset "job"
    assert.equal(6, job.retry.max_attempts)
    assert.equal(0.25, job.retry.base)
    assert.equal(30, job.retry.cap)
    assert.equal(0.1, job.retry.budget)
    assert.equal(10, job.retry.reserve)
    assert.equal("park", job.retry.when_empty)
    assert.equal(128, job.batch.size)
    assert.is_false(job.hedge)
    assert.is_false(job.rate)
    local gateway = policy.preset "gateway"
    assert.equal(2, gateway.retry.max_attempts)
    assert.equal("fail", gateway.retry.when_empty)
    assert.equal(1, policy.preset("none").retry.max_attempts)
  end)

  it("are copies", function()
    policy.preset("job").retry.max_attempts = 1
    assert.equal(6, policy.preset("job").retry.max_attempts)
  end)

  it("serve by name and as a value, on clients and calls", function()
    local server = rig.serve(function() return { status = 500, json = {} } end)
    local function attempts(o, call)
      local client = rig.keep(moonpool.client {
        base_url = server.url, policy = o, retry = { base = 0.001, throttle_base = 0.001 },
      })
      call = call or {}
      call.path = "/x"
      local _, err = client:request(call)
      return err.attempts, client
    end
    assert.equal(6, (attempts(nil)))
    assert.equal(2, (attempts "gateway"))
    assert.equal(2, (attempts(policy.preset "gateway")))
    assert.equal(1, (attempts "none"))
    assert.equal(1, (attempts(nil, { policy = "none" })))
    local _, client = attempts "none"
    assert.equal("none", client:stats().policy)
    assert.is_nil(rig.client(server):stats().policy)
  end)
end)

describe("a declaration with a hook", function()
  local function hook() end

  it("keeps the rest of the table", function()
    local f = compiled { retry = { max_attempts = 8, hook = hook } }
    assert.equal(8, f["retry.max_attempts"])
    assert.equal(0.25, f["retry.base"])
  end)

  it("alone changes nothing, but hedging is on for its hook", function()
    local plain = compiled {}
    for _, place in ipairs { "retry", "rate", "concurrency", "batch", "breaker", "route" } do
      assert.same(plain, compiled { [place] = hook }, place)
      assert.same(plain, compiled { [place] = { hook = hook } }, place)
    end
    local f = compiled { hedge = hook }
    assert.equal(2, f["hedge.factor"])
    assert.equal(0.95, f["hedge.percentile"])
    assert.equal(0.05, f["hedge.budget"])
    f = compiled { hedge = { delay = 3, hook = hook } }
    assert.equal(3, f["hedge.delay"])
    assert.equal(0, f["hedge.factor"])
  end)

  it("is built by the constructors too", function()
    local t = policy.retry { max_attempts = 3, hook = hook }
    assert.equal(hook, t.hook)
    assert.has_error(function() policy.retry { hook = 5 } end, "policy.retry: hook: function expected, got 5")
  end)
end)

describe("options that make no sense are refused", function()
  local function refuses(text, o)
    o.base_url = "http://127.0.0.1:1"
    local ok, why = pcall(moonpool.client, o)
    assert.is_false(ok)
    assert.truthy(tostring(why):find(text, 1, true), why)
  end

  it("by name", function()
    refuses("client: retry: table or function expected", { retry = "often" })
    refuses("classify: function expected", { classify = {} })
    refuses("client: policy: must be one of", { policy = "jobs" })
    refuses("unknown option 'hedg' (did you mean 'hedge'?)", { policy = { hedg = {} } })
    refuses("client: policy: before_request: function expected", { policy = { before_request = 1 } })
    refuses("client: policy[2]: unknown option", { policy = { "job", { x = 1 } } })
    refuses("client: policy", { policy = 5 })
    assert.has_error(function() policy.combine {} end)
    assert.has_error(function() policy.combine "x" end)
    assert.has_error(function() policy.preset "jobs" end)
  end)
end)

describe("a policy as a table", function()
  after_each(rig.close_all)

  it("fills in what the client does not say, field by field", function()
    local function a() end
    local function b() end
    local o = policy.expand({
      policy = { name = "p", retry = { max_attempts = 4, base = 2, hook = a }, hedge = { delay = 1 },
      classify = a,
        route = "least", preset = "gateway" },
      retry = { base = 1 }, hedge = false, route = b, on_giveup = b,
    }, "test", 1)
    assert.same({ max_attempts = 4, base = 1, hook = a }, o.retry)
    assert.is_false(o.hedge)
    assert.equal(a, o.classify)
    assert.equal(b, o.on_giveup)
    assert.equal(b, o.route)
    assert.equal("gateway", o.preset)
    assert.equal("p", o.policy_name)
    o = policy.expand({ policy = { retry = a }, retry = { base = 1 } }, "test", 1)
    assert.same({ base = 1, hook = a }, o.retry)
  end)

  it("works for calls", function()
    local server = policy_rig.script { { status = 404, json = {} } }
    local client = rig.client(server)
    assert(client:embed { input = { "1" }, policy = { retry = function() return true end } })
    assert.equal(2, #server.log)
  end)

  it("may have methods by its metatable", function()
    local p = setmetatable({ retry = { max_attempts = 3 } },
      { __index = { report = function() return "r" end } })
    local client = moonpool.client { base_url = "http://127.0.0.1:1", policy = p }
    assert.equal("r", p:report())
    client:close()
  end)
end)

describe("several policies in one", function()
  after_each(rig.close_all)

  local function returns(...)
    local values = table.pack(...)
    return function() return table.unpack(values, 1, values.n) end
  end

  it("the first word counts, names are joined", function()
    local p = policy.combine {
      { name = "a", retry = { max_attempts = 2 }, hedge = false },
      { name = "b", retry = { max_attempts = 3, base = 1 }, hedge = { delay = 1 }, preset = "gateway" },
      "none",
    }
    assert.equal("a+b+none", p.name)
    assert.equal(2, p.retry.max_attempts)
    assert.equal(1, p.retry.base)
    assert.is_false(p.hedge)
    assert.equal("gateway", p.preset)
  end)

  it("hooks: the first that decides, every gate, every listener, all headers", function()
    local heard = {}
    local function listen(word) return function() heard[#heard + 1] = word end end
    local p = policy.combine {
      {
        retry = returns(nil), rate = returns(nil), concurrency = returns(5), breaker = returns(false),
        on_giveup = listen "a", batch = returns(7), before_request = returns { headers = { A = "1" },
        body = "x" },
        after_response = returns(nil),
      },
      {
        retry = returns("retry", 2), rate = returns(0.5), concurrency = returns(3), breaker = returns(2),
        on_giveup = listen "b", batch = returns(nil),
        before_request = returns { headers = { A = "2", B = "3" }, body = "y", path = "/p" },
        after_response = returns("fail", "why"),
      },
      { retry = returns "fail", rate = returns "fail", before_request = returns(nil) },
    }
    assert.same({ "retry", 2 }, { p.retry.hook() })
    assert.same({ 0.5 }, { p.rate.hook() })
    assert.equal(3, p.concurrency.hook())
    assert.equal(2, p.breaker.hook())
    assert.equal(7, p.batch.hook())
    assert.same({ headers = { A = "1", B = "3" }, body = "x", path = "/p" }, p.before_request())
    assert.same({ "fail", "why" }, { p.after_response() })
    p.on_giveup()
    assert.same({ "a", "b" }, heard)
  end)

  it("is what a list as option means", function()
    local server = rig.serve(function() return { json = {} } end)
    local function header(name) return { before_request = returns { headers = { [name] = "1" } } } end
    local client = rig.client(server, { policy = { header "X-A", header "X-B", "gateway" } })
    assert(client:request { path = "/" })
    assert.equal("1", server.log[1].headers["x-a"])
    assert.equal("1", server.log[1].headers["x-b"])
  end)
end)
