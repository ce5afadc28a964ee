-- moonpool.matrix: values, views that outlive their matrix, clear argument errors, .npy files.

require "moonpool"
local matrix = require "moonpool.matrix"
local core = require "moonpool.core"

local function temporary()
  local path = os.tmpname()
  finally(function() os.remove(path) end)
  return path
end

local function raises(fragment, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.truthy(tostring(err):find(fragment, 1, true), tostring(err))
end

local nan = 0 / 0

describe("matrix.from", function()
  it("takes rows, sizes and bytes", function()
    local m = matrix.from { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.equal(2, #m)
    assert.equal(2, m:rows())
    assert.equal(3, m:cols())
    assert.same({ { 1.0, 2.0, 3.0 }, { 4.0, 5.0, 6.0 } }, m:totable())
    assert.equal("matrix 2 x 3", tostring(m))
    assert.same({ { 0.0, 0.0 } }, matrix.from(1, 2):totable())
    assert.equal(m, matrix.from(m:bytes(), 3))
    assert.equal(m, matrix.from { m[1], m[2] })
    assert.equal(string.pack("<ffffff", 1, 2, 3, 4, 5, 6), m:bytes())
    assert.equal(m:bytes(), m:string())
    assert.equal(0, #matrix.from {})
  end)

  it("names what is wrong", function()
    raises("row 2 has 1 numbers, row 1 has 2", matrix.from, { { 1, 2 }, { 3 } })
    raises("row 1, element 2 is not a number", matrix.from, { { 1, "2" } })
    raises("row 2: a table of numbers expected, got boolean", matrix.from, { { 1 }, false })
    raises("a table of rows expected", matrix.from, { 1, 2 })
    raises("not whole rows of 3 float32", matrix.from, "12345678", 3)
    raises("cannot be negative", matrix.from, -1, 2)
    raises("table of rows, number of rows, or packed bytes", matrix.from)
  end)
end)

describe("a matrix", function()
  local m
  before_each(function() m = matrix.from { { 3, 4 }, { 0, 2 }, { 1, 0 } } end)

  it("is indexed from 1, with nil outside so that ipairs ends", function()
    local seen = {}
    for i, row in ipairs(m) do
      seen[i] = row:totable()
    end
    assert.same(m:totable(), seen)
    assert.is_nil(m[0])
    assert.is_nil(m[4])
    assert.is_nil(m[1.5])
    assert.is_nil(m.no_such_method)
    raises("row 4 is outside 1..3", m.row, m, 4)
    raises("row 0 is outside 1..3", m.row, m, 0)
    raises("of a matrix without rows", function() matrix.from {}:row(1) end)
    raises("read-only", function() m[1] = { 1, 2 } end)
  end)

  it("computes", function()
    assert.equal(25, m:dot(1, m[1]))
    assert.equal(8, m:dot(2, { 3, 4 }))
    assert.equal(8, m[1]:dot(m[2]))
    raises("a vector of 3 numbers, expected 2", m.dot, m, 1, { 1, 2, 3 })
    raises("element 2 is not a number", m.dot, m, 1, { 1, {} })
    raises("row view or table of numbers expected", m.dot, m, 1, 7)
    assert.equal(m, m:normalize())
    assert.near(0.6, m[1][1], 1e-6)
    assert.near(1, m:dot(1, m[1]), 1e-6)
  end)

  it("finds the nearest rows, by cosine unless told", function()
    local top = m:topk({ 0, 1 }, 2)
    assert.same({ 2, 1 }, { top[1].index, top[2].index })
    assert.near(1, top[1].score, 1e-6)
    assert.near(0.8, top[2].score, 1e-6)
    assert.equal(1, m:topk({ 0, 1 }, 1, "dot")[1].index)
    assert.equal(3, #m:topk(m[1], 100))
    assert.same({}, m:topk({ 0, 1 }, 0))
    raises("invalid option 'euclid'", m.topk, m, { 0, 1 }, 1, "euclid")
    raises("cannot be negative", m.topk, m, { 0, 1 }, -1)
    raises("a vector of 1 numbers, expected 2", m.topk, m, { 1 }, 1)
    local with_nan = matrix.from { { nan, nan }, { 1, 1 } }
    local hits = with_nan:topk({ 1, 1 }, 5)
    assert.equal(1, #hits)
    assert.equal(2, hits[1].index)
  end)

  it("can be freed early, and its views live on", function()
    local view
    do
      local short <close> = matrix.from { { 7, 8 } }
      view = short[1]
      short:free()
      raises("the matrix was freed", short.rows, short)
      assert.equal("matrix (freed)", tostring(short))
      short:free()
    end
    collectgarbage()
    assert.same({ 7.0, 8.0 }, view:totable())
  end)

  it("compares by value", function()
    assert.equal(matrix.from { { 1, 2 } }, matrix.from { { 1, 2 } })
    assert.not_equal(matrix.from { { 1, 2 } }, matrix.from { { 1 }, { 2 } })
    assert.is_false(matrix.from { { 1 } } == matrix.from { { 1 } }[1])
  end)

  it("lets the collector know its size", function()
    local before = core.rss()
    for _ = 1, 400 do
      matrix.from(1024, 1024) -- 4 MiB each, 1.6 GiB in all
    end
    assert.is_true(core.max_rss() - before < 400 << 20)
  end)
end)

describe("a row view", function()
  it("is indexed from 1 to its length", function()
    local v = matrix.from { { 0.5, -1, 2 } }[1]
    assert.equal(3, #v)
    assert.equal(0.5, v[1])
    assert.equal(2, v[#v])
    assert.is_nil(v[0])
    assert.is_nil(v[4])
    local sum = 0
    for _, x in ipairs(v) do
      sum = sum + x
    end
    assert.equal(1.5, sum)
    assert.equal(string.pack("<fff", 0.5, -1, 2), v:bytes())
    assert.equal("row of 3", tostring(v))
    raises("read-only", function() v[1] = 2 end)
    raises("a vector of 2 numbers, expected 3", v.dot, v, { 1, 2 })
  end)
end)

describe(".npy files", function()
  it("keep a matrix", function()
    local path = temporary()
    local m = matrix.from { { 1.5, -2, 1e30 }, { 0, 1e-40, 3 } }
    assert.equal(m, m:save_npy(path))
    assert.equal(m, matrix.load_npy(path))
    local half = matrix.from { { 0.5, 2048 } }
    half:save_npy(path, { f16 = true })
    assert.equal(half, matrix.load_npy(path))
  end)

  it("fail as values with the path", function()
    local m, err = matrix.load_npy "/nonexistent/a.npy"
    assert.is_nil(m)
    assert.matches("^/nonexistent/a.npy: No such file", err)
    local path = temporary()
    local f <close> = assert(io.open(path, "w"))
    f:write "this is not one"
    f:flush()
    m, err = matrix.load_npy(path)
    assert.is_nil(m)
    assert.truthy(err:find(path, 1, true))
    assert.is_nil((core.npy_open(path)))
    assert.is_nil((matrix.from { { 1 } }:save_npy "/nonexistent/b.npy"))
  end)

  it("are appended to and read by ranges", function()
    local path = temporary()
    local w = assert(core.npy_create(path, 2))
    local m = matrix.from { { 1, 2 }, { 3, 4 }, { 5, 6 } }
    assert(w:append(m))
    assert(w:append_nan(20000))
    assert(w:append(m, 2, 1))
    assert.equal(20004, w:rows())
    raises("a matrix of 1 columns, the file has 2", w.append, w, matrix.from { { 1 } })
    raises("outside the matrix", w.append, w, m, 2, 3)
    assert(w:close())
    raises("the file is closed", w.append, w, m)
    local r <close> = assert(core.npy_open(path))
    assert.equal(20004, r:rows())
    assert.equal(2, r:cols())
    assert.equal(matrix.from { { 3, 4 }, { 5, 6 } }, r:read(2, 2))
    assert.same({ 3.0, 4.0 }, r:read(20004, 100)[1]:totable())
    local x = r:read(4, 1)[1][1]
    assert.is_true(x ~= x)
    assert.equal(0, #r:read(20005, 1))
    raises("no such row", r.read, r, 20006, 1)
  end)

  it("are refused when they are shorter than they promise", function()
    local path = temporary()
    matrix.from(10, 10):save_npy(path)
    assert(core.truncate(path, 300))
    local r, err = core.npy_open(path)
    assert.is_nil(r)
    assert.matches("more rows than the file holds", err)
    assert.is_nil((matrix.load_npy(path)))
  end)
end)
