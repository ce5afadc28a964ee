-- Where the rows of a job come from.

local core = require "moonpool.core"
local fieldpath = require "moonpool.job.fieldpath"
local json = require "moonpool.json"
local source = require "moonpool.job.source"

local dir
before_each(function()
  dir = os.tmpname()
  os.remove(dir)
  assert(core.mkdir(dir))
end)
after_each(function() os.execute("rm -rf '" .. dir .. "'") end)

local function write(name, text)
  local path = dir .. "/" .. name
  local f <close> = assert(io.open(path, "wb"))
  f:write(text)
  return path
end

local function items(input, o)
  o = o or {}
  local from <close> = assert(source.open { input = input, field = o.field, id_field = o.id_field })
  local list = {}
  for item in function() return from:next() end do
    list[#list + 1] = item.problem and { problem = item.problem.message } or { item.text, item.id }
  end
  return list
end

local function texts(input, o)
  local list = {}
  for i, item in ipairs(items(input, o)) do
    list[i] = item[1] or false
  end
  return list
end

local function pack(command, path)
  assert(os.execute(("%s '%s'"):format(command, path)))
end

-- Text as UTF-16 or UTF-32.
local function wide(text, form)
  local out = {}
  for _, c in utf8.codes(text) do
    if form:find "4" then
      out[#out + 1] = string.pack(form, c)
    elseif c < 0x10000 then
      out[#out + 1] = string.pack(form, c)
    else
      c = c - 0x10000
      out[#out + 1] = string.pack(form, 0xD800 + (c >> 10)) .. string.pack(form, 0xDC00 + (c & 0x3FF))
    end
  end
  return table.concat(out)
end

describe("a field's path", function()
  it("goes through records and lists, counting from 0", function()
    local record = json.decode '{"a":{"b":[{"c":"deep"},"second"]},"x.y":"dotted","n":null,"l":[[1,2]]}'
    for path, want in pairs {
      ["a.b[0].c"] = "deep", ["a.b[1]"] = "second", ["x.y"] = "dotted", ["l[0][1]"] = 2,
    } do
      assert.equal(want, fieldpath.compile(path)(record), path)
    end
    for _, path in ipairs { "a.c", "a.b[7].c", "n.x", "a.b.c", "zz", "a.b[0].c.d" } do
      assert.is_nil(fieldpath.compile(path)(record), path)
    end
  end)
end)

describe("a source", function()
  it("reads CSV as RFC 4180 has it", function()
    local path = write("a.csv", 'id,text,note\r\n1,plain,\r\n2,"quoted, with ""quotes""",x\r\n'
      .. '3,"two\r\nlines",y\r\n4,too,many,fields\r\n5,"" ,z\r\n6,last,')
    assert.same({
      { "plain", "1" }, { 'quoted, with "quotes"', "2" }, { "two\nlines", "3" },
      { problem = "the record has 4 fields, the first line 3" },
      { problem = "there is text behind a quoted field" }, { "last", "6" },
    }, items(path))
    assert.same({ { problem = "a quoted field has no end" } }, items(write("b.csv", 'text\n"open\nmore\n')))
    assert.same({ "a\tb", "c" }, texts(write("c.tsv", 'text\tid\n"a\tb"\t1\nc\t2\n')))
    assert.same({ "grün" }, texts(write("d.csv", "\xEF\xBB\xBFtext\ngrün\n")))
    assert.same({ "y" }, texts(write("e.csv", "a,body\nx,y\n"), { field = "body" }))
  end)

  it("reads packed files, one and several in one", function()
    local lines = {}
    for i = 1, 20000 do
      lines[i] = "line " .. i
    end
    local path = write("a.txt", table.concat(lines, "\n") .. "\n")
    pack("gzip -k", path)
    pack("zstd -q", path)
    assert.same(lines, texts(path .. ".gz"))
    assert.same(lines, texts(path .. ".zst"))
    os.execute(("cat '%s.gz' '%s.gz' > '%s/b.txt.gz'"):format(path, path, dir))
    assert.equal(40000, #texts(dir .. "/b.txt.gz"))
    local jsonl = write("r.jsonl", '{"a":{"b":["x"]}}\n')
    pack("gzip", jsonl)
    assert.same({ "x" }, texts(jsonl .. ".gz", { field = "a.b[0]" }))
  end)

  it("says when a packed file is cut short or damaged", function()
    local path = write("a.txt", ("some text that packs\n"):rep(5000))
    pack("gzip -k", path)
    pack("zstd -q", path)
    for _, suffix in ipairs { ".gz", ".zst" } do
      local f <close> = assert(io.open(path .. suffix, "rb"))
      local bytes = f:read "a"
      local ok, err = pcall(texts, write("cut" .. suffix, bytes:sub(1, #bytes // 2)))
      assert.is_false(ok)
      assert.matches("cut" .. suffix .. ": its .*data is .*", err.message)
      ok, err = pcall(texts, write("bad" .. suffix, bytes:sub(1, 12) .. ("\xA7"):rep(50)))
      assert.is_false(ok)
      assert.equal("file", err.kind)
    end
  end)

  it("reads UTF-16 and UTF-32, with a mark and without", function()
    local text = "alpha\r\ngrün 漢字 😀\nlast"
    local want = { "alpha", "grün 漢字 😀", "last" }
    for form, mark in pairs {
      ["<I2"] = "\xFF\xFE", [">I2"] = "\xFE\xFF", ["<I4"] = "\xFF\xFE\0\0", [">I4"] = "\0\0\xFE\xFF",
    } do
      assert.same(want, texts(write("a.txt", mark .. wide(text, form))), form)
      assert.same(want, texts(write("b.txt", wide(text, form))), form)
      local path = write("c.txt", mark .. wide(text, form))
      pack("gzip -f", path)
      assert.same(want, texts(path .. ".gz"), form)
    end
    local ok, err = pcall(texts, write("odd.txt", "\xFF\xFEa\0b"))
    assert.is_false(ok)
    assert.matches("ends in half a character", err.message)
    assert.same({ "a\u{FFFD}b" }, texts(write("lone.txt", "\xFF\xFEa\0\0\xD8b\0")))
  end)

  it("passes over a mark where files were put behind one another, and says a NUL", function()
    assert.same({ "one", "two" }, texts(write("a.txt", "\xEF\xBB\xBFone\n\xEF\xBB\xBFtwo\n")))
    assert.same({ { "a" }, { problem = "the line holds a NUL byte" } }, items(write("b.txt", "a\nb\0c\n")))
    assert.same({ { problem = "the field 'text' holds a NUL byte" } },
      items(write("c.jsonl", '{"text":"a\\u0000b"}\n')))
  end)

  it("takes all files of a directory or a glob in the order of their names", function()
    core.mkdir(dir .. "/d")
    write("d/b.txt", "two\n")
    write("d/a.txt", "one")
    write("d/c.jsonl", "three\n")
    write("d/.hidden", "never\n")
    assert.same({ "one", "two", "three" }, texts(dir .. "/d"))
    assert.same({ "one", "two" }, texts(dir .. "/d/*.txt"))
    assert.same({ "two" }, texts(dir .. "/?/[b-z].txt"))
    local none, err = source.open { input = dir .. "/d/*.csv" }
    assert.is_nil(none)
    assert.matches("no file matches", err)
    none, err = source.open { input = dir .. "/nowhere" }
    assert.is_nil(none)
    assert.matches("No such file", err)
  end)

  it("takes lists and iterators of texts and records", function()
    assert.same({ "a", "b" }, texts { "a", "b" })
    assert.same({ { "x", 7 }, { problem = "no text to embed: a number" } },
      items { { text = "x", id = 7 }, 5 })
    local n = 0
    assert.same({ "1", "2" }, texts(function()
      n = n + 1
      return n <= 2 and tostring(n) or nil
    end))
  end)

  it("tells whether its file has changed meanwhile", function()
    local path = write("a.txt", "one\ntwo\n")
    local from <close> = assert(source.open { input = path })
    local before = from:identity()
    assert.equal(8, before.bytes)
    assert.is_false(from:changed())
    os.execute(("touch -d 2001-01-01 '%s'"):format(path))
    assert.is_false(from:changed())
    write("a.txt", "one\ntwo\nthree\n")
    assert.is_true(from:changed())
    local again <close> = assert(source.open { input = path })
    assert.equal(before.sum, again:identity(8).sum)
    assert.not_equal(before.sum, again:identity().sum)
  end)

  it("passes over rows without looking at them", function()
    local path = write("a.txt", ("line\n"):rep(1000) .. "here\n")
    local from <close> = assert(source.open { input = path })
    assert.equal(1000, from:skip(1000))
    assert.equal("here", from:next().text)
    assert.equal(0, from:skip(5))
  end)
end)
