-- The embed job and its directory of vectors, over a client that is a table.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local job = require "moonpool.job"
local matrix = require "moonpool.matrix"
local reader = require "moonpool.job.reader"
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

-- Runs a job over that text: what it counted and the index.
local function run(text, opts)
  opts = opts or {}
  local one = job.new {
    source = write(opts.name or "in.txt", text), sink = dir .. "/out", field = opts.field,
    id_field = opts.id_field, client = opts.client or fake(opts.size or 3, opts.dim), text = opts.text,
    shard_rows = opts.shard_rows, force = opts.force, dedupe = opts.dedupe, strict = opts.strict,
    retry_failed = opts.retry_failed, model = opts.model, f16 = opts.f16, normalize = opts.normalize,
    truncate_dim = opts.truncate_dim,
  }
  local res, err = one:run()
  return res, res and json.decode(read "out/index.json") or err, one
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
    assert.equal(3, out.failed)
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

describe("a job's directory", function()
  local function again(text, opts)
    opts = opts or {}
    opts.client = fake(3, opts.dim)
    local res, index = run(text, opts)
    return res, index, opts.client.calls
  end

  it("makes the directories above, for the owner only", function()
    write("in.txt", "a 1\n")
    local one = job.new { source = dir .. "/in.txt", sink = dir .. "/a/b/c/", client = fake(3) }
    assert(one:run())
    assert.equal(tonumber("700", 8), core.stat(dir .. "/a/b/c").mode)
    assert.is_true(json.decode(read "a/b/c/index.json").complete)
  end)

  it("goes on with the same job, which is nothing once it is done", function()
    run "a 1\nb 2\n"
    local before = read "out/index.json"
    local res, _, calls = again "a 1\nb 2\n"
    assert.equal(0, calls)
    assert.same({ 2, 0, true }, { res.rows, res.asked, res.finished_before })
    assert.equal(before, read "out/index.json")
  end)

  it("refuses another job, naming what differs, unless told to begin anew", function()
    run "a 1\n"
    local res, err = run("a 1\n", { model = "m" })
    assert.is_nil(res)
    assert.matches("the model was unset there and is 'm' now", err.message)
    write("out/notes.txt", "mine")
    assert(run("a 1\nb 2\n", { model = "m", force = true }))
    assert.equal("m", json.decode(read "out/index.json").identity.model)
    assert.equal("mine", read "out/notes.txt")
    assert.equal(2, #matrix.load_npy(dir .. "/out/part-00000.npy"))
    assert.is_nil(core.stat(dir .. "/out/.next"))
  end)

  it("keeps the old job until a forced one is done", function()
    run "a 1\n"
    local before = read "out/part-00000.npy"
    local broken = fake(3)
    function broken.embed_each() error(core.error("closed", "broken"), 0) end
    assert.is_false(pcall(run, "b 2\n", { force = true, client = broken }))
    assert.equal(before, read "out/part-00000.npy")
    assert.is_true(json.decode(read "out/index.json").complete)
    assert(run("b 22\n", { force = true }))
    assert.same({ 4, 22, 1 }, matrix.load_npy(dir .. "/out/part-00000.npy")[1]:totable())
  end)

  it("fails as a value where it cannot be", function()
    write("out", "a file")
    local res, err = run "a 1\n"
    assert.is_nil(res)
    assert.matches("not a directory", err.message)
    local one = job.new { source = dir .. "/in.txt", sink = "/proc/nowhere/x", client = fake(3) }
    assert.is_nil((one:run()))
  end)

  it("is in use while somebody works on it, and says who", function()
    run "a 1\n"
    local lock <close> = assert(core.lock_file(dir .. "/out/.job/lock"))
    local res, err = run "a 1\nb 2\n"
    assert.is_nil(res)
    assert.matches("out is in use by process %d+", err.message)
    assert(lock)
  end)

  it("asks only for new and changed rows, wherever the others have gone", function()
    local function lines(list)
      return table.concat(list, "\n") .. "\n"
    end
    local texts = {}
    for i = 1, 23 do
      texts[i] = "text " .. i
    end
    local edits = {
      grown = function(t) t[#t + 1] = "new 100" return 1 end,
      grown_by_parts = function(t) for i = 1, 12 do t[#t + 1] = "new " .. 100 + i end return 12 end,
      shrunk = function(t) for _ = 1, 9 do t[#t] = nil end return 0 end,
      inserted = function(t) table.insert(t, 1, "new 100") return 1 end,
      removed = function(t) table.remove(t, 7) return 0 end,
      edited = function(t) t[3], t[20] = "new 3", "new 20" return 2 end,
      turned = function(t)
        for i = 1, #t // 2 do
          t[i], t[#t + 1 - i] = t[#t + 1 - i], t[i]
        end
        return 0
      end,
      emptied = function(t) for i = #t, 1, -1 do t[i] = nil end return 0 end,
    }
    for name, edit in pairs(edits) do
      for _, shard in ipairs { 1, 5, 23, 100 } do
        os.execute("rm -rf " .. dir .. "/out")
        run(lines(texts), { shard_rows = shard })
        local t = { table.unpack(texts) }
        local new = edit(t)
        local text = #t > 0 and lines(t) or ""
        local res, index = again(text, { shard_rows = shard })
        assert.equal(new, res.asked, name .. " " .. shard)
        assert.equal(#t, res.rows)
        local rows = load_all(index)
        for i, one in ipairs(t) do
          assert.same({ #one, tonumber(one:match "%d+"), 1 }, rows[i]:totable(), name)
        end
        local row = 0
        for _, part in ipairs(index.parts) do
          for _, record in ipairs(records("out/" .. part.jsonl)) do
            assert.same({ row, t[row + 1] }, { record.row, record.text })
            row = row + 1
          end
        end
        assert.equal(#t, row)
        -- and byte for byte what a new job makes of it
        os.execute(("mv %s/out %s/first"):format(dir, dir))
        run(text, { shard_rows = shard })
        for _, part in ipairs(index.parts) do
          for _, file in ipairs { part.npy or part.jsonl, part.jsonl } do
            assert.equal(read("out/" .. file), read("first/" .. file), name)
          end
        end
        os.execute("rm -rf " .. dir .. "/first")
      end
    end
  end)

  it("refuses a changed input when it is to be strict", function()
    run "a 1\n"
    local res, err = run("a 1\nb 2\n", { strict = true })
    assert.is_nil(res)
    assert.matches("another input", err.message)
    assert(run("a 1\n", { strict = true }).finished_before)
  end)

  it("keeps failed rows until told to ask again", function()
    local text = "a 1\nFAIL 2\nc 3\n\nFAIL 5\nf 6\n"
    run(text, { shard_rows = 4 })
    local res, _, calls = again(text, { shard_rows = 4 })
    assert.equal(0, calls)
    assert.equal(3, res.failed)
    res = again(text .. "g 7\n", { shard_rows = 4 })
    assert.same({ 1, 3 }, { res.asked, res.failed })
    local good = fake(3)
    local each = good.embed_each
    function good:embed_each(source, opts)
      local text_of = opts.text
      opts.text = function(item)
        return (text_of(item):gsub("^FAIL", "FINE"))
      end
      return each(self, source, opts)
    end
    local index
    res, index = run(text .. "g 7\n", { shard_rows = 4, client = good, retry_failed = true })
    assert.same({ 2, 1 }, { res.asked, res.failed })
    local rows = load_all(index)
    assert.same({ 6, 2, 1 }, rows[2]:totable())
    assert.same({ 3, 7, 1 }, rows[7]:totable())
    assert.equal(json.null, records("out/part-00001.jsonl")[1].error)
  end)

  it("asks once for equal texts of a job", function()
    local asked = fake(3)
    local res, index = run("a 1\nb 2\na 1\na 1\nb 2\nc 3\na 1\n", { client = asked })
    assert.equal(3, res.asked)
    local seen = {}
    for i, row in ipairs(load_all(index)) do
      seen[i] = row[2]
    end
    assert.same({ 1, 2, 1, 1, 2, 3, 1 }, seen)
    os.execute("rm -rf " .. dir .. "/out")
    assert.equal(4, run("a 1\na 1\na 1\nb 2\n", { dedupe = false }).asked)
  end)

  it("cuts, scales and halves the vectors it writes", function()
    local _, index = run("abc 4\n", { truncate_dim = 2, normalize = true })
    local row = load_all(index)[1]
    assert.equal(2, #row)
    assert.near(5 / math.sqrt(41), row[1], 1e-6)
    os.execute("rm -rf " .. dir .. "/out")
    _, index = run("abc 4\n", { f16 = true })
    assert.equal("float16", index.dtype)
    assert.same({ 5, 4, 1 }, load_all(index)[1]:totable())
  end)
end)

describe("a job that is cut short", function()
  local texts = {}
  for i = 0, 29 do
    texts[#texts + 1] = (i % 11 == 3 and "FAIL " or "row ") .. i
  end
  local text = table.concat(texts, "\n") .. "\n"

  -- A hook raises after `count` instructions, wherever that is, as Ctrl+C does.
  local function cut_short(count, shard)
    return (pcall(function()
      debug.sethook(function()
        debug.sethook()
        error(core.error("cancelled", "cut"), 0)
      end, "", count)
      run(text, { shard_rows = shard })
      debug.sethook()
    end))
  end

  local function check_consistent()
    local f = io.open(dir .. "/out/index.json")
    local index = f and json.decode(f:read "a")
    if not f then
      return
    end
    f:close()
    local row = 0
    for _, part in ipairs(index.parts) do
      local list = records("out/" .. part.jsonl)
      assert.equal(part.rows, #list)
      assert.equal(part.first, row)
      local m = part.npy and matrix.load_npy(dir .. "/out/" .. part.npy)
      for i, record in ipairs(list) do
        assert.equal(texts[row + 1], record.text)
        if m then
          assert.equal(#list, #m)
          assert.equal(record.error == json.null, m[i][2] == row)
        end
        row = row + 1
      end
    end
    assert.equal(index.rows, row)
  end

  it("is consistent wherever it was cut, and goes on to the same bytes", function()
    local want = {}
    run(text, { shard_rows = 5 })
    for _, name in ipairs(core.listdir(dir .. "/out")) do
      want[name] = name:match "^part" and read("out/" .. name) or nil
    end
    local count = 1
    repeat
      os.execute("rm -rf " .. dir .. "/out")
      local ended = cut_short(count, 5)
      if not ended then
        collectgarbage() -- a process would end here; its lock with it
        check_consistent()
        assert(run(text, { shard_rows = 5 }))
        for name, bytes in pairs(want) do
          assert.equal(bytes, read("out/" .. name), name)
        end
      end
      count = count + 97
    until ended
    assert.truthy(count > 500)
  end)
end)

describe("what reads a job", function()
  it("searches over all parts by cosine and describes what it found", function()
    local client, vectors = fake(9), { east = { 1, 0 }, north = { 0, 1 }, both = { 1, 1 }, far = { 0, 100 } }
    function client:embed_each(source)
      self.done = not self.done
      return function()
        local items, rows = {}, {}
        for item in source do
          items[#items + 1] = item
          rows[#rows + 1] = vectors[item.text:match "%a+$"]
        end
        return #items > 0 and { items = items, matrix = matrix.from(rows), errors = {} } or nil
      end
    end
    run([[{"text":"east","id":"e"}
{"text":"north"}
{"text":""}
{"text":"north both"}
{"text":"north far"}
]], { name = "in.jsonl", shard_rows = 2, client = client })
    local found = assert(reader.open(dir .. "/out"))
    local hits = found:describe(found:search({ 0, 2 }, 3))
    assert.same({ "north", "north far", "north both" }, { hits[1].text, hits[2].text, hits[3].text })
    assert.same({ 1, 4, 3 }, { hits[1].row, hits[2].row, hits[3].row })
    assert.near(1, hits[1].score, 1e-6)
    hits = found:describe(found:search({ 1, 0 }, 100))
    assert.equal(4, #hits)
    assert.equal("e", hits[1].id)
  end)

  it("refuses other directories", function()
    local found, err = reader.open(dir)
    assert.is_nil(found)
    assert.matches("index.json: No such file", err)
    write("index.json", '{"format":"other"}')
    found, err = reader.open(dir)
    assert.is_nil(found)
    assert.matches("not the index of a vector directory", err)
    write("index.json", "{")
    assert.is_nil((reader.open(dir)))
  end)
end)
