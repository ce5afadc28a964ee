-- The adapters against `moonpool mock`, which speaks each of their dialects; and an adapter of one's own.

local moonpool = require "moonpool"
local rig = require "client_rig"

local texts = { "the quick brown fox", "jumps over", "the lazy dog", "Ünïcödé \u{1F98A}",
  "1 \"quoted\" \\ line\n" }

local function clients(url)
  return {
    openai = { base_url = url },
    ["openai, float"] = { base_url = url, call = { encoding_format = "float" } },
    tei = { base_url = url },
    ["tei by its OpenAI route"] = { base_url = url, provider = "tei", api = "openai" },
    cohere = { base_url = url },
    voyage = { base_url = url .. "/voyage" },
    jina = { base_url = url .. "/jina" },
    azure = { base_url = url, deployment = "embed", api_key = "k" },
    ["azure v1"] = { base_url = url, provider = "azure", api_version = "v1" },
    baseten = { base_url = url .. "/environments/production/sync" },
    ["baseten by options"] = { base_url = url, provider = "baseten", environment = "production" },
    ["baseten, bare server"] = { base_url = url, provider = "baseten" },
  }
end

describe("the same texts through every adapter", function()
  after_each(rig.close_all)

  it("have the same vectors", function()
    local mock = rig.mock { dim = 64 }
    local want = assert(rig.client(mock.url):embed { input = texts, model = "m" })
    for name, o in pairs(clients(mock.url)) do
      local call = o.call or {}
      call.input, call.model, o.call = texts, "m", nil
      o.provider = o.provider or name:match "^%a+"
      o.retry = false
      local client <close> = moonpool.client(o)
      local res, err = client:embed(call)
      assert.is_nil(err, name)
      assert.equal(#texts, #res, name)
      for i = 1, #texts do
        assert.is_true(res[i]:dot(want[i]) > 0.99999, name .. ": row " .. i)
      end
      assert.equal(want.matrix:bytes(), res.matrix:bytes(), name)
      assert.is_true(res.usage == nil or res.usage.total_tokens > 0, name)
    end
  end)

  it("keep their order when they take many requests", function()
    local mock = rig.mock { dim = 16, shuffle = true }
    local many = {}
    for i = 1, 150 do
      many[i] = ("text number %d of many"):format(i)
    end
    local want = assert(rig.client(mock.url):embed { input = many, model = "m" })
    for name, o in pairs(clients(mock.url)) do
      -- Replies without an index cannot come in another order.
      if not name:find "^tei$" and not name:find "^cohere" and not o.call then
        o.provider = o.provider or name:match "^%a+"
        local client <close> = moonpool.client(o)
        local res = assert(client:embed { input = many, model = "m", batch_size = 7 })
        assert.equal(want.matrix:bytes(), res.matrix:bytes(), name)
      end
    end
  end)

  it("rerank alike", function()
    local mock = rig.mock {}
    local function order(o)
      local client <close> = moonpool.client(o)
      local res = assert(client:rerank {
        query = "lazy dog", texts = texts, model = "m", return_text = true, top_n = 3,
      })
      local list = {}
      for i, r in ipairs(res.results) do
        assert.equal(texts[r.index], r.text)
        list[i] = r.index
      end
      return list
    end
    local want = order { base_url = mock.url, provider = "tei" }
    assert.equal(3, want[1])
    assert.same(want, order { base_url = mock.url, provider = "cohere" })
    assert.same(want, order { base_url = mock.url .. "/voyage", provider = "voyage" })
    assert.same(want, order { base_url = mock.url .. "/jina", provider = "jina" })
    assert.same(want, order { base_url = mock.url, provider = "baseten", environment = "production" })
  end)

  it("come as int8 and bits too", function()
    local mock = rig.mock { dim = 16 }
    local plain = assert(rig.client(mock.url):embed { input = texts })
    local function signs(provider, url, call)
      call.input, call.model = texts, "m"
      local client <close> = moonpool.client { base_url = url, provider = provider, retry = false }
      local res = assert(client:embed(call))
      for i = 1, #texts do
        for k = 1, 16 do
          local x, y = plain[i][k], res[i][k]
          assert.is_true(math.abs(x) < 0.01 or (x > 0) == (y > 0), ("%s row %d at %d"):format(provider, i, k))
        end
      end
    end
    for _, dtype in ipairs { "int8", "binary", "ubinary" } do
      signs("cohere", mock.url, { embedding_type = dtype })
      signs("voyage", mock.url .. "/voyage", { output_dtype = dtype })
      signs("voyage", mock.url .. "/voyage", { output_dtype = dtype, encoding_format = "float" })
    end
    signs("jina", mock.url .. "/jina", { embedding_type = "binary" })
    signs("jina", mock.url .. "/jina", { embedding_type = "ubinary" })
  end)

  it("late chunking sees the whole request", function()
    local mock = rig.mock { dim = 32 }
    local client = rig.client(mock.url .. "/jina", { provider = "jina" })
    local plain = assert(client:embed { input = texts, model = "m" })
    local late = assert(client:embed { input = texts, model = "m", late_chunking = true, batch_size = 1 })
    assert.are_not.equal(plain.matrix:bytes(), late.matrix:bytes())
    assert.equal(1, #late.requests)
    assert.equal(5, #late)
  end)

  it("keys are checked, and wrong ones named in each dialect", function()
    local mock = rig.mock { api_key = "sk_right-key" }
    for name, o in pairs(clients(mock.url)) do
      o.provider = o.provider or name:match "^%a+"
      o.call, o.retry = nil, false
      o.api_key = "sk_right-key"
      local client <close> = moonpool.client(o)
      assert(client:embed { input = { "a" }, model = "m" })
      o.api_key = "sk_wrong-key"
      local other <close> = moonpool.client(o)
      local _, err = other:embed { input = { "a" }, model = "m" }
      assert.equal(401, err.status, name)
      assert.is_nil(tostring(err):find("wrong-key", 1, true))
    end
  end)
end)

describe("a provider of one's own", function()
  after_each(rig.close_all)

  -- A service with its own words for everything: rows in "sentences", vectors in result.items[].v.
  local mine = {
    name = "mine",
    auth = { header = "X-My-Key", format = "%s" },
    key_env = { "MY_KEY" },
    options = { tenant = "text" },
    headers = { ["X-Client"] = "moonpool" },
    embed = {
      path = function(_, client) return "/t/" .. client.tenant .. "/vectors" end,
      rows = "sentences",
      fields = { model = "engine", mood = "mood" },
      options = { mood = { "calm", "loud" } },
      fixed = { version = 2 },
      reply = { list = "result.items", vector = "v", index = "i" },
      limits = { inputs = 2 },
    },
    error = function(err, doc) err.code = doc.oops end,
    methods = { ping = function(client) return client:request { path = "/ping" } end },
  }

  local function service()
    return rig.serve(function(seen)
      if seen.path == "/ping" then
        return "pong"
      elseif seen.body.mood == "loud" then
        return { status = 400, json = { oops = "too_loud", message = "hush" } }
      end
      local items = {}
      for i, text in ipairs(seen.body.sentences) do
        items[i] = { i = i - 1, v = rig.vector(text) }
      end
      return { json = { result = { items = items } } }
    end)
  end

  it("is a table", function()
    local server = service()
    local client = rig.client(server, { provider = mine, api_key = "k", tenant = "t1", retry = false })
    local res = assert(client:embed { input = rig.texts(3), model = "m", mood = "calm" })
    assert.is_nil(rig.wrong_row(res, rig.texts(3)))
    assert.equal(2, #server.log)
    local seen = server.log[1]
    assert.equal("/t/t1/vectors", seen.path)
    assert.equal("k", seen.headers["x-my-key"])
    assert.equal("moonpool", seen.headers["x-client"])
    assert.is_nil(seen.headers.authorization)
    local _, err = client:embed { input = { "1" }, mood = "loud" }
    assert.equal("too_loud", err.code)
    assert.matches("hush", err.message)
    assert.equal("pong", client:ping().data)
    assert.has_error(function() client:embed { input = { "1" }, mood = "sad" } end)
    assert.has_error(function() client:rerank { query = "q", texts = { "1" } } end)
  end)

  it("is checked when the client is made", function()
    local function wrong(pattern, provider)
      local ok, err = pcall(moonpool.client, { base_url = "http://127.0.0.1:1", provider = provider })
      assert.is_false(ok)
      assert.matches(pattern, tostring(err))
    end
    wrong("name: string expected", {})
    wrong("unknown option 'embeds' %(did you mean 'embed'", { name = "x", embeds = {} })
    wrong("provider.embed: unknown option 'row'", { name = "x", embed = { row = "input" } })
    wrong("unknown provider 'opanai' %(did you mean 'openai'", "opanai")
    wrong("provider: name or table expected", 7)
  end)
end)

describe("the example", function()
  after_each(rig.close_all)

  -- The mock answers from this process's loop, so the example runs beside it.
  local function run(name, url)
    local out, text = os.tmpname(), ""
    os.execute(("(%s run examples/%s %s; echo done) >%s 2>&1 &"):format(os.getenv "MOONPOOL", name, url, out))
    rig.until_true("the example has run", function()
      local f <close> = assert(io.open(out))
      text = f:read "a"
      return text:find "done\n$" ~= nil
    end)
    os.remove(out)
    return text
  end

  it("of a provider of one's own runs", function()
    assert.matches("2 vectors of 8", run("own_provider.lua", rig.mock { dim = 8 }.url))
  end)

  it("of asynchronous predictions runs", function()
    assert.matches("3 of 3 outputs came, signed", run("baseten_jobs.lua", rig.mock {}.url))
  end)
end)
