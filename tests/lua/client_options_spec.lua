-- What users write: refused before any request when it makes no sense, by the name of the option and
-- the nearest that exists; and what the accepted ones do on the wire.

local moonpool = require "moonpool"
local rig = require "client_rig"

local function message(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(err)
end

local here = "tests/lua/client_options_spec.lua:"

describe("bad configuration of a client", function()
  after_each(rig.close_all)

  local base = "http://127.0.0.1:1"

  local function refused(pattern, o)
    if o.base_url == nil and not o.endpoints and not o.endpoint_pool then o.base_url = base end
    local text = message(function() moonpool.client(o) end)
    assert.matches(pattern, text)
    assert.matches(here, text, 1, true)
  end

  it("is named, with the nearest valid name", function()
    refused("unknown option 'timout' %(did you mean 'timeout'%?%)", { timout = 5 })
    refused("unknown option 'baseurl' %(did you mean 'base_url'%?%)", { baseurl = "x" })
    refused("unknown option 'max_retry' %(did you mean 'max_retries'%?%)", { max_retry = 1 })
    refused("tls: unknown option 'verfy' %(did you mean 'verify'%?%)", { tls = { verfy = true } })
    refused("pool: unknown option 'max_conections' %(did you mean 'max_connections'",
      { pool = { max_conections = 1 } })
    refused("timeout: unknown option 'conect' %(did you mean 'connect'", { timeout = { conect = 1 } })
    refused("retry: unknown option 'max_attempt' %(did you mean 'max_attempts'",
      { retry = { max_attempt = 1 } })
    refused("hedge: unknown option 'dealy'", { hedge = { dealy = 1 } })
    refused("endpoints%[1%]: unknown option 'wieght'", { endpoints = { { base_url = base, wieght = 1 } } })
    refused("unknown option 'strict'", { strict = true }) -- moonpool.strict(client:embed {...}) it is
    refused("unknown option 'zzzzqq'$", { zzzzqq = 1 })
    refused("unknown option '1'", { [1] = "x" })
  end)

  it("of a wrong type or a senseless value is named", function()
    refused("base_url: string expected, got 5", { base_url = 5 })
    refused("base_url: must begin with http", { base_url = "ftp://x" })
    refused("base_url: must begin with http", { base_url = "127.0.0.1:80" })
    refused("timeout: must be greater than 0", { timeout = -1 })
    refused("timeout: number of seconds expected", { timeout = 0 / 0 })
    refused("timeout: number of seconds expected", { timeout = "5" })
    refused("timeout: read: must be greater than 0", { timeout = { read = 0 } })
    refused("max_retries", { max_retries = -1 })
    refused("max_retries", { max_retries = 1.5 })
    refused("retry_delay", { retry_delay = 0 })
    refused("http_version: must be one of", { http_version = 3 })
    refused("pool: max_connections", { pool = { max_connections = 0 } })
    refused("max_concurrent_requests", { max_concurrent_requests = 0 })
    refused("preset: must be one of", { preset = "fast" })
    refused("retry: max_attempts", { retry = { max_attempts = 0 } })
    refused("retry: on", { retry = { on = { "sometimes" } } })
    refused("hedge: delay", { hedge = { delay = -1 } })
    refused("rate: rpm", { rate = { rpm = -5 } })
    refused("provider", { provider = "opnai" })
    refused("did you mean 'openai'", { provider = "opnai" })
    refused("user_agent: string expected", { user_agent = 5 })
    refused("verify_ssl", { verify_ssl = 1 })
  end)

  it("of endpoints is told by their number", function()
    refused("endpoints: at least one", { endpoints = {} })
    refused("endpoints%[2%]: base_url: the same as endpoint 1",
      { endpoints = { { base_url = base }, { base_url = base .. "/" } } })
    refused("weights are all 0", { endpoints = { { base_url = base, weight = 0 } } })
    refused("endpoints%[1%]: base_url: missing", { endpoints = { {} } })
    refused("endpoints%[1%]: weight", { endpoints = { { base_url = base, weight = -1 } } })
    refused("endpoints%[1%]", { endpoints = { base } })
  end)

  it("cannot smuggle headers", function()
    refused("line break", { headers = { a = "b\r\nc: d" } })
    refused("line break", { headers = { a = "b\0" } })
    refused("no header name", { headers = { ["a b"] = "c" } })
    refused("no header name", { headers = { ["a:"] = "c" } })
    refused("no header name", { headers = { ["a\r\nb"] = "c" } })
    refused("no header name", { headers = { [""] = "c" } })
    refused("no header name", { headers = { "a: b" } })
    refused("must be a string", { headers = { a = {} } })
    refused("line break", { user_agent = "x\r\ny: z" })
    refused("line break", { api_key = "x\r\ny: z" })
    refused("line break", { endpoints = { { base_url = base, headers = { a = "\n" } } } })
    refused("request_id_header", { request_id_header = "a b" })
    refused("idempotency_header", { idempotency_header = "a\r\nb" })
    refused("request_id_prefix", { request_id_prefix = "a\r\nb" })
    refused("base_url", { base_url = "http://x/\r\nHost: y" })
    refused("base_url", { base_url = "http://" })
    refused("proxy: https?: must be an address", { proxy = "ftp://x" })
    refused("proxy: https: must be an address", { proxies = { https = "a b" } })
  end)

  it("names a file that cannot be read", function()
    refused("tls: ca_file: cannot read /no/such", { tls = { ca_file = "/no/such" } })
    refused("ca_file: cannot read /no/such", { verify_ssl = "/no/such" })
    refused("api_key: cannot read /no/such", { api_key = { file = "/no/such" } })
  end)

  it("shows no secret", function()
    local text = message(function() moonpool.client { base_url = base, api_key = 12345678 } end)
    assert.is_nil(text:find("12345678", 1, true))
    text = message(function() moonpool.client { base_url = base, proxy = { http = 5, https = "canary" } } end)
    assert.is_nil(text:find("canary", 1, true))
  end)

  it("needs a table or an address", function()
    assert.matches("table of options expected", message(moonpool.client))
    assert.matches("table of options expected", message(moonpool.client, 5))
    assert.matches("base_url", message(moonpool.client, ""))
    assert.is_truthy(tostring(rig.keep(moonpool.client(base))):find(base, 1, true))
  end)
end)

describe("bad options of a call", function()
  after_each(rig.close_all)

  it("are refused before anything is sent, at the caller's line", function()
    local server = rig.embedder()
    local client = rig.client(server)
    local function refused(pattern, o, call)
      if call == nil then o.input = o.input or { "1" } end
      local text = message(function() client[call or "embed"](client, o) end)
      assert.matches(pattern, text)
      assert.matches(here, text, 1, true)
    end
    refused("unknown option 'inputs' %(did you mean 'input'%?%)", { inputs = {} })
    refused("unknown option 'batchsize' %(did you mean 'batch_size'%?%)", { batchsize = 1 })
    refused("input: must not be empty", { input = {} })
    refused("input: ", { input = 5 })
    refused("input%[2%]: string expected, got a? ?number", { input = { "a", 5 } })
    refused("input%[1%]: .*, got a boolean", { input = { true } })
    refused("batch_size: must be greater than 0, got %-1", { batch_size = -1 })
    refused("batch_size", { batch_size = 0 })
    refused("batch_size", { batch_size = 1.5 })
    refused("batch_size", { batch_size = "10" })
    refused("batch_size", { batch_size = 0 / 0 })
    refused("max_concurrent_requests", { max_concurrent_requests = 0 })
    refused("max_chars_per_request", { max_chars_per_request = -5 })
    refused("dimensions", { dimensions = 0 })
    refused("dimensions", { dimensions = 2.5 })
    refused("encoding_format: must be one of", { encoding_format = "hex" })
    refused("user: must not be longer", { user = ("x"):rep(1001) })
    refused("model: must not be blank", { model = " " })
    refused("model: string expected", { model = 5 })
    refused("timeout: must be greater than 0", { timeout = -1 })
    refused("total_timeout", { total_timeout = 0 })
    refused("timeout: unknown option 'conect'", { timeout = { conect = 1 } })
    refused("cancel_token: cancel token expected", { cancel_token = 5 })
    refused("cancel_token: cancel token expected", { cancel_token = {} })
    refused("headers: the value of a holds a line break", { headers = { a = "b\nc" } })
    refused("headers: ", { extra_headers = { ["a b"] = "c" } })
    refused("headers: ", { custom_headers = { a = true } })
    refused("retry: unknown option 'attempts'", { retry = { attempts = 1 } })
    refused("hedge", { hedge = -1 })
    refused("hedge_delay: must be less than timeout_s", { hedge_delay = 2, timeout_s = 1 })
    refused("hedge_delay: must be less than timeout", { hedge_delay = 2, timeout = 1 })
    refused("preference", { preference = 5 })
    refused("preference: unknown option 'batchsize'", { preference = { batchsize = 1 } })
    refused("query: missing", { texts = { "a" } }, "rerank")
    refused("texts", { query = "q", texts = {} }, "rerank")
    refused("texts%[1%]", { query = "q", texts = { 1 } }, "rerank")
    refused("inputs", {}, "classify")
    refused("payloads: missing", { path = "/" }, "batch_post")
    refused("payloads: must not be empty", { path = "/", payloads = {} }, "batch_post")
    refused("method: Invalid HTTP method", { payloads = { 1 }, method = "get" }, "batch_post")
    refused("table of options expected", 5, "request")
    refused("request: path: holds a space", { path = "/ x" }, "request")
    refused("batch_post: path: holds", { path = "/#x", payloads = { 1 } }, "batch_post")
    refused("stream: path: holds", { path = "/\n" }, "stream")
    assert.equal(0, #server.log)
  end)

  it("is also calling without the colon", function()
    local client = rig.client(rig.dead_url())
    assert.matches("client:embed", message(function() client.embed { input = "x" } end))
  end)
end)

describe("headers", function()
  after_each(rig.close_all)

  local function wire(copts, opts, raw)
    local server = rig.embedder()
    local client = raw and rig.keep(moonpool.client(copts(server))) or rig.client(server, copts)
    opts = opts or {}
    opts.input = { "1" }
    assert(client:embed(opts))
    return server.log[1].headers, server.log[1]
  end

  it("are few and right by default", function()
    local h = wire {}
    assert.equal("application/json", h.accept)
    assert.equal("application/json", h["content-type"])
    assert.matches("gzip", h["accept-encoding"])
    assert.matches("^moonpool/", h["user-agent"])
    assert.is_nil(h.authorization)
    assert.is_nil(h.expect)
    assert.is_string(h["x-request-id"])
    assert.is_nil(h["request-timeout-ms"])
  end)

  it("of the client and of the call replace, in any case, and false removes", function()
    local h = wire({ headers = { ["X-A"] = "client", ["x-b"] = "client", ["User-Agent"] = "mine/1" },
      user_agent = "other" },
      { headers = { ["x-a"] = "call", ["ACCEPT"] = "x/y", ["X-Request-Id"] = "own" } })
    assert.equal("call", h["x-a"])
    assert.equal("client", h["x-b"])
    assert.equal("mine/1", h["user-agent"])
    assert.equal("x/y", h.accept)
    h = wire({ headers = { ["X-A"] = "client" } }, { headers = { ["x-a"] = false, accept = false } })
    assert.is_nil(h["x-a"])
    assert.is_nil(h.accept)
  end)

  it("of extra_headers and custom_headers do so too", function()
    local h = wire({ api_key = "client-key" }, { extra_headers = { Authorization = "Bearer extra",
      ["x-1"] = "e" },
      custom_headers = { ["X-1"] = "c" } })
    assert.equal("Bearer extra", h.authorization)
    assert.equal("c", h["x-1"])
  end)

  it("carry the key: the client's, an endpoint's, the call's, a function's, a file's, none", function()
    assert.equal("Bearer k1", wire { api_key = "k1" }.authorization)
    assert.equal("Bearer k2", wire({ api_key = "k1" }, { api_key = "k2" }).authorization)
    assert.equal("Bearer k3", wire({ api_key = "k1" }, { primary_api_key_override = "k3" }).authorization)
    local n = 0
    local rotating = { api_key = function() n = n + 1 return "r" .. n end }
    local server = rig.embedder()
    local client = rig.client(server, rotating)
    assert(client:embed { input = "1" })
    assert(client:embed { input = "1" })
    assert(client:embed { input = "1", headers = { authorization = "Own x" } })
    assert.equal("Bearer r1", server.log[1].headers.authorization)
    assert.equal("Bearer r2", server.log[2].headers.authorization)
    assert.equal("Own x", server.log[3].headers.authorization)
    local path = os.tmpname()
    local f = assert(io.open(path, "w"))
    f:write "from-file\n"
    f:close()
    assert.equal("Bearer from-file", wire { api_key = { file = path } }.authorization)
    os.remove(path)
    assert.is_nil(wire({ api_key = { env = "MOONPOOL_NO_SUCH" } }).authorization)
    assert.is_nil(wire({ api_key = "" }).authorization)
    assert.equal("Bearer ep", wire(function(s)
      return { endpoints = { { base_url = s.url, api_key = "ep" } }, api_key = "client" }
    end, nil, true).authorization)
  end)

  it("that name their own authorization are not overruled by a key", function()
    assert.equal("Custom c", wire({ api_key = "k", headers = { authorization = "Custom c" } }).authorization)
    assert.is_nil(wire({ api_key = "k", headers = { Authorization = false } }).authorization)
    assert.equal("Ep e", wire(function(s)
      return { endpoints = { { base_url = s.url, api_key = "ep", headers = { Authorization = "Ep e" } } } }
    end, nil, true).authorization)
  end)

  it("tell the deadline when asked", function()
    local h = wire({ deadline_headers = true }, { timeout = 5 })
    assert.equal("5000", h["request-timeout-ms"])
    local ahead = tonumber(h["request-deadline-ms"]) / 1000 - os.time()
    assert.is_true(ahead > 2 and ahead < 8)
  end)

  it("carry an id, unique for each attempt, and one idempotency key for all of them", function()
    local server = rig.embedder(function(_, n) return n % 3 ~= 0 and { status = 503, json = {} } or nil end)
    local client = rig.client(server, { request_id_header = "X-My-Id", request_id_prefix = "pre",
      idempotency_header = "Idempotency-Key", max_concurrent_requests = 1 })
    local res = assert(client:embed { input = rig.texts(2), batch_size = 1 })
    local ids, keys = {}, {}
    for _, seen in ipairs(server.log) do
      local id = seen.headers["x-my-id"]
      assert.matches("^pre%-", id)
      assert.is_nil(ids[id])
      ids[id] = true
      local key = seen.headers["idempotency-key"]
      keys[key] = (keys[key] or 0) + 1
      assert.is_nil(seen.headers["x-request-id"])
    end
    assert.equal(6, #server.log)
    local calls, sent = 0, 0
    for _, count in pairs(keys) do calls, sent = calls + 1, sent + count end
    assert.same({ 2, 6 }, { calls, sent })
    assert.is_true(ids[res.requests[1].request_id])
    server = rig.embedder()
    assert(rig.client(server, { request_id_header = false }):embed { input = "1" })
    assert.is_nil(server.log[1].headers["x-request-id"])
  end)
end)

describe("a base URL", function()
  after_each(rig.close_all)

  it("may end in a slash or in /v1, and may have a path", function()
    local server = rig.embedder()
    for base, path in pairs { [""] = "/v1/embeddings", ["/"] = "/v1/embeddings", ["/v1"] = "/v1/embeddings",
      ["/v1/"] = "/v1/embeddings", ["/sync"] = "/sync/v1/embeddings", ["/a/b/"] = "/a/b/v1/embeddings",
      ["/sync/v1"] = "/sync/v1/embeddings" } do
      local n = #server.log
      assert(rig.client(server.url .. base):embed { input = "1" })
      assert.equal(path, server.log[n + 1].path)
    end
  end)

  it("comes from the environment when none is given", function()
    local program = [[local m = require "moonpool"
      io.write(tostring(m.client {}), "|", tostring(m.client { provider = "tei" }))]]
    local f = assert(io.popen(("OPENAI_BASE_URL=http://h:1 lua5.4 -e '%s' 2>&1"):format(program:gsub("\n",
      " "))))
    local out = f:read "a"
    f:close()
    assert.matches("openai, http://h:1", out)
    assert.matches("tei, http://127.0.0.1:8080", out)
  end)

  it("with a user and password is refused, and shows neither", function()
    for _, url in ipairs { "http://user:canary@127.0.0.1:1/", "http://h/x?canary", "http://u:canary@h:99999",
      "http://u:canary@" } do
      local text = message(moonpool.client, { base_url = url })
      assert.matches("base_url", text)
      assert.is_nil(text:find "canary")
    end
  end)
end)

describe("batches", function()
  after_each(rig.close_all)

  it("are cut by count, characters, tokens and bytes, on client or call", function()
    local server = rig.embedder()
    local function sizes(copts, opts)
      local n = #server.log
      local client = rig.client(server, copts)
      opts.max_concurrent_requests = 1
      assert(client:embed(opts))
      local list = {}
      for i = n + 1, #server.log do list[#list + 1] = #server.log[i].body.input end
      return list
    end
    local ten = {}
    for i = 1, 10 do ten[i] = ("%-40d"):format(i) end
    assert.same({ 4, 4, 2 }, sizes({}, { input = ten, batch_size = 4 }))
    assert.same({ 4, 4, 2 }, sizes({ batch_size = 4 }, { input = ten }))
    assert.same({ 4, 4, 2 }, sizes({ batch = { size = 4 } }, { input = ten }))
    assert.same({ 4, 4, 2 }, sizes({ batch = 4 }, { input = ten }))
    assert.same({ 3, 3, 3, 1 }, sizes({ batch_size = 4 }, { input = ten, batch_size = 3 }))
    assert.same({ 5, 5 }, sizes({}, { input = ten, max_chars_per_request = 200 }))
    assert.same({ 5, 5 }, sizes({ batch = { chars = 200 } }, { input = ten }))
    assert.same({ 2, 2, 2, 2, 2 }, sizes({}, { input = ten, batch = { bytes = 140 } }))
    -- how many tokens a text has is learnt from what the server says; the first guess is its length
    assert.is_true(#sizes({}, { input = ten, max_tokens_per_request = 12 }) >= 5)
    assert.same({ 10 }, sizes({}, { input = ten }))
  end)
end)

describe("a shared or closed pool", function()
  after_each(rig.close_all)

  it("refuses wrong options and what is no pool", function()
    assert.matches("unknown option 'max_conn'", message(moonpool.pool, { max_conn = 1 }))
    assert.matches("pool", message(moonpool.client, { base_url = "http://127.0.0.1:1", pool = 5 }))
    assert.matches("pool", tostring(moonpool.pool()))
  end)
end)
