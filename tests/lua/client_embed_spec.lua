-- client:embed over real sockets: every row in its place whatever the server does on the way, and
-- what the server must not do reported as such.

local moonpool = require "moonpool"
local rig = require "client_rig"

local function reply_with(body, status)
  return rig.serve(function() return { status = status, body = body,
    headers = { ["content-type"] = "application/json" } } end)
end

local function once(opts)
  opts.preset = "none"
  opts.retry = false
  return opts
end

local function refused(body, texts, opts)
  local client = rig.client(reply_with(body), once {})
  local o = { input = texts or { "1", "2" } }
  for k, v in pairs(opts or {}) do
    o[k] = v
  end
  local res, err = client:embed(o)
  assert.is_nil(res)
  return err
end

local function item(index, vector)
  return ('{"index":%d,"embedding":%s}'):format(index, vector)
end

local function data(...)
  return '{"data":[' .. table.concat({ ... }, ",") .. "]}"
end

describe("embed", function()
  after_each(rig.close_all)

  it("gives one row a text, in the order of the texts", function()
    local server = rig.embedder()
    local client = rig.client(server)
    local texts = rig.texts(300)
    local res, err = client:embed { input = texts, model = "m", batch_size = 7 }
    assert.is_nil(err)
    assert.is_nil(rig.wrong_row(res, texts))
    assert.is_true(res.ok)
    assert.same({}, res.errors)
    assert.equal(300, #res)
    assert.equal(300, res.matrix:rows())
    assert.equal(3, res.matrix:cols())
    assert.equal("rig", res.model)
    assert.same({ prompt_tokens = 300, total_tokens = 300 }, res.usage)
    assert.equal(43, #server.log)
    assert.equal(43, #res.requests)
    assert.is_true(res.total_time > 0)
    assert.is_nil(res[0])
    assert.is_nil(res[301])
  end)

  it("takes one text as well as a list", function()
    local client = rig.client(rig.embedder())
    local res = assert(client:embed { input = "42" })
    assert.same({ 42, -42, 0.5 }, res[1]:totable())
    assert.equal(1, #res)
  end)

  it("tells for each request what happened", function()
    local server = rig.embedder(function(_, n) return n == 1 and { status = 503, json = {} } or nil end)
    local client = rig.client(server, { max_concurrent_requests = 1 })
    local res = assert(client:embed { input = rig.texts(5), batch_size = 3 })
    local first, second = res.requests[1], res.requests[2]
    assert.same({ 1, 3, 4, 2 }, { first.first, first.count, second.first, second.count })
    assert.same({ 200, 2, 200, 1 }, { first.status, first.attempts, second.status, second.attempts })
    assert.equal(0, first.hedges)
    assert.is_true(first.time > 0)
    assert.is_string(first.request_id)
    assert.equal("application/json", first.headers["content-type"])
    assert.is_nil(res.requests[3])
  end)

  it("puts rows where their index says, base64 or float, in chunks and writes of one byte", function()
    local texts = {}
    for i = 1, 60 do
      texts[i] = ("text number %d of many words %d"):format(i, i * 7919)
    end
    local plain = rig.client(rig.mock { dim = 24 })
    local want = assert(plain:embed { input = texts, batch_size = 60 })
    for _, fault in ipairs { { shuffle = true }, { shuffle = true, chunk = 1 },
      { shuffle = true, dribble = 1 }, { chunk = 3, shuffle = true } } do
      fault.dim = 24
      local client = rig.client(rig.mock(fault))
      for _, format in ipairs { "base64", "float" } do
        local got = assert(client:embed { input = texts, batch_size = 16, encoding_format = format })
        for i = 1, 60 do
          assert.same(want[i]:totable(), got[i]:totable())
        end
      end
    end
  end)

  it("asks for base64 unless told otherwise, and takes float all the same", function()
    local server = rig.embedder()
    local client = rig.client(server)
    assert(client:embed { input = { "1" } })
    assert.equal("base64", server.log[1].body.encoding_format)
    assert(client:embed { input = { "1" }, encoding_format = "float" })
    assert.equal("float", server.log[2].body.encoding_format)
  end)

  it("sends model, dimensions and user, and no field that was not given", function()
    local server = rig.embedder()
    local client = rig.client(server)
    assert(client:embed { input = { "1" }, model = "m", dimensions = 3, user = "u" })
    assert.same({ input = { "1" }, model = "m", dimensions = 3, user = "u", encoding_format = "base64" },
      server.log[1].body)
    assert(client:embed { input = { "1" } })
    assert.same({ input = { "1" }, encoding_format = "base64" }, server.log[2].body)
    assert(client:embed { input = { "1" }, extra_body = { task = "query" } })
    assert.equal("query", server.log[3].body.task)
  end)

  it("shortens vectors on the server and refuses a reply of another dimension", function()
    local client = rig.client(rig.mock { dim = 16 })
    local res = assert(client:embed { input = { "a b", "c d" }, dimensions = 4 })
    assert.equal(4, res.matrix:cols())
    local ignores = rig.client(rig.embedder(), once {})
    local _, err = ignores:embed { input = { "1" }, dimensions = 4 }
    assert.equal("decode", err.kind)
  end)

  it("sends any UTF-8 intact", function()
    local server = rig.serve(function(seen)
      return { json = rig.embeddings(seen.body.input, nil, function(t) return { #t } end) }
    end)
    local client = rig.client(server)
    local texts = {
      'quote " back \\ slash /', "tab\tnewline\nnul\0end", "\u{1F600} \u{7ff} \u{ffff}", "\127\1", "",
    }
    local res = assert(client:embed { input = texts })
    assert.same(texts, server.log[1].body.input)
    for i, t in ipairs(texts) do
      assert.equal(#t, res[i][1])
    end
  end)

  it("refuses a text that is not UTF-8, and its neighbours go through", function()
    local server = rig.embedder()
    local client = rig.client(server)
    local res, err = client:embed { input = { "1", "2\xff", "3", "\xed\xa0\x80", "5" } }
    assert.is_nil(err)
    assert.is_false(res.ok)
    assert.equal(2, #res.errors)
    assert.same({ 2, 4 }, { res.errors[1].index, res.errors[2].index })
    assert.equal("invalid", res.errors[1].error.kind)
    assert.equal("invalid: row 2: invalid UTF-8 at byte 2", tostring(res.errors[1].error))
    assert.same({ 1, -1, 0.5 }, res[1]:totable())
    assert.same({ 3, -3, 0.5 }, res[3]:totable())
    assert.same({ 5, -5, 0.5 }, res[5]:totable())
    assert.is_true(res[2][1] ~= res[2][1]) -- NaN
    for _, seen in ipairs(server.log) do
      for _, text in ipairs(seen.body.input) do
        assert.is_nil(text:find "\xff")
      end
    end
  end)

  it("keeps the rows when the caller changes the list while it waits", function()
    local texts = rig.texts(6)
    local server = rig.embedder(function()
      for i = 1, 6 do texts[i] = nil end
      collectgarbage()
    end)
    local client = rig.client(server)
    local res = assert(client:embed { input = texts, batch_size = 1, max_concurrent_requests = 1 })
    assert.is_nil(rig.wrong_row(res, rig.texts(6)))
  end)
end)

describe("a reply that is wrong", function()
  after_each(rig.close_all)

  it("is an error when items are too many, twice, out of range, or nobody knows which are missing", function()
    assert.equal("decode", refused(data('{"embedding":[1,2]}')).kind)
    assert.equal("decode", refused(data(item(0, "[1,2]"), item(1, "[1,2]"), item(2, "[1,2]"))).kind)
    assert.equal("decode", refused(data(item(0, "[1,2]"), item(0, "[3,4]"))).kind)
    assert.equal("decode", refused(data(item(0, "[1,2]"), item(2, "[3,4]"))).kind)
    assert.equal("decode", refused(data(item(0, "[1,2]"), item(-1, "[3,4]"))).kind)
    assert.equal("decode", refused(data(item(1, "[1,2]"), '{"embedding":[3,4]}')).kind)
    assert.equal("decode", refused(data()).kind)
  end)

  it("is an error of the row when a vector is not one", function()
    for _, bad in ipairs { "[1,NaN]", "[1,Infinity]", "[1,1e999]", "[1,null]", "[1]", "[]",
      '"%%%%"', '"AAAA"',
      "[1,[2]]", "{}", "null", "[1,2,3]", '[1,"2"]' } do
      local client = rig.client(reply_with(data(item(0, "[1,2]"), item(1, bad))), once {})
      local res = assert(client:embed { input = { "1", "2" } })
      assert.same({ 1, 2 }, res[1]:totable())
      assert.is_true(res[2][1] ~= res[2][1])
      assert.equal(1, #res.errors, bad)
      assert.same({ 2, "decode" }, { res.errors[1].index, res.errors[1].error.kind })
      local err = refused(data(item(0, bad)), { "1" }, { dimensions = 2 })
      assert.equal("decode", err.kind, bad)
      assert.equal(1, #err.errors)
    end
  end)

  it("is an error when the body breaks off, goes on, or is no JSON at all", function()
    local good = data(item(0, "[1,2]"), item(1, "[3,4]"))
    assert.equal("decode", refused(good:sub(1, -2)).kind)
    assert.equal("decode", refused(good .. "x").kind)
    assert.equal("decode", refused("").kind)
    assert.equal("decode", refused("<html>oh</html>").kind)
    assert.equal("decode", refused('{"error":"busy"}').kind)
    assert.equal("decode", refused('{"x":' .. ("["):rep(40) .. ("]"):rep(40) .. "," .. good:sub(2)).kind)
  end)

  it("names status, request and endpoint, and shows the beginning of the body", function()
    local err = refused("<html>oh</html>")
    assert.equal(200, err.status)
    assert.equal(1, err.attempts)
    assert.is_string(err.request_id)
    assert.matches("^http://127", err.endpoint)
    assert.matches("<html>", err.body)
    assert.matches("decode", tostring(err))
  end)

  it("is asked for again, for it may be a broken proxy", function()
    local server = rig.embedder(function(seen, n)
      if n == 1 then
        return { json = rig.embeddings { seen.body.input[1] } }
      end
    end)
    local res = assert(rig.client(server):embed { input = { "1", "2" } })
    assert.is_nil(rig.wrong_row(res, { "1", "2" }))
    assert.equal(2, res.requests[1].attempts)
  end)
end)

describe("a bad day", function()
  after_each(rig.close_all)

  -- Every row must come out right, be counted once by a server that answered it, and no request may
  -- come between a 429 and the end of its Retry-After.
  it("of 429 with Retry-After, 503 and resets in the body loses nothing", function()
    local answered, resets = {}, 0
    local quiet_until, too_early, throttled = 0, 0, 0
    local server = rig.embedder(function(seen, n)
      local now = moonpool.now()
      if now < quiet_until then
        too_early = too_early + 1
      end
      if n == 5 or n == 40 then
        throttled = throttled + 1
        quiet_until = math.max(quiet_until, now + 1)
        return { status = 429, headers = { ["retry-after"] = "1" }, json = { error = "slow down" } }
      elseif n % 7 == 3 then
        return { status = 503, json = { error = "busy" } }
      elseif n % 7 == 5 then
        resets = resets + 1
        local body = require("moonpool.json").encode(rig.embeddings(seen.body.input))
        return { body = body, fault = { cut = #body // 2, ends = n % 2 == 0 and "reset" or "close" } }
      end
      for _, text in ipairs(seen.body.input) do
        answered[text] = (answered[text] or 0) + 1
      end
      local order = {}
      for i = 1, #seen.body.input do order[i] = #seen.body.input + 1 - i end
      return { json = rig.embeddings(seen.body.input, order) }
    end)
    -- one at a time until the throttling is over would hide races: eight, and those in flight when
    -- the 429 arrives are the server's own queue, which it has already taken
    local client = rig.client(server, { max_concurrent_requests = 1, breaker = false })
    local texts = rig.texts(400)
    local res, err = rig.within(30, client.embed, client, { input = texts, batch_size = 5 })
    assert.is_nil(err)
    assert.is_true(res.ok)
    assert.is_nil(rig.wrong_row(res, texts))
    for _, text in ipairs(texts) do
      assert.equal(1, answered[text], text)
    end
    assert.equal(0, too_early)
    assert.equal(2, throttled)
    assert.is_true(resets > 5)
    assert.equal(2, client:stats().throttled)
  end)

  it("with many in flight loses nothing either", function()
    local answered, throttled_until, early = {}, 0, 0
    local server = rig.embedder(function(seen, n)
      local now = moonpool.now()
      -- What was on its way when the 429 left is excused: 50 ms.
      if now > throttled_until - 0.95 and now < throttled_until then
        early = early + 1
      end
      if n == 20 then
        throttled_until = now + 1
        return { status = 429, headers = { ["retry-after"] = "1" }, json = {} }
      elseif n % 9 == 4 then
        return { status = 503, json = {} }
      elseif n % 9 == 7 then
        return { body = '{"data":[{"index":0,', fault = { cut = 10, ends = "reset" } }
      end
      moonpool.sleep(0.002)
      for _, text in ipairs(seen.body.input) do
        answered[text] = (answered[text] or 0) + 1
      end
    end)
    local client = rig.client(server, { max_concurrent_requests = 16, breaker = false,
      retry = { base = 0.001, throttle_base = 0.001, cap = 0.01, max_attempts = 20, budget = 3 } })
    local texts = rig.texts(900)
    local res, err = rig.within(30, client.embed, client, { input = texts, batch_size = 3 })
    assert.is_nil(err)
    assert.is_nil(rig.wrong_row(res, texts))
    for _, text in ipairs(texts) do
      assert.equal(1, answered[text], text)
    end
    assert.equal(0, early)
  end)
end)
