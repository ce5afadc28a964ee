-- The embed job and its directory of vectors, over a client that is a table.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local embedjob = require "moonpool.job.vectors"
local matrix = require "moonpool.matrix"
local vectordir = require "moonpool.job.store"
local json = moonpool.json

local dir
-- In memory where there is such a place: hundreds of directories are made and synced.
before_each(function()
  dir = (core.stat "/dev/shm" and "/dev/shm" or "/tmp") .. "/moonpool-" .. core.random_hex(8)
  assert(core.mkdir(dir))
end)
after_each(function() os.execute("rm -rf '" .. dir .. "'") end)

local function write(name, text)
  local path = dir .. "/" .. name
  local f <close> = assert(io.open(path, "wb"))
  f:write(text)
  return path
end

local function read(name)
  local f <close> = assert(io.open(dir .. "/" .. name, "rb"))
  return f:read "a"
end

local function records(name)
  local list = {}
  for value, err in moonpool.jsonl.reader(dir .. "/" .. name) do
    assert.is_nil(err)
    list[#list + 1] = value
  end
  return list
end

local function is_nan_row(row)
  for i = 1, #row do
    if row[i] == row[i] then
      return false
    end
  end
  return true
end

-- A client whose embed_each behaves as the real one: batches in input order; a text that begins with
-- FAIL fails. Vector of a text: {its length, its first number, 1}. `dim` may be a function of the batch.
local function fake(size, dim)
  local client = { calls = 0 }
  function client.stats()
    return { requests = client.calls, attempts = client.calls, retries = 0, hedges = 0 }
  end
  function client:embed_each(source, opts)
    local row = 1
    client.opts = opts
    return function()
      local batch = { first = row, items = {}, errors = {} }
      local rows, good = {}, 0
      self.calls = self.calls + 1
      local d = dim and dim(self.calls) or 3
      while #batch.items < size do
        local item = source()
        if item == nil then
          break
        end
        local k = #batch.items + 1
        batch.items[k] = item
        local text = opts.text(item)
        local vector = {}
        for i = 1, d do
          vector[i] = 0 / 0
        end
        if not text or text:match "^FAIL" then
          local err = core.error("http", "row 1: status 500", { status = 500 })
          batch.errors[#batch.errors + 1] = { index = k, error = err }
        else
          good = good + 1
          vector = { #text, tonumber(text:match "%d+") or 0, 1, table.unpack(vector, 4) }
        end
        rows[k] = vector
      end
      batch.count = #batch.items
      row = row + batch.count
      if batch.count == 0 then
        return nil
      end
      batch.matrix = good > 0 and matrix.from(rows) or nil
      return batch
    end
  end
  return client
end

local function run(text, opts)
  opts = opts or {}
  local input = write(opts.name or "in.txt", text)
  local source <close> = assert(embedjob.source {
    input = input, field = opts.field, id_field = opts.id_field,
  })
  local out = assert(vectordir.create(dir .. "/out", opts))
  embedjob.run(opts.client or fake(opts.size or 3, opts.dim), source, out, {})
  out:finish(true)
  return out, json.decode(read "out/index.json")
end

local function load_all(index)
  local rows = {}
  for _, part in ipairs(index.parts) do
    local m = assert(matrix.load_npy(dir .. "/out/" .. part.npy))
    assert.equal(part.rows, #m)
    assert.equal(part.first, #rows)
    for _, row in ipairs(m) do
      rows[#rows + 1] = row
    end
  end
  return rows
end

describe("embedjob", function()
  it("keeps row i of the input as row i over the parts, whatever fails", function()
    for _, size in ipairs { 1, 3, 4, 7, 100 } do
      for _, shard in ipairs { 1, 2, 5, 10, 100 } do
        local lines = {}
        for i = 0, 22 do
          lines[#lines + 1] = (i % 5 == 2 and "FAIL " or "text ") .. i
          if i % 7 == 3 then
            lines[#lines] = "   "
          end
        end
        local out, index = run(table.concat(lines, "\n") .. "\n", { size = size, shard_rows = shard })
        assert.equal(23, out.rows)
        assert.equal(3, index.dim)
        assert.is_true(index.complete)
        local rows, failed = load_all(index), 0
        assert.equal(23, #rows)
        local row = 0
        for _, part in ipairs(index.parts) do
          for _, record in ipairs(records("out/" .. part.jsonl)) do
            local line = lines[row + 1]
            assert.equal(row, record.row)
            if line:match "^text" then
              assert.equal(json.null, record.error)
              assert.equal(line, record.text)
              assert.same({ #line, row, 1 }, rows[row + 1]:totable())
            else
              failed = failed + 1
              assert.is_true(is_nan_row(rows[row + 1]))
              assert.equal(line:match "FAIL" and "status 500" or "the line is blank", record.error.message)
            end
            row = row + 1
          end
        end
        assert.equal(failed, index.failed)
        os.execute("rm -rf " .. dir .. "/out")
      end
    end
  end)

  it("writes NaN rows for what failed before the dimension was known", function()
    local _, index = run("FAIL\nFAIL\n\nFAIL\nFAIL\ntext 5\nFAIL\n", { size = 2, shard_rows = 2 })
    local rows = load_all(index)
    assert.equal(7, #rows)
    for i, row in ipairs(rows) do
      assert.equal(i ~= 6, is_nan_row(row))
    end
  end)

  it("ends with the reasons when nothing succeeds", function()
    local out, index = run("FAIL\nFAIL\n\n", { shard_rows = 2 })
    assert.equal(3, out.failed)
    assert.equal(0, index.dim)
    assert.equal(2, #index.parts)
    assert.is_nil(index.parts[1].npy)
    assert.equal("http", records("out/part-00000.jsonl")[1].error.kind)
    assert.equal(500, records("out/part-00000.jsonl")[1].error.status)
    assert.same({ row = 0, kind = "http", message = "status 500", status = 500 }, out.first_error)
  end)

  it("makes a directory of an empty input", function()
    local out, index = run ""
    assert.equal(0, out.rows)
    assert.is_true(index.complete)
    assert.equal(0, #index.parts)
    assert.matches('"parts":%[%]', read "out/index.json")
  end)

  it("refuses vectors of another dimension, row by row", function()
    local function dim(batch) return batch == 1 and 3 or 4 end
    local out, index = run("a 0\nb 1\nc 2\nd 3\n", { size = 2, dim = dim })
    assert.equal(2, out.failed)
    assert.equal(3, index.dim)
    local record = records("out/part-00000.jsonl")[3]
    assert.equal("decode", record.error.kind)
    assert.matches("4 dimensions, after 3 before", record.error.message)
    assert.is_true(is_nan_row(load_all(index)[4]))
  end)

  it("reads JSONL by fields, and says what is wrong with a record", function()
    local text = [[
{"text":"one 1","id":"a"}
{"text":"two 2","id":7,"more":[1]}
{"other":"x","id":"c"}
{"text":5}
not json
"plain"
{"text":null}
{"text":" ","id":[1]}

{"text":"ten 10"}
]]
    local _, index = run(text, { name = "in.jsonl", size = 4 })
    local got = records "out/part-00000.jsonl"
    assert.equal(10, #got)
    assert.equal("a", got[1].id)
    assert.equal(7, got[2].id)
    assert.equal("integer", math.type(got[2].id))
    assert.equal("c", got[3].id)
    assert.is_nil(got[10].id)
    local messages = {
      [3] = "the record has no field 'text'", [4] = "the field 'text' is a number, not a string",
      [5] = "expected a value", [6] = "the line is not a JSON object",
      [7] = "the record has no field 'text'", [8] = "the field 'text' is blank", [9] = "the line is blank",
    }
    for i, record in ipairs(got) do
      if messages[i] then
        assert.truthy(record.error.message:find(messages[i], 1, true), record.error.message)
      else
        assert.equal(json.null, record.error)
      end
    end
    assert.equal("decode", got[5].error.kind)
    assert.equal(7, index.failed)
  end)

  it("takes other fields, whatever the file is called", function()
    run('{"body":"b 1","key":"k"}\n', { field = "body", id_field = "key" })
    assert.same({ { row = 0, id = "k", text = "b 1", error = json.null } }, records "out/part-00000.jsonl")
  end)

  it("can leave the texts out", function()
    run("a 1\n", { text = false })
    assert.same({ { row = 0, error = json.null } }, records "out/part-00000.jsonl")
  end)

  it("writes broken UTF-8 as U+FFFD, so that the line stays JSON", function()
    run "FAIL \xff\xfe grün \xc3\n"
    assert.equal("FAIL \u{FFFD}\u{FFFD} grün \u{FFFD}", records("out/part-00000.jsonl")[1].text)
  end)
end)

describe("vectordir.create", function()
  local function create(opts)
    return vectordir.create(dir .. "/out", opts or {})
  end

  it("makes the directories above, for the owner only", function()
    local out = assert(vectordir.create(dir .. "/a/b/c/", {}))
    assert.equal(dir .. "/a/b/c", out.dir)
    assert.equal(tonumber("700", 8), core.stat(dir .. "/a/b/c").mode)
  end)

  it("refuses what an earlier job left, unless told to replace it", function()
    run "a 1\n"
    local out, err = create()
    assert.is_nil(out)
    assert.matches("already holds a finished job of 1 rows", err)
    write("out/notes.txt", "mine")
    assert(create { force = true })
    out, err = create()
    assert.is_nil(out)
    assert.matches("unfinished output of an earlier job", err)
    assert.equal("mine", read "out/notes.txt")
    assert.is_nil(core.stat(dir .. "/out/part-00000.npy"))
  end)

  it("fails as a value where it cannot be", function()
    write("out", "a file")
    local out, err = create()
    assert.is_nil(out)
    assert.matches("not a directory", err)
    assert.is_nil((vectordir.create("/proc/nowhere/x", {})))
  end)

  it("is complete only at the end", function()
    local out = assert(create())
    assert.is_false(json.decode(read "out/index.json").complete)
    out:add({ { text = "a" } }, matrix.from { { 1, 2 } }, {})
    out:finish(false)
    local index = json.decode(read "out/index.json")
    assert.is_false(index.complete)
    assert.equal(1, index.rows)
    assert.equal(1, #matrix.load_npy(dir .. "/out/part-00000.npy"))
  end)
end)

describe("a job that is cut short", function()
  -- A hook raises after `count` instructions, wherever that is, as Ctrl+C does.
  local function cut_short(count, opts)
    local out = assert(vectordir.create(dir .. "/out", opts))
    local ok = pcall(function()
      debug.sethook(function()
        debug.sethook()
        error("cut", 0)
      end, "", count)
      for i = 0, 9 do
        local entries, rows, errors = {}, {}, {}
        for k = 1, 3 do
          entries[k] = { text = ("row %d"):format(3 * i + k - 1) }
          rows[k] = { 3 * i + k - 1, 1 }
        end
        if i < opts.bad then
          errors = { { index = 1, error = "x" }, { index = 2, error = "x" }, { index = 3, error = "x" } }
        end
        out:add(entries, matrix.from(rows), errors)
      end
      debug.sethook()
    end)
    if not ok then
      out:finish(false)
    end
    return ok
  end

  local function check_consistent()
    local index = json.decode(read "out/index.json")
    local row, files = 0, 1
    for _, part in ipairs(index.parts) do
      local list = records("out/" .. part.jsonl)
      assert.equal(part.rows, #list)
      assert.equal(part.first, row)
      local m = part.npy and matrix.load_npy(dir .. "/out/" .. part.npy)
      assert.equal(index.dim > 0, m ~= nil)
      files = files + (m and 2 or 1)
      for i, record in ipairs(list) do
        assert.equal("row " .. row, record.text)
        if m then
          assert.equal(#list, #m)
          assert.equal(record.error == json.null, m[i][1] == row)
        end
        row = row + 1
      end
    end
    assert.equal(index.rows, row)
    assert.equal(0, row % 3)
    assert.is_false(index.complete)
    assert.equal(files, #core.listdir(dir .. "/out"))
  end

  it("goes back to its last whole batch, wherever it was cut", function()
    for _, bad in ipairs { 0, 2, 4 } do
      local count = 1
      repeat
        local ended = cut_short(count, { shard_rows = 5, bad = bad })
        if not ended then
          check_consistent()
        end
        for _, name in ipairs(core.listdir(dir .. "/out")) do
          os.remove(dir .. "/out/" .. name)
        end
        count = count + 41
      until ended
      assert.truthy(count > 500)
    end
  end)
end)

describe("vectordir.open", function()
  it("searches over all parts by cosine and describes what it found", function()
    local out = assert(vectordir.create(dir .. "/out", { shard_rows = 2 }))
    out:add({ { text = "east", id = "e" }, { text = "north" }, { problem = core.error("invalid", "x") },
      { text = "north east" }, { text = "far north" } },
      matrix.from { { 1, 0 }, { 0, 1 }, { 9, 9 }, { 1, 1 }, { 0, 100 } }, {})
    out:finish(true)
    local reader = assert(vectordir.open(dir .. "/out"))
    local hits = reader:describe(reader:search({ 0, 2 }, 3))
    assert.same({ "north", "far north", "north east" }, { hits[1].text, hits[2].text, hits[3].text })
    assert.same({ 1, 4, 3 }, { hits[1].row, hits[2].row, hits[3].row })
    assert.near(1, hits[1].score, 1e-6)
    hits = reader:describe(reader:search({ 1, 0 }, 100))
    assert.equal(4, #hits)
    assert.equal("e", hits[1].id)
  end)

  it("refuses other directories", function()
    local reader, err = vectordir.open(dir)
    assert.is_nil(reader)
    assert.matches("index.json: No such file", err)
    write("index.json", '{"format":"other"}')
    reader, err = vectordir.open(dir)
    assert.is_nil(reader)
    assert.matches("not the index of a vector directory", err)
    write("index.json", "{")
    assert.is_nil((vectordir.open(dir)))
  end)
end)
