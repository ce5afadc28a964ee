-- One bad input costs its own row: refused batches are halved until the bad ones stand alone, within a
-- bound. And what every result has, and replies that come compressed.

local rig = require "client_rig"
local json = require "moonpool.json"

-- Refuses every request that holds a text of `poison`, or more than `limit` texts.
local function picky(status, poison, limit)
  return rig.embedder(function(seen)
    if limit and #seen.body.input > limit then return { status = status, json = { error = "too many" } } end
    for _, text in ipairs(seen.body.input) do
      if poison[text] then return { status = status, json = { error = "no " .. text } } end
    end
  end)
end

local function indices(list)
  local out = {}
  for k, e in ipairs(list) do out[k] = e.index end
  return out
end

describe("a refused batch", function()
  after_each(rig.close_all)

  it("is halved until the poison stands alone", function()
    for _, status in ipairs { 400, 413, 422 } do
      local server = picky(status, { ["1"] = true, ["37"] = true, ["64"] = true, ["65"] = true })
      local res, err = rig.client(server):embed { input = rig.texts(128), batch_size = 64 }
      assert.is_nil(err)
      assert.same({ 1, 37, 64, 65 }, indices(res.errors))
      for _, e in ipairs(res.errors) do
        assert.equal(status, e.error.status)
        assert.matches('"no ' .. e.index .. '"', e.error.body)
      end
      for i = 1, 128 do
        local v = res[i]
        assert.is_true(v[1] == i or v[1] ~= v[1])
      end
    end
  end)

  it("that is too large for the server is cut to what it takes", function()
    local server = picky(413, {}, 10)
    local texts = rig.texts(128)
    local res = assert(rig.client(server):embed { input = texts, batch_size = 64 })
    assert.is_nil(rig.wrong_row(res, texts))
  end)

  it("of nothing but poison costs a bounded number of requests", function()
    local server = rig.serve(function() return { status = 422, json = {} } end)
    local res, err = rig.client(server):embed { input = rig.texts(1024), batch_size = 128 }
    assert.is_nil(res)
    assert.equal(422, err.status)
    assert.equal(1024, #err.errors)
    assert.is_true(#server.log < 200)
  end)

  it("is not halved for what has nothing to do with its rows", function()
    for _, status in ipairs { 401, 403, 404, 500 } do
      local server = rig.serve(function() return { status = status, json = {} } end)
      local client = rig.client(server, { retry = false })
      assert.is_nil((client:embed { input = rig.texts(8) }))
      assert.equal(1, #server.log)
    end
  end)

  it("is halved in rerank and classify too", function()
    local server = rig.serve(function(seen)
      local list = {}
      for i, text in ipairs(seen.body.texts or seen.body.inputs) do
        text = type(text) == "table" and text[1] or text
        if text == "3" then return { status = 422, json = { error = "no" } } end
        list[i] = seen.body.texts and { index = i - 1, score = tonumber(text) }
          or { { label = text, score = 1 } }
      end
      return { json = list }
    end)
    local client = rig.client(server)
    local ranked = assert(client:rerank { query = "q", texts = rig.texts(4) })
    assert.same({ 3 }, indices(ranked.errors))
    assert.same({ 4, 2, 1 }, indices(ranked.results))
    local classes = assert(client:classify { inputs = rig.texts(4) })
    assert.same({ 3 }, indices(classes.errors))
    assert.same({ "1", "2", nil, "4" }, { classes.results[1][1].label, classes.results[2][1].label, nil,
      classes.results[4][1].label })
  end)
end)

describe("every result", function()
  after_each(rig.close_all)

  it("has ok, errors, requests and total_time", function()
    local server = rig.serve(function(seen)
      local b = seen.body or {}
      if b.texts then return { json = { { index = 0, score = 1 } } } end
      if b.inputs then return { json = { { { label = "l", score = 1 } } } } end
      if b.input then return { json = rig.embeddings(b.input) } end
      return { json = {} }
    end)
    local client = rig.client(server)
    local calls = { embed = { input = { "1" } }, rerank = { query = "q", texts = { "1" } },
      classify = { inputs = { "1" } }, batch_post = { path = "/", payloads = { {} } },
      request = { path = "/" } }
    for name, o in pairs(calls) do
      local res = assert(client[name](client, o))
      assert.is_true(res.ok, name)
      assert.same({}, res.errors, name)
      assert.is_true(res.total_time > 0, name)
      local r = res.requests[1]
      assert.equal(1, #res.requests, name)
      assert.same({ 200, 1, 0, 1, 1 }, { r.status, r.attempts, r.hedges, r.first, r.count }, name)
      assert.is_true(r.time > 0, name)
      assert.equal("application/json", r.headers["content-type"], name)
      assert.matches("^moonpool%-", r.request_id, name)
    end
  end)
end)

describe("a compressed reply", function()
  after_each(rig.close_all)

  local function gzip(text)
    local path = os.tmpname()
    local pipe = assert(io.popen("gzip -c >" .. path, "w"))
    pipe:write(text)
    pipe:close()
    local f = assert(io.open(path, "rb"))
    local packed = f:read "a"
    f:close()
    os.remove(path)
    return packed
  end

  it("is unpacked, in any number of writes", function()
    local texts = rig.texts(50)
    for _, fault in ipairs { false, { dribble = 7 }, { chunk = 3 } } do
      local server = rig.serve(function(seen)
        assert(seen.headers["accept-encoding"]:find "gzip")
        return { body = gzip(json.encode(rig.embeddings(seen.body.input))), fault = fault or {},
          headers = { ["content-encoding"] = "gzip", ["content-type"] = "application/json" } }
      end)
      assert.is_nil(rig.wrong_row(assert(rig.client(server):embed { input = texts }), texts))
    end
  end)

  it("that breaks off is asked for again", function()
    local server = rig.serve(function(seen, n)
      local body = gzip(json.encode(rig.embeddings(seen.body.input)))
      local headers = { ["content-encoding"] = "gzip", ["content-type"] = "application/json" }
      local fault = n == 1 and { cut = #body // 2, ends = "reset" } or nil
      return { body = body, headers = headers, fault = fault }
    end)
    assert.is_nil(rig.wrong_row(assert(rig.client(server):embed { input = { "1" } }), { "1" }))
    assert.equal(2, #server.log)
  end)

  it("is not asked for when switched off", function()
    local server = rig.embedder()
    assert(rig.client(server, { accept_encoding = false }):embed { input = { "1" } })
    assert.is_nil(server.log[1].headers["accept-encoding"])
  end)
end)
