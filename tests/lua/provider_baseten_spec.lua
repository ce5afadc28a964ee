-- Baseten: where its routes are, predict, asynchronous requests, the signature of webhooks.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local json = require "moonpool.json"
local rig = require "client_rig"

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

-- A server that says where each request went.
local function echo()
  return rig.serve(function(seen)
    if seen.path:find "async_predict$" or seen.path:find "async_run_remote$" then
      return { status = 201, json = { request_id = "r1" } }
    elseif seen.path:find "/async_request/" then
      return { json = { request_id = "r1", status = "SUCCEEDED", errors = {} } }
    elseif seen.path:find "embeddings$" then
      return { json = rig.embeddings(seen.body.input) }
    end
    return { json = { ok = true } }
  end)
end

local function baseten(server, opts)
  local o = { provider = "baseten", retry = false }
  for name, value in pairs(opts or {}) do
    o[name] = value
  end
  o.base_url = server.url .. (o.base_url or "")
  return rig.keep(moonpool.client(o))
end

local function last(server)
  return server.log[#server.log]
end

describe("baseten: routes", function()
  after_each(rig.close_all)

  -- base URL's path and options -> where embed, predict, status of a job and the queue's status go
  local cases = {
    { "", {}, "", "", "" },
    { "/v1", {}, "", "", "" },
    { "", { environment = "staging" }, "/environments/staging/sync", "/environments/staging", "" },
    { "", { environment = "development" }, "/development/sync", "/development", "" },
    { "", { deployment_id = "d1" }, "/deployment/d1/sync", "/deployment/d1", "" },
    { "/environments/production/sync", {}, "/environments/production/sync", "/environments/production", "" },
    { "/environments/e/sync/v1/", {}, "/environments/e/sync", "/environments/e", "" },
    { "/environments/production", {}, "/environments/production/sync", "/environments/production", "" },
    { "/deployment/d2/sync", {}, "/deployment/d2/sync", "/deployment/d2", "" },
    { "/production/sync", {}, "/production/sync", "/production", "" },
    { "/development/", {}, "/development/sync", "/development", "" },
    { "/sync", {}, "/sync", "", "" },
    { "/gw", { environment = "x" }, "/environments/x/sync", "/environments/x", "", "/gw" },
    { "/gw/environments/x/sync", {}, "/gw/environments/x/sync", "/gw/environments/x", "/gw" },
  }

  for _, case in ipairs(cases) do
    local base, opts, sync, call, root, above = table.unpack(case)
    if above then
      sync, call, root = above .. sync, above .. call, above .. root
    end
    local name = next(opts) and next(opts) .. " = " .. opts[next(opts)] or "base URL with " .. base
    it(name, function()
      local server = echo()
      opts.base_url = base
      local client = baseten(server, opts)
      assert(client:embed { input = { "1" } })
      assert.equal(sync .. "/v1/embeddings", last(server).path)
      assert(client:predict { json = {} })
      assert.equal(call .. "/predict", last(server).path)
      local job = assert(client:async_predict { model_input = {} })
      assert.equal(call .. "/async_predict", last(server).path)
      assert(job:status())
      assert.equal(root .. "/async_request/r1", last(server).path)
      assert(client:async_queue_status())
      assert.equal(call .. "/async_queue_status", last(server).path)
      assert(client:wake())
      assert.equal(call .. "/wake", last(server).path)
      assert.equal("", last(server).text)
      assert(client:batch_post { path = "/v1/embeddings", payloads = { { input = { "1" } } } })
      assert.equal(base:gsub("/v1/?$", ""):gsub("/$", "") .. "/v1/embeddings", last(server).path)
    end)
  end

  it("hosts of models, chains, regions and the Model APIs", function()
    local function host(opts)
      opts.provider = "baseten"
      return tostring(rig.keep(moonpool.client(opts))):match "https://[^)]+"
    end
    assert.equal("https://model-abc.api.baseten.co", host { model_id = "abc" })
    assert.equal("https://model-abc-prod-us.api.baseten.co", host { model_id = "abc", region = "prod-us" })
    assert.equal("https://chain-abc.api.baseten.co", host { chain_id = "abc", environment = "x" })
    assert.equal("https://inference.baseten.co", host {})
    local function path(opts)
      opts.provider = "baseten"
      return rig.keep(moonpool.client(opts)):predict_path()
    end
    assert.equal("/environments/production/predict", path { model_id = "abc" })
    assert.equal("/predict", path { model_id = "abc", region = "prod-us" })
    assert.equal("/predict", path { base_url = "https://model-abc-eu.api.baseten.co" })
    assert.equal("/environments/production/predict", path { base_url = "https://model-abc.api.baseten.co/" })
    assert.equal("/environments/e/run_remote", path { chain_id = "abc", environment = "e" })
    assert.equal("/deployment/d/run_remote",
      path { base_url = "https://chain-abc.api.baseten.co", deployment_id = "d" })
  end)

  it("senseless options are refused", function()
    local function refused(pattern, opts)
      opts.provider = "baseten"
      local ok, err = pcall(moonpool.client, opts)
      assert.is_false(ok)
      assert.matches(pattern, tostring(err))
    end
    refused("exclude each other", { model_id = "a", chain_id = "b" })
    refused("exclude each other", { model_id = "a", environment = "x", deployment_id = "b" })
    refused("says it already", { base_url = "http://x/production/sync", environment = "staging" })
    refused("says it already", { base_url = "http://x/v1", deployment_id = "d" })
    refused("region", { model_id = "a", environment = "x", region = "b" })
    refused("letters, digits", { model_id = "a.evil.example/" })
    refused("has no scheme 'digest'", { model_id = "a", auth_scheme = "digest" })
    refused("unknown option 'modelid'", { modelid = "a" })
  end)

  it("the key comes from BASETEN_API_KEY, then OPENAI_API_KEY", function()
    local names = moonpool.provider.get("baseten").key_env
    assert.same({ "BASETEN_API_KEY", "OPENAI_API_KEY" }, names)
  end)
end)

describe("baseten: predict", function()
  after_each(rig.close_all)

  it("sends the input, an id of its own and its deadline", function()
    local server = echo()
    local client = baseten(server, { api_key = "k", request_id_prefix = "pre" })
    local res = assert(client:predict { json = { prompt = "hi" }, timeout = 5 })
    assert.is_true(res.data.ok)
    local seen = last(server)
    assert.same({ prompt = "hi" }, seen.body)
    assert.equal("Bearer k", seen.headers.authorization)
    assert.matches("^pre", seen.headers["x-baseten-customer-request-id"])
    assert.equal("5000", seen.headers["request-timeout-ms"])
    assert.is_true(tonumber(seen.headers["request-deadline-ms"]) > core.wall() * 1000)
    assert.equal("bytes", assert(client:predict { body = "bytes" }) and last(server).text)
    assert(client:predict { input = { 1, 2 } })
    assert.equal("[1,2]", last(server).text)
  end)

  it("takes many payloads", function()
    local server = echo()
    local res = assert(baseten(server):predict { payloads = { { n = 1 }, { n = 2 } } })
    assert.equal(2, #res)
    assert.is_true(res.ok)
    assert.equal(2, #server.log)
  end)

  it("is not hedged unless the call says so: a cold model only gets a longer queue", function()
    local server
    server = rig.serve(function(_, n)
      if n == 1 then
        moonpool.sleep(0.05)
      else
        rig.until_true("the hedge has come", function() return #server.log == 3 end)
      end
      return { json = {} }
    end)
    local client = baseten(server, { hedge = { delay = 0.001, budget = 1 } })
    assert(client:predict { json = {} })
    assert.equal(1, #server.log)
    assert(client:predict { json = {}, hedge = { delay = 0.001, budget = 1, reserve = 5 } })
    assert.equal(3, #server.log)
  end)

  it("reports options that make no sense under its own name", function()
    local client = baseten(echo())
    local ok, err = pcall(client.predict, client, { jsn = {} })
    assert.is_false(ok)
    assert.matches("predict: unknown option 'jsn' %(did you mean 'json'", tostring(err))
    assert.has_error(function() client:predict {} end)
  end)
end)

describe("baseten: asynchronous requests", function()
  after_each(rig.close_all)

  it("carry what the service takes, and no more", function()
    local server = echo()
    local client = baseten(server)
    local job = assert(client:async_predict {
      model_input = { x = 1 }, webhook_endpoint = "https://me.example/hook", priority = 1,
      max_time_in_queue_seconds = 60, inference_retry_config = { max_attempts = 2, initial_delay_ms = 0 },
      headers = { ["X-A"] = "b" },
    })
    assert.equal("r1", job.id)
    assert.same({
      model_input = { x = 1 }, webhook_endpoint = "https://me.example/hook", priority = 1,
      max_time_in_queue_seconds = 60, inference_retry_config = { max_attempts = 2, initial_delay_ms = 0 },
    }, last(server).body)
    assert.equal("b", last(server).headers["x-a"])
  end)

  it("are checked before they are sent", function()
    local server = echo()
    local client = baseten(server)
    local function refused(pattern, opts, input)
      opts.model_input = input or 1
      local ok, err = pcall(client.async_predict, client, opts)
      assert.is_false(ok)
      assert.matches(pattern, tostring(err))
    end
    assert.has_error(function() client:async_predict {} end)
    refused("webhook_endpoint: must begin with https", { webhook_endpoint = "http://x.example" })
    refused("webhook_endpoint: must begin with https", { webhook_endpoint = "https://" })
    refused("priority: must be a whole number from 0 to 2", { priority = 3 })
    refused("max_time_in_queue_seconds: .* from 10 to 259200", { max_time_in_queue_seconds = 9 })
    refused("max_attempts: .* from 1 to 10", { inference_retry_config = { max_attempts = 11 } })
    refused("unknown option 'max_attempt'", { inference_retry_config = { max_attempt = 1 } })
    refused("model_input: .*function", {}, { f = print })
    local job, err = client:async_predict { model_input = ("x"):rep(256 * 1024) }
    assert.is_nil(job)
    assert.equal("too_large", err.kind)
    assert.equal(0, #server.log)
  end)

  it("are not submitted twice by a retry that cannot know", function()
    local server = rig.serve(function() return { status = 500, json = { error = "oops" } } end)
    local client = baseten(server, { retry = rig.quick })
    local _, err = client:async_predict { model_input = 1 }
    assert.equal(500, err.status)
    assert.equal(1, #server.log)
    local busy = rig.serve(function(_, n)
      if n == 1 then
        return { status = 429, json = { error = "busy" } }
      end
      return { status = 201, json = { request_id = "r" } }
    end)
    client = baseten(busy, { retry = rig.quick })
    local retry = { on = { 429 }, base = 0.001, throttle_base = 0.001 }
    assert(client:async_predict { model_input = 1, retry = retry })
    assert.equal(2, #busy.log)
  end)

  it("run to their end", function()
    local mock = rig.mock {}
    local client = baseten(mock, { environment = "production" })
    local job = assert(client:async_predict { model_input = { mock = { queue = 0.02, run = 0.02 } } })
    local status = assert(job:wait { interval = 0.01 })
    assert.equal("SUCCEEDED", status.status)
    assert.equal("NO_WEBHOOK_PROVIDED", status.webhook_status)
    assert.equal(job.id, status.request_id)
    local again = client:async_request(job.id)
    assert.equal("SUCCEEDED", assert(again:status()).status)
    assert.equal(job.id, tostring(again):match "%((.*)%)")
  end)

  it("fail with the service's code", function()
    local mock = rig.mock {}
    local client = baseten(mock, { environment = "production" })
    local job = assert(client:async_predict { model_input = { mock = { fail = "out of memory" } } })
    local status, err = job:wait()
    assert.is_nil(status)
    assert.equal("http", err.kind)
    assert.equal("MODEL_PREDICT_ERROR", err.code)
    assert.equal("FAILED", err.job_status.status)
    assert.matches("the model failed: out of memory", err.message)
  end)

  it("are cancelled while they are queued, and only then", function()
    local mock = rig.mock {}
    local client = baseten(mock, { environment = "production" })
    local job = assert(client:async_predict { model_input = { mock = { queue = 60 } } })
    assert.equal("QUEUED", assert(job:status()).status)
    local queue = assert(client:async_queue_status())
    assert.equal(1, queue.num_queued_requests)
    assert.is_true(assert(job:cancel()))
    local _, err = job:wait()
    assert.equal("cancelled", err.kind)
    local ok, why = job:cancel()
    assert.is_nil(ok)
    assert.matches("Only queued", why.message)
    _, err = client:async_request("nope"):status()
    assert.equal(404, err.status)
  end)

  it("go on when waiting for them is given up", function()
    local mock = rig.mock {}
    local client = baseten(mock, { environment = "production" })
    local job = assert(client:async_predict { model_input = { mock = { queue = 60 } } })
    local _, err = job:wait { timeout = 0.05, interval = 0.01 }
    assert.equal("total_timeout", err.kind)
    assert.equal("QUEUED", err.job_status.status)
  end)

  it("are asked about at most twenty times a second, however many they are", function()
    local server = rig.serve(function()
      return { json = { request_id = "r", status = "SUCCEEDED", errors = {} } }
    end)
    local client = baseten(server)
    local n = 12
    local start = moonpool.now()
    moonpool.map(rig.texts(n), { window = n }, function(id)
      assert(client:async_request(id):wait { interval = 0.001 })
    end)
    assert.equal(n, #server.log)
    -- The turns are a twentieth of a second apart: so many cannot be done sooner, however fast all is.
    assert.is_true(server.log[n].at - start >= (n - 1) / 20)
  end)

  it("deliver to a webhook, whose signature can be checked", function()
    local got
    local receiver = rig.serve(function(seen)
      got = seen
      return { json = {} }
    end)
    local mock = rig.mock {}
    local client = baseten(mock, {
      environment = "production", webhook_secrets = { "old", "whsec_moonpool" },
    })
    local job = assert(client:async_predict {
      model_input = { x = 1 }, webhook_endpoint = receiver.url .. "/hook",
    })
    assert.equal("SUCCEEDED", assert(job:wait { interval = 0.01 }).webhook_status)
    assert.equal("/hook", got.path)
    assert.is_nil(got.headers.authorization)
    local ok, payload = client:verify_webhook(got.text, got.headers["x-baseten-signature"])
    assert.is_true(ok)
    assert.equal(job.id, payload.request_id)
    assert.same({ x = 1 }, payload.data.echo)
    local bad, err = client:verify_webhook(got.text .. " ", got.headers["x-baseten-signature"])
    assert.is_nil(bad)
    assert.equal("signature", err.code)
  end)

  it("say so when the webhook refused the output, which is then lost", function()
    local receiver = rig.serve(function() return { status = 500, body = "" } end)
    local mock = rig.mock {}
    local client = baseten(mock, { environment = "production" })
    local job = assert(client:async_predict { model_input = {}, webhook_endpoint = receiver.url .. "/" })
    local _, err = job:wait()
    assert.equal("WEBHOOK_FAILED", err.code)
    assert.matches("could not be delivered", err.message)
  end)
end)

describe("webhook signatures", function()
  local verify = moonpool.provider.verify_webhook
  local SENT = 1710781284 -- 2024-03-18T17:01:24Z

  local function signed(body, secret)
    return "v1=" .. hex(core.hmac_sha256(secret, body))
  end

  local function body(time)
    return json.encode { request_id = "r", time = time, data = { 1 } }
  end

  it("HMAC-SHA256 is right", function()
    -- RFC 4231, test cases 1, 2, 6 and 7.
    assert.equal("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
      hex(core.hmac_sha256(("\x0b"):rep(20), "Hi There")))
    assert.equal("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
      hex(core.hmac_sha256("Jefe", "what do ya want for nothing?")))
    assert.equal("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
      hex(core.hmac_sha256(("\xaa"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First")))
    assert.equal("9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
      hex(core.hmac_sha256(("\xaa"):rep(131), "This is a test using a larger than block-size key and a "
        .. "larger than block-size data. The key needs to be hashed before being used by the HMAC "
        .. "algorithm.")))
    assert.equal(32, #core.hmac_sha256("", ""))
    assert.is_true(core.same_bytes("abc", "abc"))
    assert.is_false(core.same_bytes("abc", "abd"))
    assert.is_false(core.same_bytes("abc", "ab"))
    assert.is_true(core.same_bytes("", ""))
  end)

  it("any of several secrets and signatures will do", function()
    local b = body "2024-03-18T17:01:24Z"
    local now = { now = SENT }
    assert.is_true(verify(b, signed(b, "s1"), "s1", now))
    assert.is_true(verify(b, signed(b, "s1"), { "s0", "s1" }, now))
    assert.is_true(verify(b, signed(b, "new") .. "," .. signed(b, "old"), { "old" }, now))
    assert.is_true(verify(b, "v0=00, " .. signed(b, "s1"):upper():gsub("V1", "v1"), "s1", now))
    local _, payload = verify(b, signed(b, "s1"), "s1", now)
    assert.equal("r", payload.request_id)
  end)

  it("what is not signed, wrongly signed or changed is refused", function()
    local b = body "2024-03-18T17:01:24Z"
    for _, header in ipairs { "", "v1=", "v1=00", "v2=" .. signed(b, "s"):sub(4), signed(b, "other"),
      signed(b, "s"):sub(1, -2), signed(b, "s") .. "0", "signature" } do
      local ok, err = verify(b, header, "s", { now = SENT })
      assert.is_nil(ok, header)
      assert.equal("signature", err.code)
      assert.equal("invalid", err.kind)
    end
    assert.is_nil((verify(b, nil, "s", { now = SENT })))
    assert.is_nil((verify(b .. " ", signed(b, "s"), "s", { now = SENT })))
  end)

  it("old ones are refused, and those from the future", function()
    local function at(time, now, tolerance)
      local b = body(time)
      local ok, err = verify(b, signed(b, "s"), "s", { now = now, tolerance = tolerance })
      return ok or err.code
    end
    assert.is_true(at("2024-03-18T17:01:24Z", SENT + 300))
    assert.equal("time", at("2024-03-18T17:01:24Z", SENT + 301))
    assert.equal("time", at("2024-03-18T17:01:24Z", SENT - 301))
    assert.is_true(at("2024-03-18T17:01:24Z", SENT + 900, 1000))
    assert.is_true(at("2024-03-18T17:01:24Z", SENT + 1e9, false))
    assert.is_true(at("2024-03-18T18:01:24.5+01:00", SENT))
    assert.is_true(at("2024-03-18T11:31:24.123456-05:30", SENT))
    assert.is_true(at("2024-03-18T17:01:24", SENT))
    assert.is_true(at("2000-02-29T00:00:00Z", 951782400))
    for _, time in ipairs { "yesterday", "", 7, json.null, "2024-03-18T17:01:24Q" } do
      assert.equal("time", at(time, SENT))
    end
    local b = "not json"
    local _, err = verify(b, signed(b, "s"), "s", { now = SENT })
    assert.equal("body", err.code)
    assert.is_true((verify("[]", signed("[]", "s"), "s", { tolerance = false })))
  end)

  it("a check without a secret is a mistake of the program", function()
    assert.has_error(function() verify("{}", "v1=00", {}) end)
    assert.has_error(function() verify("{}", "v1=00", "") end)
    assert.has_error(function() verify("{}", "v1=00", { "a", "" }) end)
    assert.has_error(function() verify({}, "v1=00", "s") end)
    local client = rig.keep(moonpool.client { provider = "baseten", base_url = "http://127.0.0.1:1" })
    assert.has_error(function() client:verify_webhook("{}", "v1=00") end)
    rig.close_all()
  end)
end)
