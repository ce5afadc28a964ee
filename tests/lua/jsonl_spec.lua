-- moonpool.jsonl and moonpool.textio: lines of any kind, pipes that are slow, writers.

local moonpool = require "moonpool"
local jsonl = require "moonpool.jsonl"
local textio = require "moonpool.textio"
local core = require "moonpool.core"

local function file_with(text)
  local path = os.tmpname()
  finally(function() os.remove(path) end)
  local f <close> = assert(io.open(path, "wb"))
  f:write(text)
  return path
end

local function lines_of(text, opts)
  local got = {}
  for line, err, number in textio.lines(file_with(text), opts) do
    got[#got + 1] = line or err
    assert.equal(#got, number)
  end
  return got
end

-- A fifo that a shell writes to, line by line as it is told by `go` files: no sleeping.
local function fifo()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkfifo " .. path))
  finally(function() os.remove(path) end)
  return path
end

describe("textio.lines", function()
  it("takes lines as they are, whatever ends them", function()
    assert.same({}, lines_of "")
    assert.same({ "" }, lines_of "\n")
    assert.same({ "a", "b" }, lines_of "a\nb")
    assert.same({ "a", "b" }, lines_of "a\nb\n")
    assert.same({ "a", "", "b\rc", "d" }, lines_of "a\r\n\r\nb\rc\r\nd")
    assert.same({ "a\0b", "\xff" }, lines_of "a\0b\n\xff\n")
    assert.same({ "x" }, lines_of "\xEF\xBB\xBFx\n")
    assert.same({ "a", "\xEF\xBB\xBFx" }, lines_of "a\n\xEF\xBB\xBFx\n")
  end)

  it("reads files of many lines exactly", function()
    local seed = tonumber(os.getenv "SEED") or os.time()
    print("# seed " .. seed)
    math.randomseed(seed)
    local want = {}
    for i = 1, 20000 do
      want[i] = ("x"):rep(math.random(0, i % 100 == 0 and 5000 or 40)) .. i
    end
    assert.same(want, lines_of(table.concat(want, "\n")))
    assert.same(want, lines_of(table.concat(want, "\r\n") .. "\r\n"))
  end)

  it("passes over a line that is too long, and goes on behind it", function()
    for _, length in ipairs { 101, 1000, 300000, 2000000 } do
      local got = lines_of("before\n" .. ("y"):rep(length) .. "\nafter\n" .. ("z"):rep(length),
        { max_line = 100 })
      assert.equal("before", got[1])
      assert.equal("too_large", got[2].kind)
      assert.matches("line 2: the line is longer than 100 bytes", got[2].message)
      assert.equal("after", got[3])
      assert.equal("too_large", got[4].kind)
      assert.equal(4, #got)
    end
    assert.same({ ("y"):rep(100) }, lines_of(("y"):rep(100), { max_line = 100 }))
  end)

  it("knows where it is", function()
    local path = file_with "ab\r\ncdef\n\ng"
    local lines = assert(textio.lines(path))
    local offsets = {}
    for _ in lines do
      offsets[#offsets + 1] = lines.reader:offset()
    end
    assert.same({ 4, 9, 10, 11 }, offsets)
    assert.equal(11, lines.reader:size())
    lines:close()
    lines:close()
  end)

  it("fails as a value", function()
    local lines, err = textio.lines "/nonexistent/file"
    assert.is_nil(lines)
    assert.matches("^/nonexistent/file: No such file", err)
    local got = {}
    for line, problem in textio.lines "/tmp" do
      got[#got + 1] = { line, problem }
    end
    assert.equal(1, #got)
    assert.matches("Is a directory", got[1][2].message)
    assert.has_error(function() textio.lines(42) end)
    assert.has_error(function() textio.lines(nil) end)
  end)

  it("reads from an open file, where that stands", function()
    local f <close> = assert(io.open(file_with "one\ntwo\nthree\n"))
    assert.equal("one", f:read "l")
    local got = {}
    for line in textio.lines(f) do
      got[#got + 1] = line
    end
    assert.same({ "two", "three" }, got)
  end)

  it("lets other tasks run while a pipe has nothing to say", function()
    local path = fifo()
    local back = fifo()
    -- writes a line, then waits until the other task has seen it
    local writer = io.popen(("{ echo one; read x < %s; printf 'two\\nthr'; read x < %s; echo ee; } > %s")
      :format(back, back, path), "r")
    local got, ticks = {}, 0
    moonpool.scope(function(scope)
      local reader = scope:spawn(function()
        for line in textio.lines(path) do
          got[#got + 1] = line
        end
      end)
      scope:spawn(function()
        for round = 1, 2 do
          while #got < round do
            ticks = ticks + 1
            moonpool.sleep(0.001)
          end
          local f <close> = assert(io.open(back, "w"))
          f:write "go\n"
        end
      end)
      reader:await()
    end)
    writer:close()
    assert.same({ "one", "two", "three" }, got)
    assert.is_true(ticks > 0)
  end)

  it("works outside tasks too", function()
    local path = fifo()
    local writer = io.popen(("{ echo one; echo two; } > %s"):format(path), "r")
    local got = {}
    for line in textio.lines(path) do
      got[#got + 1] = line
    end
    writer:close()
    assert.same({ "one", "two" }, got)
  end)

  it("stops waiting when its task is cancelled, and can be read again", function()
    local path = fifo()
    local lines = assert(textio.lines(path))
    local timed_out
    moonpool.scope(function(scope)
      local task = scope:spawn(function()
        return lines()
      end)
      scope:spawn(function()
        moonpool.sleep(0.01)
        task:cancel()
      end)
      timed_out = not pcall(task.await, task)
    end)
    assert.is_true(timed_out)
    local writer = io.popen(("echo late > %s"):format(path), "r")
    assert.equal("late", (lines()))
    writer:close()
    lines:close()
  end)

  it("wakes its reader when it is closed meanwhile", function()
    local lines = assert(textio.lines(fifo()))
    local result = "never"
    moonpool.scope(function(scope)
      scope:spawn(function()
        result = lines()
      end)
      scope:spawn(function()
        moonpool.sleep(0.005)
        lines:close()
      end)
    end)
    assert.is_nil(result)
  end)

  it("refuses two readers at once", function()
    local lines = assert(textio.lines(fifo()))
    local ok, err
    moonpool.scope(function(scope)
      local first = scope:spawn(function() return lines() end)
      scope:spawn(function()
        moonpool.sleep(0.005)
        ok, err = pcall(lines)
        first:cancel()
      end)
    end)
    assert.is_false(ok)
    assert.matches("another task is reading", tostring(err))
  end)
end)

describe("jsonl.reader", function()
  it("gives values, and errors in the place of bad lines", function()
    local path = file_with '{"a":1}\n\nnot json\n[2]\n"three"\nnull\nfalse\n{"a":'
    local got = {}
    for value, err, line in jsonl.reader(path) do
      got[#got + 1] = { value = value, err = err and err.message, line = line }
    end
    assert.same({ a = 1 }, got[1].value)
    assert.equal(3, got[2].line)
    assert.truthy(got[2].err:find(path .. ", line 3, column 1 (byte 1): expected a value", 1, true))
    assert.same({ 2 }, got[3].value)
    assert.equal("three", got[4].value)
    assert.equal(moonpool.json.null, got[5].value)
    assert.is_false(got[6].value)
    assert.is_nil(got[6].err)
    assert.equal(8, got[7].line)
    assert.truthy(got[7].err)
    assert.equal(7, #got)
  end)

  it("counts blank lines, and shows them when asked", function()
    local path = file_with "1\n   \n2\n"
    local count = 0
    for _, err, line in jsonl.reader(path, { blank = "error" }) do
      count = count + 1
      assert.equal(line == 2, err ~= nil)
    end
    assert.equal(3, count)
  end)

  it("closes with its loop", function()
    local path = file_with "1\n2\n"
    local reader = assert(jsonl.reader(path))
    local function first()
      for value in reader, nil, nil, reader do -- luacheck: ignore
        return value
      end
    end
    assert.equal(1, first())
    assert.has_error(function() reader() end)
  end)
end)

describe("jsonl.writer", function()
  it("writes what the reader reads", function()
    local path = file_with "old"
    local values = { { a = 1 }, { "x", 2.5 }, "text\n", true, moonpool.json.null }
    do
      local out <close> = assert(jsonl.writer(path))
      for _, value in ipairs(values) do
        assert.equal(out, out:write(value))
      end
    end
    local got = {}
    for value, err in jsonl.reader(path) do
      assert.is_nil(err)
      got[#got + 1] = value
    end
    assert.same(values, got)
  end)

  it("writes nothing of a value that has no JSON form", function()
    local path = file_with ""
    local out = assert(jsonl.writer(path))
    assert(out:write { ok = 1 })
    local ok, err = out:write { { bad = print } }
    assert.is_nil(ok)
    assert.matches("value%[1%].bad: a function has no JSON form", err)
    assert(out:write { ok = 2 })
    assert(out:flush())
    local f <close> = assert(io.open(path))
    assert.equal('{"ok":1}\n{"ok":2}\n', f:read "a")
    assert.is_true(out:close())
    assert.is_true(out:close())
  end)

  it("makes files for their owner only, appends, and does not replace when told", function()
    local path = os.tmpname()
    os.remove(path)
    finally(function() os.remove(path) end)
    assert(assert(jsonl.writer(path)):write(1)):close()
    assert.equal(tonumber("600", 8), core.stat(path).mode)
    assert(assert(jsonl.writer(path, { append = true })):write(2)):close()
    local f <close> = assert(io.open(path))
    assert.equal("1\n2\n", f:read "a")
    local out, err = jsonl.writer(path, { exclusive = true })
    assert.is_nil(out)
    assert.matches("File exists", err)
    assert.is_nil((jsonl.writer "/nonexistent/x.jsonl"))
  end)

  it("waits for a slow pipe while other tasks run", function()
    local path = fifo()
    local go = fifo()
    -- the reader does not begin before it is told to
    local reader = io.popen(("exec 3< %s; read x < %s; cat <&3 | wc -l"):format(path, go), "r")
    local written = 0
    moonpool.scope(function(scope)
      local out <close> = assert(jsonl.writer(path))
      local writer = scope:spawn(function()
        for i = 1, 20000 do
          assert(out:write { number = i, text = ("t"):rep(50) })
          written = i
        end
        assert(out:close())
      end)
      scope:spawn(function()
        moonpool.sleep(0.01)
        assert.is_true(written > 0 and written < 20000)
        local f <close> = assert(io.open(go, "w"))
        f:write "go\n"
      end)
      writer:await()
    end)
    assert.equal("20000", reader:read "a":match "%d+")
    reader:close()
  end)
end)
