-- Texts that are longer than the model takes: cut, refused, in pieces; said by row, and counted.

local moonpool = require "moonpool"
local rig = require "client_rig"

describe("long texts", function()
  after_each(rig.close_all)

  -- The vector of a text: its length, and 1.
  local function lengths(hook)
    return rig.embedder(function(seen, n)
      return hook and hook(seen, n) or { json = rig.embeddings(seen.body.input, nil, function(t)
        return { #t, 1 }
      end) }
    end)
  end

  local texts = { "short", ("long words "):rep(30), "also short" } -- 5, 330, 10 bytes

  it("are refused, the others are not", function()
    local server = lengths()
    local res = assert(rig.client(server):embed { input = texts, model = "m", long = "refuse",
      max_input = { chars = 100 } })
    assert.is_false(res.ok)
    assert.equal(1, #res.errors)
    assert.same({ 2, "too_large", false }, { res.errors[1].index, res.errors[1].error.kind,
      res.errors[1].error.retryable })
    assert.matches("input 2 has 330 characters, the model takes 100", res.errors[1].error.message)
    assert.same({ 3, 5, 10 }, { #res, res[1][1], res[3][1] })
    assert.is_true(res[2][1] ~= res[2][1])
    assert.equal(2, #server.log[1].body.input)
  end)

  it("are cut at a character, and counted", function()
    local res = assert(rig.client(lengths()):embed { input = { "a", ("ä"):rep(40) }, model = "m",
      long = "truncate", max_input = { chars = 7 } })
    assert.is_true(res.ok)
    assert.same({ 2 }, res.cut)
    assert.equal(1, res.rows_cut)
    assert.equal(14, res[2][1]) -- seven characters of two bytes
    res = assert(rig.client(lengths()):embed { input = { ("ä"):rep(40) }, model = "m", long = "truncate",
      max_input = 2 }) -- tokens, of four bytes
    assert.equal(8, res[1][1])
    res = assert(rig.client(lengths()):embed { input = { "x" .. ("ä"):rep(40) }, model = "m",
      long = "truncate", max_input = 2 })
    assert.equal(7, res[1][1]) -- not in the middle of one
  end)

  it("are embedded in pieces, whose mean by length stands for them", function()
    local seen
    local res = assert(rig.client(lengths(function(r) seen = r.body.input end)):embed {
      input = texts, model = "m", long = "chunk", max_input = { chars = 100 } })
    assert.is_true(res.ok)
    assert.same({ 2 }, res.chunked)
    assert.equal(3, #res)
    local sum, weighted = 0, 0
    local whole = {}
    for _, piece in ipairs(seen) do
      if piece:find "long" then
        assert.is_true(#piece <= 100)
        assert.is_nil(piece:find "^ordw") -- between words
        whole[#whole + 1] = piece
        sum, weighted = sum + #piece, weighted + #piece * #piece
      end
    end
    assert.equal(texts[2], table.concat(whole))
    local x = weighted / sum
    local length = math.sqrt(x * x + 1)
    assert.is_true(math.abs(res[2][1] - x / length) < 1e-5)
    assert.same({ 5, 10 }, { res[1][1], res[3][1] })
  end)

  it("a piece that fails is its text's failure", function()
    local server = lengths(function(r)
      for _, text in ipairs(r.body.input) do
        if text:find "long" then return { status = 400, json = { error = { message = "no" } } } end
      end
    end)
    local res = assert(rig.client(server):embed { input = texts, model = "m", long = "chunk",
      max_input = { chars = 100 } })
    assert.equal(1, #res.errors)
    assert.equal(2, res.errors[1].index)
    assert.same({ 5, 10 }, { res[1][1], res[3][1] })
  end)

  it("know what the service takes, or ask for it", function()
    local mock = rig.mock { max_input_tokens = 10 }
    local c = rig.client(mock.url .. "/tei", { provider = "tei" })
    local res = assert(c:embed { input = { ("word "):rep(50), "word" }, long = "truncate" })
    assert.same({ 1 }, res.cut)
    local own = rig.client(mock, { provider = { name = "own", embed = { path = "/embed", rows = "inputs",
      reply = { list = "" } } } })
    local ok, err = pcall(function() own:embed { input = { "a" }, long = "refuse" } end)
    assert.is_false(ok)
    assert.matches("client_long_spec.-max_input is needed", err)
    ok, err = pcall(function() c:embed { input = { "a" }, long = "refuse", max_input = { words = 3 } } end)
    assert.is_false(ok)
    assert.matches("unknown option 'words'", err)
    ok, err = pcall(function()
      for _ in c:embed_each({ "a" }, { long = "refuse" }) do error "never" end
    end)
    assert.is_false(ok)
    assert.matches("long: only of client:embed", tostring(err))
  end)

  it("nothing but long texts, all refused, is an error that names them", function()
    local res, err = rig.client(lengths()):embed { input = { ("x"):rep(50), ("y"):rep(60) }, model = "m",
      long = "refuse", max_input = { chars = 10 } }
    assert.is_nil(res)
    assert.equal("too_large", err.kind)
    assert.equal(2, #err.errors)
    assert.is_not_nil(moonpool)
  end)
end)
