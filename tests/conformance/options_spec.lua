-- C12-C24: the options of the peers' preferences. Where a peer refuses values above a ceiling of its
-- own, ours takes them: only what makes no sense is refused. README.md says where each comes from.

local moonpool = require "moonpool"
local rig = require "client_rig"

local function refusal(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(err)
end

-- A value for an option is taken: as a preference, mutated into one, and given to the call.
local function taken(name, value, other)
  local server = rig.embedder()
  local client = rig.client(server)
  local function fields()
    local t = {}
    for k, v in pairs(other or {}) do t[k] = v end
    t[name] = value
    return t
  end
  assert.is_nil(rig.wrong_row(assert(client:embed { input = { "1" },
    preference = moonpool.preference(fields()) }), { "1" }))
  local mutated = moonpool.preference(other)
  mutated[name] = value
  assert(client:embed { input = { "1" }, preference = mutated })
  local direct = fields()
  direct.input = { "1" }
  assert(client:embed(direct))
  assert.equal(3, #server.log)
end

local function refused(pattern, name, value, other)
  local server = rig.embedder()
  local client = rig.client(server)
  local t = {}
  for k, v in pairs(other or {}) do t[k] = v end
  t[name] = value
  assert.matches(pattern, refusal(moonpool.preference, t))
  local mutated = moonpool.preference(other)
  mutated[name] = value
  assert.matches(pattern, refusal(client.embed, client, { input = { "1" }, preference = mutated }))
  t.input = { "1" }
  assert.matches(pattern, refusal(client.embed, client, t))
  assert.equal(0, #server.log)
end

local nan = 0 / 0

describe("conformance: preferences", function()
  after_each(rig.close_all)

  it("C12 fields that were not given read as the seed's defaults", function()
    local p = moonpool.preference()
    assert.same({ 128, 128, 3600, false, 0.10, 0.05, 5, 125 },
      { p.max_concurrent_requests, p.batch_size, p.timeout_s,
      p.pin_initial_endpoint_once, p.hedge_budget_pct, p.retry_budget_pct, p.max_retries,
      p.initial_backoff_ms })
    for _, name in ipairs { "max_chars_per_request", "total_timeout_s", "hedge_delay", "cancel_token",
      "primary_api_key_override", "extra_headers", "non_retryable_status_codes" } do
      assert.is_nil(p[name])
    end
  end)

  it("C13 every field can be set, changed and read back", function()
    local token = moonpool.cancel_token()
    local values = { max_concurrent_requests = 64, batch_size = 32, max_chars_per_request = 8000,
      timeout_s = 30.5,
      total_timeout_s = 300, hedge_delay = 0.5, hedge_budget_pct = 0.15, retry_budget_pct = 0.08,
      max_retries = 2,
      initial_backoff_ms = 250, cancel_token = token, primary_api_key_override = "k",
      extra_headers = { ["x-a"] = "b" },
      non_retryable_status_codes = { 529 }, pin_initial_endpoint_once = true }
    local p, q = moonpool.preference(values), moonpool.preference()
    for name, value in pairs(values) do
      q[name] = value
      assert.equal(value, p[name])
      assert.equal(value, q[name])
    end
    local server = rig.embedder()
    local client = rig.client(server)
    for _ = 1, 2 do -- the same preference serves several calls
      assert(client:embed { input = { "1" }, preference = p })
      assert(client:batch_post { path = "/", payloads = { { input = { "1" } } }, preference = q })
    end
    assert.equal("b", server.log[4].headers["x-a"])
    assert.equal("Bearer k", server.log[4].headers.authorization)
  end)

  it("C16 budgets cannot be negative, nor exceed 300 %", function()
    for _, name in ipairs { "hedge_budget_pct", "retry_budget_pct" } do
      refused(name .. ": cannot be negative", name, -0.1)
      refused(name .. ": number expected", name, nan)
      refused(name .. ": number expected", name, "10%")
      refused(name .. ": cannot exceed 3%.0 %(300%%%)", name, 3.5)
      taken(name, 3)
      taken(name, 0)
    end
  end)

  it("C17 any positive backoff is taken", function()
    for _, ms in ipairs { 1, 25, 125, 50000 } do taken("initial_backoff_ms", ms) end
    for _, ms in ipairs { 0, -1, nan } do refused("initial_backoff_ms", "initial_backoff_ms", ms) end
  end)

  it("C18 any number of retries is taken", function()
    for _, n in ipairs { 0, 3, 7, 100 } do taken("max_retries", n) end
    for _, n in ipairs { -1, 1.5, nan } do refused("max_retries", "max_retries", n) end
  end)

  it("C19 any status may be declared final, and an empty list changes nothing", function()
    taken("non_retryable_status_codes", { 0, 65535, 429 })
    refused("non_retryable_status_codes", "non_retryable_status_codes", { -1 })
    refused("non_retryable_status_codes", "non_retryable_status_codes", { 65536 })
    refused("non_retryable_status_codes", "non_retryable_status_codes", { "429" })
    local server = rig.embedder(function(_, n) return n == 1 and { status = 503, json = {} } or nil end)
    assert(rig.client(server):embed { input = { "1" }, non_retryable_status_codes = {} })
    assert.equal(2, #server.log)
  end)

  it("C20 a hedge must come before the timeout", function()
    refused("hedge_delay: must be less than timeout_s", "hedge_delay", 2.0, { timeout_s = 1.0 })
    refused("hedge_delay: must be less than timeout_s", "hedge_delay", 1.0, { timeout_s = 1.0 })
    taken("hedge_delay", 0.5, { timeout_s = 1.0 })
    taken("hedge_delay", 0.001)
  end)

  it("C21 batch and concurrency above the peer's limits are taken, zero is not", function()
    taken("batch_size", 1, { max_concurrent_requests = 2000 })
    taken("batch_size", 2000, { max_concurrent_requests = 1 })
    taken("batch_size", 2000, { max_concurrent_requests = 2000 })
    taken("max_concurrent_requests", 20000)
    for _, name in ipairs { "batch_size", "max_concurrent_requests", "max_chars_per_request" } do
      refused(name .. ": must be greater than 0", name, 0)
      refused(name .. ": must be greater than 0", name, -5)
      refused(name .. ": number expected", name, nan)
    end
  end)

  it("C22 700 requests at once with a batch of one are fine", function()
    local most, now = 0, 0
    local server = rig.embedder(function()
      now = now + 1
      most = math.max(most, now)
      while most < 700 do moonpool.sleep(0.005) end
    end)
    local client = rig.client(server, { pool = { max_connections = 1000 } })
    local texts = rig.texts(700)
    local res = rig.within(60, client.embed, client, { input = texts, batch_size = 1,
      max_concurrent_requests = 700 })
    assert.is_nil(rig.wrong_row(res, texts))
    assert.equal(700, most)
  end)

  it("C23 fields changed after construction are the ones used", function()
    local server = rig.embedder()
    local client = rig.client(server)
    local p = moonpool.preference { batch_size = 1 }
    p.batch_size = 3
    assert(client:embed { input = rig.texts(6), preference = p })
    assert.equal(2, #server.log)
    p.batch_size = 6
    assert(client:embed { input = rig.texts(6), preference = p })
    assert.equal(3, #server.log)
    assert(client:embed { input = rig.texts(6), preference = p,
      batch_size = 2 }) -- the call's own word is last
    assert.equal(6, #server.log)
  end)

  it("C24 empty inputs and wrong types are refused in all four calls", function()
    local server = rig.embedder()
    local client = rig.client(server)
    local cases = {
      embed = { { input = {} }, { input = 5 }, { input = { 1, 2, "x" } }, {}, { input = { "a" }, model = "" },
        { input = { "a" }, model = "  " }, { input = { "a" }, dimensions = 0 },
        { input = { "a" }, user = ("u"):rep(1001) },
        { input = { "a" }, dimensions = 1000001 }, { input = { "a" }, encoding_format = "int8" } },
      rerank = { { query = "q", texts = {} }, { query = "q", texts = "x" }, { query = 5, texts = { "a" } },
      { texts = { "a" } },
        { query = "q", texts = { {} } }, { query = "q", texts = { "a" }, truncation_direction = "Up" },
        { query = "q", texts = { "a" }, raw_scores = 1 } },
      classify = { { inputs = {} }, { inputs = 5 }, { inputs = { 5 } }, {},
      { inputs = { "a" }, raw_scores = "yes" } },
      batch_post = { { path = "/", payloads = {} }, { path = "/", payloads = "x" }, { path = "/" },
      { path = 5, payloads = { 1 } } },
    }
    for name, list in pairs(cases) do
      for i, o in ipairs(list) do
        local ok, err = pcall(client[name], client, o)
        assert.is_false(ok, name .. " " .. i)
        assert.matches(name .. ": ", tostring(err))
      end
    end
    assert.equal(0, #server.log)
  end)
end)
