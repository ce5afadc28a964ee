-- C60-C68: Bayt. README.md says where each comes from.

local moonpool = require "moonpool"
local json = require "moonpool.json"
local rig = require "client_rig"

local KEY = "sk_test_canary_1234567890"

local function bayt(server, opts)
  local o = { provider = "bayt", api_key = KEY, retry = rig.quick }
  for name, value in pairs(opts or {}) do
    o[name] = value
  end
  return rig.client(server, o)
end

local function replying(status, body, headers)
  return rig.serve(function()
    headers = headers or {}
    headers["content-type"] = headers["content-type"] or "application/json"
    return { status = status, body = body, headers = headers }
  end)
end

local plain = '{"id":"p","title":"T","content":"Hi {{name}}","systemPrompt":"S","critiquePrompt":null,'
  .. '"workspaceSlug":"alice","packageName":"test-prompt","version":"v1"}'

describe("conformance: Bayt", function()
  after_each(rig.close_all)

  it("C60 the key: argument, environment, none, malformed", function()
    local server = replying(200, plain)
    assert(bayt(server):get_prompt "@alice/test-prompt:v1")
    assert.equal("Bearer " .. KEY, server.log[1].headers.authorization)
    assert.same({ "BAYT_API_KEY" }, moonpool.provider.get("bayt").key_env)
    for _, key in ipairs { "invalid_key", "prod_abc_1234567890", "sk_", "sk_short", "b_prod_1234567890" } do
      local ok, err = pcall(bayt, server, { api_key = key })
      assert.is_false(ok)
      assert.matches("api_key", tostring(err))
      assert.is_nil(tostring(err):find(key .. "'", 1, true))
    end
    -- No key is no error here: the request goes without one, and the service says what it thinks.
    local client = rig.client(server, { provider = "bayt", api_key = function() end })
    assert(client:get_prompt "@alice/test-prompt:v1")
    assert.is_nil(server.log[2].headers.authorization)
  end)

  it("C60 the key from the environment, in a program of its own", function()
    local server = replying(200, plain)
    local script, out = os.tmpname(), os.tmpname()
    local f = assert(io.open(script, "w"))
    f:write [[local client = require("moonpool").client { provider = "bayt", base_url = arg[1] }
      print(client:get_prompt("@alice/test-prompt:v1").title)]]
    f:close()
    os.execute(("(BAYT_API_KEY=%s %s run %s %s; echo done) >%s 2>&1 &")
      :format(KEY, os.getenv "MOONPOOL", script, server.url, out))
    rig.until_true("the program ended", function()
      for line in io.lines(out) do
        if line == "done" then
          return true
        end
      end
    end)
    os.remove(script)
    os.remove(out)
    assert.equal("Bearer " .. KEY, server.log[1].headers.authorization)
  end)

  it("C61 a slash at the end of the base URL does not matter", function()
    local server = replying(200, plain)
    assert(bayt(server, { base_url = server.url .. "/" }):get_prompt "@alice/test-prompt:v1")
    assert.equal("/v1/prompts/get", server.log[1].path)
  end)

  it("C62 get_prompt posts the package name, for 30 s at most", function()
    local server = replying(200, plain)
    local client = bayt(server, { deadline_headers = true })
    local prompt = assert(client:get_prompt "@alice/test-prompt:v1")
    assert.equal("T", prompt.title)
    assert.equal("alice", prompt.namespace)
    assert.equal("test-prompt", prompt.slug)
    local seen = server.log[1]
    assert.equal("POST", seen.method)
    assert.equal("/v1/prompts/get", seen.path)
    assert.equal('{"package_name":"@alice/test-prompt:v1"}', seen.text)
    assert.equal("30000", seen.headers["request-timeout-ms"])
  end)

  it("C63 a name that is none is never sent", function()
    local server = replying(200, plain)
    local client = bayt(server)
    for _, name in ipairs {
      "invalid-package-name", "no-at-sign/slug:v1", "@namespace-only", "@namespace/:v1", "@/slug:v1",
      "../../etc/passwd", "@namespace/../admin:v1", "@namespace/slug", "@namespace/slug:", "@a/b:v1\n", "",
      "@namespace/slug'; DROP TABLE prompts;--:v1", "@namespace/slug<script>alert('xss')</script>:v1",
      "@namespace/slug${MALICIOUS}:v1", "@namespace/slug`whoami`:v1", "@namespace/slug|rm -rf /:v1",
    } do
      local prompt, err = client:get_prompt(name)
      assert.is_nil(prompt, name)
      assert.equal("invalid", err.kind)
      assert.equal("validation_error", err.code)
      assert.equal("BaytValidationError", err.exception)
    end
    assert.equal(0, #server.log)
    for _, name in ipairs { "@namespace/slug:v1", "@user-name/my-prompt:v0", "@org_name/prompt_123:v999",
      "@a/b:latest" } do
      assert(client:get_prompt(name))
    end
    assert.has_error(function() client:get_prompt(7) end)
    assert.has_error(function() client:get_prompt {} end)
  end)

  it("C64 401, 403, 404, 429 and what they mean", function()
    local function failing(status, body)
      local prompt, err = bayt(replying(status, body), { max_retries = 0 }):get_prompt "@alice/missing:v1"
      assert.is_nil(prompt)
      assert.equal(status, err.status)
      return err
    end
    local err = failing(401, "")
    assert.equal("BaytAuthError", err.exception)
    assert.equal("unauthorized", err.code)
    err = failing(403, '{"error":{"code":"forbidden","message":"Insufficient permissions",'
      .. '"details":{"need":"x"}}}')
    assert.equal("BaytAuthError", err.exception)
    assert.equal("forbidden", err.code)
    assert.same({ need = "x" }, err.details)
    assert.matches("Insufficient permissions", err.message)
    err = failing(404, '{"error":"Prompt not found"}')
    assert.equal("BaytNotFoundError", err.exception)
    assert.equal("not_found", err.code)
    assert.matches("Prompt not found", err.message)
    err = failing(429, '{"error":{"code":"rate_limit_exceeded","message":"slow","retry_after":60}}')
    assert.equal("rate_limited", err.kind)
    assert.equal("BaytRateLimitError", err.exception)
    assert.equal(60, err.retry_after)
    assert.equal("BaytValidationError", failing(400, '{"error":{"code":"validation_error"}}').exception)
    err = failing(500, '{"error":{"code":"internal_error","message":"x"}}')
    assert.equal("BaytAPIError", err.exception)
    assert.equal("internal_error", err.code)
  end)

  it("C64 429 twice, then 200: three requests", function()
    local server = rig.serve(function(_, n)
      if n <= 2 then
        return { status = 429, json = { error = "slow" }, headers = { ["Retry-After"] = "0" } }
      end
      return { body = plain, headers = { ["content-type"] = "application/json" } }
    end)
    local prompt, res = bayt(server):get_prompt "@alice/test:v1"
    assert.equal("T", prompt.title)
    assert.equal(3, #server.log)
    assert.equal(3, res.attempts)
  end)

  it("C64 four attempts unless told otherwise; 4xx are final", function()
    local server = rig.serve(function() return { status = 503, json = { error = "down" } } end)
    local client = bayt(server, { retry = { base = 0.001, throttle_base = 0.001, max_attempts = 4 } })
    assert.is_nil((client:get_prompt "@alice/test:v1"))
    assert.equal(4, #server.log)
    assert.equal(4, moonpool.provider.get("bayt").defaults.retry.max_attempts)
    server = rig.serve(function() return { status = 404, json = { error = "no" } } end)
    assert.is_nil((bayt(server):get_prompt "@alice/test:v1"))
    assert.equal(1, #server.log)
  end)

  it("C65 timeouts and refused connections have kinds of their own", function()
    local server = rig.serve(function()
      moonpool.sleep(60)
      return "late"
    end)
    local _, err = bayt(server, { max_retries = 0, timeout = 0.05 }):get_prompt "@alice/test:v1"
    assert.matches("timeout", err.kind)
    _, err = bayt(rig.dead_url(), { max_retries = 0 }):get_prompt "@alice/test:v1"
    assert.equal("connect", err.kind)
    _, err = bayt(replying(200, "no json", nil), { max_retries = 0 }):get_prompt "@alice/test:v1"
    assert.equal("decode", err.kind)
  end)

  it("C66 limits of a page are checked, the cursor is passed on", function()
    local server = replying(200, '{"prompts":[{"id":"1","title":"A"},{"id":"2","title":"B"}],'
      .. '"cursor":"next cursor&","hasMore":true}')
    local client = bayt(server)
    for _, n in ipairs { 0, 101, -1, 1.5, "invalid" } do
      assert.has_error(function() client:list_prompts { limit = n } end)
    end
    assert.equal(0, #server.log)
    local page = assert(client:list_prompts { limit = 10, cursor = "prev cursor&" })
    assert.equal("/v1/prompts", server.log[1].path)
    assert.equal("limit=10&cursor=prev%20cursor%26", server.log[1].query)
    assert.equal(2, #page.prompts)
    assert.equal("B", page.prompts[2].title)
    assert.equal("next cursor&", page.cursor)
    assert.is_true(page.has_more)
    assert.is_true(page.hasMore)
    assert.is_true(page.ok)
    assert(client:list_prompts())
    assert.equal("limit=20", server.log[2].query)
  end)

  it("C67 the key is in no text, even when the server repeats it", function()
    local client = bayt(replying(401, json.encode { error = "Invalid API key: " .. KEY }))
    local _, err = client:get_prompt "@alice/test:v1"
    for _, text in ipairs { tostring(client), tostring(err), err.message, err.body } do
      assert.is_nil(text:find(KEY, 1, true))
    end
    for _, value in pairs(client) do
      assert.is_nil(tostring(value):find(KEY, 1, true))
    end
  end)

  it("C67 a reply nested a thousand deep is refused or read, not a crash", function()
    local deep = ('{"level":'):rep(1000) .. "1" .. ("}"):rep(1000)
    local client = bayt(replying(200, '{"data":' .. deep .. "}"), { max_retries = 0 })
    local prompt, err = client:get_prompt "@a/b:v1"
    assert.is_true(prompt ~= nil or err.kind == "decode")
  end)

  it("C68 variables: found, checked, put in as they are", function()
    local prompt = assert(bayt(replying(200, json.encode {
      id = "p", systemPrompt = "{{safe_string}} {{list:array}} {{on:bool}}",
      content = "Hello {{safe_string:string}}, your number is {{ safe_number : number // lucky }}. {{x}}",
    })):get_prompt "@a/b:v1")
    assert.same({
      { name = "safe_string", type = "string" },
      { name = "safe_number", type = "number", description = "lucky" }, { name = "x" },
      { name = "list", type = "array" }, { name = "on", type = "bool" },
    }, prompt:extract_variables())
    local good = { safe_string = "hello", safe_number = 42, x = true, list = { 1 }, on = false }
    assert.same({}, prompt:validate_variables(good))
    assert.same({
      safe_string = "Expected string, got table", safe_number = "Expected number, got string",
      x = "Missing required variable: x", list = "Expected array, got table",
      on = "Expected boolean, got string", extra = "Unexpected variable: extra",
    }, prompt:validate_variables {
      safe_string = {}, safe_number = "n", list = { a = 1 }, on = "yes", extra = 1,
    })

    good.safe_string = "{{constructor.constructor('return process')()}} %1 {{x}}"
    local text = assert(prompt:render(good))
    assert.equal("Hello {{constructor.constructor('return process')()}} %1 {{x}}, your number is 42. true",
      text.generator)
    assert.equal("{{constructor.constructor('return process')()}} %1 {{x}} [1] false", text.system)
    local none, err = prompt:render { safe_string = "x" }
    assert.is_nil(none)
    assert.equal("Missing required variable: list", err.variables.list)
  end)
end)
