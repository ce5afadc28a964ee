-- The names of the seed systems: constructors, calls, preferences and results work as written there.
-- README.md says which seed has which.

local moonpool = require "moonpool"
local rig = require "client_rig"

describe("conformance: names of the seeds", function()
  after_each(rig.close_all)

  it("S0 max_retries and retry_delay", function()
    local server = rig.serve(function() return { status = 500, json = {} } end)
    for _, n in ipairs { 0, 2 } do
      local before = #server.log
      local client = rig.keep(moonpool.client { base_url = server.url, max_retries = n, retry_delay = 0.001 })
      local _, err = client:embed { input = { "1" } }
      assert.same({ n + 1, n + 1 }, { err.attempts, #server.log - before })
    end
  end)

  it("S0 timeout, headers, user_agent, api_key, base_url with a slash", function()
    local server = rig.embedder(function(seen) if seen.body.input[1] == "2" then moonpool.sleep(60) end end)
    local client = rig.keep(moonpool.client { base_url = server.url .. "/", api_key = "K", timeout = 0.1,
      max_retries = 0,
      user_agent = "MyApp/1.0", headers = { ["X-App-Version"] = "1.2.3", ["X-Environment"] = "production" } })
    assert(client:embed { input = { "1" } })
    local h = server.log[1].headers
    assert.same({ "MyApp/1.0", "1.2.3", "production", "Bearer K" },
      { h["user-agent"], h["x-app-version"], h["x-environment"], h.authorization })
    local _, err = rig.within(20, client.embed, client, { input = { "2" } })
    assert.equal("read_timeout", err.kind)
  end)

  it("S0 proxies", function()
    -- A proxy sees the whole URL in the request line; here the proxy is a server of ours.
    local proxy = rig.embedder()
    local client = rig.keep(moonpool.client { base_url = "http://upstream.invalid",
      proxies = { http = proxy.url:gsub("//", "//user:pass@") , https = "http://127.0.0.1:1" } })
    assert.is_nil(rig.wrong_row(assert(client:embed { input = { "1" } }), { "1" }))
    assert.equal("upstream.invalid", proxy.log[1].headers.host)
    assert.equal("Basic dXNlcjpwYXNz", proxy.log[1].headers["proxy-authorization"])
  end)

  it("S0 verify_ssl: true, false, or a file of certificates", function()
    local path = os.tmpname()
    for _, value in ipairs { true, path } do
      rig.keep(moonpool.client { base_url = "https://127.0.0.1:1", verify_ssl = value })
    end
    os.remove(path)
    assert.has_error(function() moonpool.client { base_url = "https://127.0.0.1:1",
      verify_ssl = "/no/such/file" } end)
    local script = [[require("moonpool").client {base_url = "https://127.0.0.1:1", verify_ssl = false}]]
    local f = assert(io.popen(("lua5.4 -e '%s' 2>&1"):format(script)))
    local said = f:read "a"
    f:close()
    assert.matches("not verified", said) -- switched off with a warning
  end)

  it("S1 four timeouts and the presets of its table", function()
    assert.same({ connect = 10, read = 1200 }, moonpool.timeouts.llm)
    assert.same({ connect = 10, read = 60 }, moonpool.timeouts.embedding)
    assert.same({ connect = 10, read = 30 }, moonpool.timeouts.submit)
    assert.same({ connect = 10, read = 1200 }, moonpool.timeouts.stream)
    local server = rig.embedder()
    local client = rig.keep(moonpool.client { base_url = server.url, timeout = moonpool.timeouts.embedding })
    assert(client:embed { input = { "1" }, timeout = moonpool.timeouts.llm })
    assert(client:embed { input = { "1" }, timeout = { connect = 10, read = 1200, write = 30, pool = 10 } })
  end)

  it("S1 pool limits", function()
    local server = rig.embedder()
    local client = rig.keep(moonpool.client { base_url = server.url,
      pool = { max_connections = 256, max_idle = 128, idle_timeout = 30, max_age = 300 } })
    assert(client:embed { input = { "1" } })
  end)

  it("S2 client_wrapper shares the connections of several clients", function()
    local server = rig.embedder()
    local wrapper = moonpool.pool()
    local one = rig.client(server, { client_wrapper = wrapper, http_version = 1, api_key = "one" })
    local two = rig.client(server, { client_wrapper = wrapper, api_key = "two" })
    for _ = 1, 3 do
      assert(one:embed { input = { "1" } })
      assert(two:embed { input = { "1" } })
    end
    assert.equal("Bearer one", server.log[5].headers.authorization)
    assert.equal("Bearer two", server.log[6].headers.authorization)
    assert.is_true(server:stats().connections_opened <= 2)
  end)

  it("S2 embed: model, encoding_format, dimensions, user, preference; data, usage, times, headers", function()
    local server = rig.embedder()
    local client = rig.client(server)
    local preference = moonpool.preference { batch_size = 2, max_concurrent_requests = 32, timeout_s = 360,
      max_chars_per_request = 10000, hedge_delay = 0.5, total_timeout_s = 600 }
    local response = assert(client:embed { input = rig.texts(3), model = "my_model",
      encoding_format = "float",
      dimensions = 3, user = "u", preference = preference })
    assert.equal("rig", response.model)
    assert.equal(3, response.usage.total_tokens)
    assert.equal(3, response.usage.prompt_tokens)
    assert.equal("number", type(response.total_time))
    assert.equal("list", response.object)
    for i, item in ipairs(response.data) do
      assert.same({ object = "embedding", index = i, embedding = rig.vector(tostring(i)) }, item)
    end
    assert.equal(3, #response.data)
    assert.equal(2, #response.individual_request_times)
    assert.equal(2, #response.individual_batch_request_times)
    assert.equal("application/json", response.response_headers[2]["content-type"])
    assert.same({ model = "my_model", encoding_format = "float", dimensions = 3, user = "u" }, (function()
      local body = server.log[1].body
      body.input = nil
      return body
    end)())
  end)

  it("S2 rerank: texts, return_text, truncate; data of index and score", function()
    local server = rig.serve(function() return { json = { { index = 1, score = 0.9, text = "b" },
      { index = 0, score = 0.1, text = "a" } } } end)
    local response = assert(rig.client(server):rerank { query = "q", texts = { "a", "b" }, model = "m",
      return_text = true,
      raw_scores = false, truncate = false, truncation_direction = "Right",
      preference = moonpool.preference { batch_size = 16 } })
    assert.same({ { index = 2, score = 0.9, text = "b" }, { index = 1, score = 0.1, text = "a" } },
      response.data)
    assert.same(response.results, response.data)
    assert.equal("list", response.object)
    assert.equal(1, #response.individual_request_times)
    assert.equal(1, #response.response_headers)
    assert.same({ query = "q", texts = { "a", "b" }, model = "m", return_text = true, raw_scores = false,
      truncate = false,
      truncation_direction = "Right" }, server.log[1].body)
  end)

  it("S2 classify: inputs as lists of one; data of groups", function()
    local server = rig.serve(function() return { json = { { { label = "good", score = 0.9 } } } } end)
    local response = assert(rig.client(server):classify { inputs = { "This is great!" }, model = "m",
      preference = moonpool.preference { batch_size = 16 } })
    for _, group in ipairs(response.data) do
      for _, result in ipairs(group) do assert.same({ "good", 0.9 }, { result.label, result.score }) end
    end
    assert.same({ { "This is great!" } }, server.log[1].body.inputs)
    assert.equal(1, #response.individual_request_times)
  end)

  it("S2 batch_post: url_path, payloads, custom_headers, method; data, response_headers, times", function()
    local server = rig.embedder()
    local client = rig.client(server, { api_key = "client" })
    local response = assert(client:batch_post { url_path = "v1/embeddings", method = "POST",
      payloads = { { model = "m", input = { "1" } }, { model = "m", input = { "2" } } },
      custom_headers = { ["x-custom-header"] = "value", authorization = "Bearer token" },
      preference = moonpool.preference { max_concurrent_requests = 1, timeout_s = 360, hedge_delay = 0.5,
      total_timeout_s = 360 } })
    for i = 1, 2 do
      assert.equal(i, response.data[i].data[1].embedding[1])
      assert.equal("application/json", response.response_headers[i]["content-type"])
      assert.is_true(response.individual_request_times[i] > 0)
      assert.same({ "/v1/embeddings", "value", "Bearer token" },
        { server.log[i].path, server.log[i].headers["x-custom-header"], server.log[i].headers.authorization })
    end
    assert.is_true(response.total_time > 0)
  end)

  it("S2 a cancellation token shared by operations", function()
    local token = moonpool.cancel_token()
    local server = rig.embedder(function() moonpool.sleep(60) end)
    local client = rig.client(server)
    local p = moonpool.preference { cancel_token = token, batch_size = 1 }
    assert.is_false(token:is_cancelled())
    local errors = rig.within(20, function()
      return moonpool.gather {
        function() return select(2, client:embed { input = rig.texts(2), preference = p }) end,
        function() return select(2, client:batch_post { url_path = "/", payloads = { {} },
        preference = p }) end,
        function()
          rig.until_true("three are there", function() return #server.log == 3 end)
          token:cancel()
        end,
      }
    end)
    assert.is_true(token:is_cancelled())
    assert.equal("cancelled", errors[1].kind)
    assert.equal("cancelled", errors[2].kind)
    assert.matches("cancelled", tostring(errors[1]))
  end)

  it("S2 endpoint_pool, and operations whose first attempts stay on one endpoint", function()
    local servers, endpoints, seen = {}, {}, {}
    for i = 1, 3 do
      servers[i] = rig.embedder(function(r) seen[r.headers["x-op"]][i] = true end)
      endpoints[i] = { base_url = servers[i].url, weight = 1 }
    end
    local client = rig.keep(moonpool.client { endpoint_pool = { endpoints = endpoints } })
    for _, pinned in ipairs { true, false } do
      local places, together = {}, true
      for op = 1, 24 do
        local id = tostring(op)
        seen[id] = {}
        assert(client:embed { input = rig.texts(6), batch_size = 2, headers = { ["x-op"] = id },
          preference = moonpool.preference { pin_initial_endpoint_once = pinned } })
        for place in pairs(seen[id]) do places[place] = true end
        together = together and next(seen[id], next(seen[id])) == nil
      end
      assert.equal(pinned, together)
      assert.same({ true, true, true }, places)
    end
    assert.equal(144, #servers[1].log + #servers[2].log + #servers[3].log)
  end)

  it("S2 the environment's names for log level and request-id prefix", function()
    local script = os.tmpname()
    local f = assert(io.open(script, "w"))
    f:write [[
local moonpool = require "moonpool"
local server = moonpool.serve { listen = "127.0.0.1:0", handler = function(req)
  return { json = { id = req:header "x-request-id" } }
end }
io.write(moonpool.client(server.url):request { path = "/" }.data.id, "\n")
]]
    f:close()
    local function id(env)
      local pipe = assert(io.popen(env .. " lua5.4 " .. script .. " 2>/dev/null"))
      local line = pipe:read "l"
      pipe:close()
      return line
    end
    assert.matches("^moonpool%-", id "")
    assert.matches("^team%-", id "PERFORMANCE_CLIENT_REQUEST_ID_PREFIX=team")
    assert.matches("^mine%-", id "PERFORMANCE_CLIENT_REQUEST_ID_PREFIX=team MOONPOOL_REQUEST_ID_PREFIX=mine")
    assert.matches("^moonpool%-", id "PERFORMANCE_CLIENT_LOG_LEVEL=trace")
    os.remove(script)
  end)
end)
