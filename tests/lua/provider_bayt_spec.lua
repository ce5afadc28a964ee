-- Bayt's prompts as objects, pages and context files; through the mock and through replies by hand.

require "moonpool" -- the parts are found through it

local bayt_prompt = require "moonpool.provider.bayt_prompt"
local json = require "moonpool.json"
local rig = require "client_rig"

local KEY = "sk_test_1234567890"

local function bayt(server, opts)
  local o = { provider = "bayt", api_key = KEY, retry = rig.quick }
  for name, value in pairs(opts or {}) do
    o[name] = value
  end
  return rig.client(server, o)
end

describe("bayt: a prompt", function()
  after_each(rig.close_all)

  it("has its fields under both names", function()
    local p = bayt_prompt.new {
      id = "p1", title = "Title", content = "C", systemPrompt = "S", critiquePrompt = "K", description = "D",
      category = "cat", workspaceSlug = "ws", packageName = "pkg", version = "v3", extra = 7,
      versionContent = { content = "{{from_version}}" },
    }
    assert.equal("C", p.content)
    assert.equal("C", p.generator)
    assert.equal("S", p.system)
    assert.equal("S", p.systemPrompt)
    assert.equal("K", p.critique)
    assert.equal("K", p.critiquePrompt)
    assert.equal("ws", p.namespace)
    assert.equal("ws", p.workspaceSlug)
    assert.equal("pkg", p.slug)
    assert.equal("pkg", p.packageName)
    assert.equal("@ws/pkg:v3", p.package_name)
    assert.is_false(p.is_draft)
    assert.equal(7, p.extra)
    assert.equal(7, p["extra"])
    assert.equal("D", p:get("description"))
    assert.equal("none", p:get("nothing", "none"))
    assert.equal("Title", tostring(p))
    assert.is_true(p:has_system_prompt())
    assert.is_true(p:has_critique_prompt())
    assert.same({ { name = "from_version" } }, p:extract_variables())
    local fields = {}
    for name in pairs(p) do
      fields[name] = true
    end
    assert.is_true(fields.systemPrompt)
    local copy = p:to_dict()
    copy.title = "changed"
    assert.equal("Title", p.title)
  end)

  it("has blanks for what is not there", function()
    local p = bayt_prompt.new { systemPrompt = json.null }
    for _, name in ipairs { "id", "title", "content", "generator", "system", "critique", "slug" } do
      assert.equal("", p[name])
    end
    assert.equal("v0", p.version)
    assert.is_true(p.is_draft)
    assert.is_nil(p.description)
    assert.is_false(p:has_system_prompt())
    assert.is_false(p:has_context())
    assert.same({}, p.context)
    assert.same({}, p:extract_variables())
    assert.equal("", bayt_prompt.new("nonsense").title)
  end)

  it("cannot be made to lose a method by a field of that name", function()
    local p = bayt_prompt.new { render = "x", to_dict = 1, get = false, content = "{{a}}" }
    assert.equal("b", p:render({ a = "b" }).generator)
    assert.equal("x", p:to_dict().render)
  end)

  it("puts variables in as literal text, once", function()
    local interpolate = bayt_prompt.interpolate
    assert.equal("a 1 {{y}} 2.5", interpolate("a {{x}} {{y}} {{ z:number // n }}", { x = 1, z = 2.5 }))
    assert.equal("{{x}}", interpolate("{{v}}", { v = "{{x}}", x = "no" }))
    assert.equal("%0 %1 \\1 $1", interpolate("{{v}}", { v = "%0 %1 \\1 $1" }))
    assert.equal('[1,2] {"a":1}', interpolate("{{l}} {{o}}", { l = { 1, 2 }, o = { a = 1 } }))
    assert.equal("{}{ {{}} {{ }} {x}", interpolate("{}{ {{}} {{ }} {{{x}}}", { x = "x" }))
    assert.equal("", interpolate("", {}))
    local list = bayt_prompt.extract { "{{url:string // http://x/y}} {{b // c}} {{:}} {{}} {{url}}" }
    assert.same({ { name = "url", type = "string", description = "http://x/y" },
      { name = "b", description = "c" } }, list)
  end)
end)

describe("bayt: replies", function()
  after_each(rig.close_all)

  local function get(body)
    local server = rig.serve(function()
      return { body = body, headers = { ["content-type"] = "application/json" } }
    end)
    return bayt(server):get_prompt "@a/b:v1"
  end

  it("with and without an envelope", function()
    assert.equal("T", get('{"id":"1","title":"T"}').title)
    assert.equal("T", get('{"data":{"id":"1","title":"T"}}').title)
    assert.equal("T", get('{"id":"1","title":"T","data":{"title":"other"}}').title)
    local none, err = get "7"
    assert.is_nil(none)
    assert.equal("decode", err.kind)
  end)

  it("enveloped pages", function()
    local server = rig.serve(function()
      return { json = { data = { prompts = { { title = "A" } }, hasMore = false } } }
    end)
    local page = assert(bayt(server):list_prompts { limit = 1 })
    assert.equal("A", page.prompts[1].title)
    assert.is_false(page.has_more)
    assert.is_nil(page.cursor)
  end)

  it("a list that goes in a circle is an error, not for ever", function()
    local server = rig.serve(function()
      return { json = { prompts = { { title = "A" } }, hasMore = true, cursor = "same" } }
    end)
    local n = 0
    local ok, err = pcall(function()
      for _ in bayt(server):prompts() do
        n = n + 1
      end
    end)
    assert.is_false(ok)
    assert.equal("decode", err.kind)
    assert.equal(2, n)
  end)

  it("a failure in the middle of the list is raised with its facts", function()
    local server = rig.serve(function(_, n)
      if n == 2 then
        return { status = 403, json = { error = { code = "forbidden", message = "no more" } } }
      end
      return { json = { prompts = { { title = "A" } }, hasMore = true, cursor = "c" } }
    end)
    local ok, err = pcall(function()
      for _ in bayt(server):prompts() do end -- luacheck: ignore
    end)
    assert.is_false(ok)
    assert.equal("forbidden", err.code)
  end)
end)

describe("bayt: through the mock", function()
  after_each(rig.close_all)

  it("a prompt with context and variables", function()
    local client = bayt(rig.mock { api_key = KEY }.url)
    local p = assert(client:get_prompt "@mock/prompt-1:v1")
    assert.equal("@mock/prompt-1:v1", p.package_name)
    assert.equal(2, #p.context)
    local files, urls = p:get_file_contexts(), p:get_url_contexts()
    assert.equal("first.txt", files[1].file_name)
    assert.equal("first.txt", files[1].fileName)
    assert.equal("https://example.org/", urls[1].url)
    assert.is_true(urls[1]:is_url())
    assert.is_false(urls[1]:is_file())
    local text = assert(p:render { word = "hi", name = "me", count = 3 })
    assert.equal("Say hi 1", text.generator)
    assert.equal("You answer me in 3 words.", text.system)
    local _, err = client:get_prompt "@mock/prompt-999:v1"
    assert.equal("not_found", err.code)
  end)

  it("all prompts, page by page", function()
    local mock = rig.mock {}
    local client = bayt(mock.url)
    local page = assert(client:list_prompts { limit = 5 })
    assert.equal(5, #page.prompts)
    page = assert(client:list_prompts { limit = 5, cursor = page.cursor })
    assert.equal("prompt-6", page.prompts[1].slug)
    mock:reset()
    local n = 0
    for p in client:prompts { limit = 60 } do
      n = n + 1
      assert.equal("prompt-" .. n, p.slug)
    end
    assert.equal(200, n)
    assert.equal(4, mock:stats().requests["GET /v1/prompts"])
    assert.has_error(function() client:prompts { limit = 0 } end)
  end)

  it("a file, by its signed URL, without the key", function()
    local mock = rig.mock { api_key = KEY }
    local client = bayt(mock.url, { headers = { ["X-Own"] = "1" } })
    local url = assert(client:get_context_download_url "ctx_1")
    assert.equal(mock.url .. "/bayt-files/first.txt?signature=abc", url.url)
    assert.equal(900, url.expires_in)
    assert.equal(900, url.expiresIn)
    assert.equal("The file of the first prompt.\n", assert(client:download_context_file "ctx_1"))
    local seen = mock:requests(1)[1]
    assert.equal("/bayt-files/first.txt", seen.path)
    assert.is_nil(seen.headers.authorization)
    assert.is_nil(seen.headers["x-own"])
    assert.is_nil(seen.headers["x-request-id"])
    local none, err = client:download_context_file "ctx_2"
    assert.is_nil(none)
    assert.equal("BaytValidationError", err.exception)
    none, err = client:get_context_download_url "ctx/../x"
    assert.is_nil(none)
    assert.equal("not_found", err.code)
    assert.has_error(function() client:download_context_file() end)
  end)

  it("bytes of a file stay bytes, whatever its type; a refused one is an error", function()
    local status = 200
    local server
    server = rig.serve(function(seen)
      if seen.path == "/files/a b" or seen.path == "/files/a%20b" then
        local headers = { ["content-type"] = "application/json" }
        return { status = status, body = '{"is": "json"}', headers = headers }
      end
      return { json = { url = server.url .. "/files/a b?sig=secret" } }
    end)
    local client = bayt(server)
    assert.equal('{"is": "json"}', assert(client:download_context_file "x"))
    status = 403
    local none, err = client:download_context_file "x"
    assert.is_nil(none)
    assert.equal(403, err.status)
    assert.is_nil(tostring(err):find("secret", 1, true))
    assert.is_nil((err.endpoint or ""):find("secret", 1, true))
  end)

  it("a download URL that is none, or of another kind", function()
    local reply = {}
    local server = rig.serve(function() return { json = reply } end)
    local client = bayt(server)
    for _, r in ipairs { { data = {} }, { url = "file:///x" }, { url = 7 }, { url = "ftp://x/y" } } do
      reply = r
      local none, err = client:download_context_file "x"
      assert.is_nil(none)
      assert.equal("decode", err.kind)
    end
  end)

  it("has nothing to embed", function()
    local client = bayt(rig.mock {}.url)
    local ok, err = pcall(client.embed, client, { input = { "a" } })
    assert.is_false(ok)
    assert.matches("provider 'bayt' has no embed call", tostring(err))
  end)
end)
