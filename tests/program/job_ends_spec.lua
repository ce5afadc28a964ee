-- How a job ends before its end: signals, a full disk, an endpoint that goes and comes back, an input that
-- changes. Whatever it was, the same command goes on.

local core = require "moonpool.core"
local json = require "moonpool.json"
local moonpool = require "moonpool"
local program = require "program_rig"

local started = {}

local function mock(flags)
  local server = program.start("mock --port 0 --dim 16 " .. (flags or ""))
  started[#started + 1] = server
  return server:url(), server
end

setup(program.set_up)
teardown(program.tear_down)
after_each(function()
  for _, server in ipairs(started) do
    server:__close()
  end
  started = {}
  os.execute(("rm -rf '%s/out'"):format(program.dir))
end)

local function path(name)
  return program.dir .. "/" .. name
end

local function write_rows(n)
  local lines = {}
  for i = 1, n do
    lines[i] = "row number " .. i
  end
  return program.write("in.txt", table.concat(lines, "\n") .. "\n")
end

local function command(url, extra)
  return ("embed --json -i '%s' -o '%s' --url %s --batch-size 10 %s"):format(path "in.txt", path "out", url,
    extra or "")
end

local function index()
  return json.decode(program.read "out/index.json")
end

-- Until the job has asked for something.
local function wait_for(url, requests)
  local client <close> = moonpool.client { base_url = url }
  repeat
    moonpool.sleep(0.01)
    local res = assert(client:request { method = "GET", path = "/stats" })
  until res.data.inference_requests >= requests
end

describe("a job", function()
  it("lets come back what is under way when a signal comes, and goes on", function()
    for signal, code in pairs { INT = 130, TERM = 143, HUP = 129 } do
      os.execute(("rm -rf '%s'"):format(path "out"))
      local url = mock "--latency 0.2"
      write_rows(200)
      local one = program.start(command(url, "--max-concurrent 4"))
      wait_for(url, 5)
      one:signal(signal)
      local _, err, rc = one:wait()
      assert.equal(code, rc, err)
      assert.matches("stopped; .* the same command goes on", err)
      local rows = index().rows
      assert.is_false(index().complete)
      assert.is_true(rows >= 40 and rows < 200 and rows % 10 == 0, rows)
      local out
      out, err, rc = program.run(command(url))
      assert.equal(0, rc, err)
      assert.equal(200 - rows, json.decode(out).asked)
    end
  end)

  it("ends at once at the second signal, and loses nothing that was written", function()
    local url = mock "--latency 60"
    write_rows(20)
    local one = program.start(command(url))
    wait_for(url, 1)
    one:signal "INT"
    one:signal "INT"
    local _, err, rc = one:wait()
    assert.equal(130, rc, err)
  end)

  it("waits for an endpoint that went away", function()
    local url, server = mock "--latency 0.05"
    write_rows(300)
    local one = program.start(command(url, "--max-concurrent 2 --retries 1"))
    wait_for(url, 6)
    server:signal "KILL"
    server:wait()
    moonpool.sleep(1)
    local again = program.start(("mock --dim 16 --port %s"):format(url:match "%d+$"))
    started = { again }
    again:url()
    local out, err, rc = one:wait()
    assert.equal(0, rc, err)
    assert.matches("the endpoint is gone .*; waiting for it", err)
    assert.same({ 300, 0 }, { json.decode(out).rows, json.decode(out).failed })
  end)

  it("keeps what there is when files cannot grow", function()
    local url = mock()
    write_rows(3000)
    -- in blocks of 512 bytes; a part of 1000 rows has 64 KB of vectors
    local f = assert(io.popen(("ulimit -f 100; '%s' %s --shard-rows 2500 2>&1; echo $?"):format(
      program.binary, command(url))))
    local text = f:read "a"
    f:close()
    assert.matches("File too large.*\n1\n$", text)
    assert.is_false(index().complete)
    local rows = index().rows
    local out, err, rc = program.run(command(url))
    assert.equal(0, rc, err)
    assert.is_true(json.decode(out).asked <= 3000 - rows)
    assert.equal(3000, index().rows)
  end)

  it("keeps what there is when the disk is full", function()
    core.mkdir(path "full")
    if not os.execute(("mount -t tmpfs -o size=400k none '%s' 2>/dev/null"):format(path "full")) then
      return -- only root can make a small disk
    end
    local url = mock()
    write_rows(20000)
    local line = command(url, "--shard-rows 1000"):gsub("/out'", "/full/out'")
    local _, err, rc = program.run(line)
    assert.equal(1, rc, err)
    assert.matches("No space left on device", err)
    local before = json.decode(program.read "full/out/index.json")
    assert.is_false(before.complete)
    os.execute(("mount -o remount,size=20m '%s'"):format(path "full"))
    local out
    out, err, rc = program.run(line)
    os.execute(("cp -r '%s' '%s'; umount '%s'"):format(path "full/out", path "out", path "full"))
    assert.equal(0, rc, err)
    assert.is_true(json.decode(out).asked < 20000 and json.decode(out).asked <= 20000 - before.rows)
    assert.equal(20000, index().rows)
  end)

  it("says that the input changed while it was read, and takes it up", function()
    local url = mock "--latency 0.1"
    write_rows(100)
    local one = program.start(command(url, "--max-concurrent 1"))
    wait_for(url, 2)
    local f <close> = assert(io.open(path "in.txt", "a"))
    f:write "one more\n"
    f:close()
    local _, err, rc = one:wait()
    assert.equal(1, rc, err)
    assert.matches("the input changed while it was read", err)
    local out
    out, err, rc = program.run(command(url))
    assert.equal(0, rc, err)
    assert.equal(101, index().rows)
    assert.is_true(json.decode(out).asked <= 1)
  end)

  it("makes an error of a line that is too long, and goes on behind it", function()
    local url = mock()
    local f <close> = assert(io.open(path "in.txt", "w"))
    f:write "first\n"
    for _ = 1, 100 do
      f:write(("x"):rep(1 << 20))
    end
    f:write "\nlast\n"
    f:close()
    local out, err, rc = program.run(command(url))
    assert.equal(3, rc, err)
    assert.same({ 3, 1 }, { json.decode(out).rows, json.decode(out).failed })
    assert.matches("the first is row 1: too_large", err)
  end)

  it("leaves a directory that another process works in alone", function()
    local url = mock "--latency 60"
    write_rows(20)
    local one = program.start(command(url))
    wait_for(url, 1)
    local _, err, rc = program.run(command(url))
    assert.equal(1, rc)
    assert.matches("is in use by process " .. one.pid, err)
    one:signal "KILL"
    one:wait()
  end)
end)
