-- Servers whose limit nobody told us, at default settings: every row comes, in few requests more than
-- the least, and the limit is known from then on.

local rig = require "client_rig"
local moonpool = require "moonpool"

local function log2_up(n)
  local k = 0
  while 1 << k < n do k = k + 1 end
  return k
end

-- refuse(seen): a reply for what is too large, or nil.
local function served(refuse)
  return rig.embedder(function(seen) return refuse(seen) end)
end

local function check(refuse, texts, least, opts)
  local server = served(refuse)
  local client = rig.client(server, opts)
  local res = assert(rig.within(60, client.embed, client, { input = texts }))
  assert.is_nil(rig.wrong_row(res, texts))
  assert.same({}, res.errors)
  local most = least * 1.2 + 2 * log2_up(#texts)
  assert.is_true(#server.log <= most, ("%d requests, at most %g"):format(#server.log, most))
  return client, server
end

local function too_many(limit, status)
  return function(seen)
    local n = #seen.body.input
    if n > limit then return { status = status, json = { error = { message = "no" } } } end
  end
end

local function too_long(limit, status, of)
  return function(seen)
    local sum = 0
    for _, text in ipairs(seen.body.input) do sum = sum + of(text) end
    if sum > limit and #seen.body.input > 1 then return { status = status, json = { error = "no" } } end
  end
end

-- How many requests a list takes when each may cost so much.
local function least_of(texts, limit, of)
  local n, sum = 1, 0
  for _, text in ipairs(texts) do
    if sum > 0 and sum + of(text) > limit then n, sum = n + 1, 0 end
    sum = sum + of(text)
  end
  return n
end

-- Numbers in words of different lengths.
local function uneven(n)
  local list = {}
  for i = 1, n do list[i] = i .. (" word"):rep(1 + i * 7919 % 13) end
  return list
end

describe("an unknown limit", function()
  after_each(rig.close_all)

  it("of inputs is found", function()
    for _, limit in ipairs { 1, 7, 10, 32, 100 } do
      for _, status in ipairs { 400, 413, 422 } do
        check(too_many(limit, status), rig.texts(limit == 1 and 300 or 3000),
          math.ceil((limit == 1 and 300 or 3000) / limit))
      end
    end
  end)

  it("of bytes is found", function()
    for _, status in ipairs { 400, 413 } do
      local texts = uneven(3000)
      local function bytes(text) return #text + 3 end
      check(function(seen)
        if #seen.text > 900 then return { status = status, body = "<html>413 Request Entity Too Large" } end
      end, texts, least_of(texts, 800, bytes))
    end
  end)

  it("of tokens is found", function()
    local texts = uneven(3000)
    local function tokens(text) return select(2, text:gsub("%S+", "")) end
    check(too_long(200, 400, tokens), texts, least_of(texts, 200, tokens))
  end)

  it("named in the refusal is kept at once", function()
    local messages = {
      "at most %2$d requests can be in one batch", "batch size %1$d > maximum allowed batch size %2$d",
      "Too many inputs. The max number of inputs is %2$d. You passed %1$d.",
      "'input': list should have at most %2$d items after validation, not %1$d",
    }
    for _, message in ipairs(messages) do
      local function refuse(seen)
        local n = #seen.body.input
        if n > 30 then
          local words = message:gsub("%%1%$d", n):gsub("%%2%$d", 30)
          return { status = 422, json = { error = { message = words } } }
        end
      end
      local client, server = check(refuse, rig.texts(3000), 100)
      assert.is_true(#server.log <= 100 + 10, message .. ": " .. #server.log)
      assert.equal(30, client:stats().limits[1].inputs)
    end
  end)

  it("of time is found", function()
    check(too_many(10, 504), rig.texts(3000), 300)
    local function slow(seen)
      if #seen.body.input > 10 then moonpool.sleep(0.6) end
    end
    check(slow, rig.texts(640), 64, { timeout = 0.3 })
  end)

  it("is told once, and known to the next calls and to their stats", function()
    local client, server = check(too_many(10, 400), rig.texts(300), 30, { model = "m" })
    local limit = client:stats().limits[1]
    assert.same({ path = "/v1/embeddings", model = "m", inputs = 10, guessed = false }, limit)
    local before = #server.log
    assert(client:embed { input = rig.texts(200) })
    assert.equal(20, #server.log - before)
    -- Another model has limits of its own.
    server.log[1].other = true
    before = #server.log
    assert(client:embed { input = rig.texts(5), model = "other" })
    assert.equal(1, #server.log - before)
  end)

  it("does not lose a row beside poison", function()
    local server = rig.embedder(function(seen)
      local input = seen.body.input
      if #input > 20 then return { status = 400, json = { error = "no" } } end
      for _, text in ipairs(input) do
        if text == "777" or text == "1" then return { status = 400, json = { error = "no " .. text } } end
      end
    end)
    local client = rig.client(server)
    local res = assert(client:embed { input = rig.texts(1500) })
    assert.equal(2, #res.errors)
    assert.same({ 1, 777 }, { res.errors[1].index, res.errors[2].index })
    assert.is_true(#server.log < 75 * 1.2 + 22 + 2 * 14)
  end)

  it("holds for embed_each", function()
    local server = served(too_many(10, 400))
    local client = rig.client(server)
    local rows = 0
    for batch in client:embed_each(rig.texts(3000)) do
      assert.same({}, batch.errors)
      rows = rows + batch.count
    end
    assert.equal(3000, rows)
    -- Each batch is a call of its own: of 128 texts 13 requests.
    assert.is_true(#server.log <= 24 * 13 * 1.2 + 24, #server.log)
  end)
end)

describe("a request that is wrong as a whole", function()
  after_each(rig.close_all)

  it("costs a handful of requests more, and every row has the server's words", function()
    for _, status in ipairs { 400, 422, 413 } do
      local server = rig.serve(function() return { status = status, json = { error = "no such model" } } end)
      local client = rig.client(server)
      local res, err = client:embed { input = rig.texts(3000) }
      assert.is_nil(res)
      assert.equal(3000, #err.errors)
      for _, e in ipairs(err.errors) do
        assert.equal(status, e.error.status)
        assert.matches("no such model", e.error.message)
      end
      assert.is_true(#server.log <= 56, #server.log)
    end
  end)
end)
