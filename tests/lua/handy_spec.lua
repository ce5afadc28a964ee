-- Small things of the library: base64, lines, rows of several matrices, what pairs shows.
local moonpool = require "moonpool"

describe("moonpool.base64", function()
  it("goes both ways, strictly", function()
    for text, bytes in pairs { [""] = "", ["Zg=="] = "f", ["Zm9v"] = "foo", ["AP8="] = "\0\255" } do
      assert.equal(text, moonpool.base64.encode(bytes))
      assert.equal(bytes, moonpool.base64.decode(text))
    end
    local long = ("\1\2\3\254"):rep(5000)
    assert.equal(long, moonpool.base64.decode(moonpool.base64.encode(long)))
    for _, bad in ipairs { "Zg=", "Z", "Zm9v\n", "Zm*v" } do
      assert.same({ nil, "not base64" }, { moonpool.base64.decode(bad) })
    end
  end)
end)

describe("moonpool.lines", function()
  it("reads a file, and lets other tasks run while a pipe is silent", function()
    local path = os.tmpname()
    local f = assert(io.open(path, "wb"))
    f:write "one\r\ntwo\n\nlast"
    f:close()
    local got = {}
    for line in moonpool.lines(path) do got[#got + 1] = line end
    os.remove(path)
    assert.same({ "one", "two", "", "last" }, got)
    local ok, why = pcall(moonpool.lines, "/none/such")
    assert.is_false(ok)
    assert.matches("/none/such", why)
  end)
end)

describe("matrix.concat", function()
  it("puts rows below rows", function()
    local from = moonpool.matrix.from
    local m = moonpool.matrix.concat { from { { 1, 2 } }, from(0, 2), from { { 3, 4 }, { 5, 6 } } }
    assert.same({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, m:totable())
    assert.has_error(function() moonpool.matrix.concat { from { { 1, 2 } }, from { { 1 } } } end)
    assert.has_error(function() moonpool.matrix.concat {} end)
    assert.has_error(function() moonpool.matrix.concat { 1 } end)
  end)
end)

describe("pairs(moonpool)", function()
  it("shows all that is there", function()
    local seen = {}
    for name in pairs(moonpool) do seen[name] = true end
    for _, name in ipairs { "client", "json", "matrix", "serve", "scope", "base64", "lines", "version" } do
      assert.is_true(seen[name], name)
    end
  end)
end)
