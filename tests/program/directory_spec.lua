-- `moonpool status`, `check` and `convert` over what `moonpool embed` made.

local core = require "moonpool.core"
local json = require "moonpool.json"
local matrix = require "moonpool.matrix"
local program = require "program_rig"

local mock, url

setup(function()
  program.set_up()
  mock = program.start "mock --port 0 --dim 8"
  url = mock:url()
  local lines = {}
  for i = 1, 50 do
    lines[i] = i == 7 and "" or ('text, "%d"'):format(i)
  end
  program.write("in.txt", table.concat(lines, "\n") .. "\n")
end)
teardown(function()
  mock:signal "KILL"
  mock:wait()
  program.tear_down()
end)

local function path(name)
  return program.dir .. "/" .. name
end

local function embed(extra)
  os.execute(("rm -rf '%s'"):format(path "out"))
  local _, err, rc = program.run(("embed -q -i '%s' -o '%s' --url %s --model m --shard-rows 20 %s"):format(
    path "in.txt", path "out", url, extra or ""))
  assert.equal(3, rc, err)
end

local function damage(name, at)
  local f <close> = assert(io.open(path(name), "r+b"))
  f:seek("set", at)
  f:write "\1"
end

before_each(function() embed() end)

describe("moonpool status", function()
  it("tells what there is, and by its exit code whether that is all", function()
    local out, err, rc = program.run("status " .. path "out")
    assert.equal(3, rc, err)
    assert.matches("out: complete\n  50 rows, 1 failed, 8 dimensions %(float32%), 3 parts\n  model m\n", out)
    out, err, rc = program.run("status --json " .. path "out")
    assert.equal(3, rc, err)
    local s = json.decode(out)
    assert.same({ 50, 1, 8, 3 }, { s.rows, s.failed, s.dimensions, s.parts })
    assert.same({ true, false }, { s.complete, s.running })
    out, err, rc = program.run("status " .. path "nowhere")
    assert.same({ "", 1 }, { out, rc })
    assert.matches("nowhere/index.json: No such file", err)
  end)
end)

describe("moonpool check", function()
  it("finds nothing in what a job wrote", function()
    local out, err, rc = program.run("check " .. path "out")
    assert.equal(0, rc, err)
    assert.matches("out: 50 rows, 1 failed, 8 dimensions, norms 1 to 1: all is well", out)
  end)

  it("finds a byte that is not as it was written, and a file that is gone", function()
    damage("out/part-00001.npy", 300)
    damage("out/part-00002.jsonl", 20)
    os.remove(path "out/part-00000.npy")
    local out, _, rc = program.run("check --json " .. path "out")
    assert.equal(1, rc)
    local problems = json.decode(out).problems
    assert.matches("part%-00000.npy: No such file", problems[1])
    assert.equal("part-00001.npy is not as it was written", problems[2])
    assert.equal("part-00002.jsonl is not as it was written", problems[3])
    assert.equal(3, #problems)
  end)
end)

describe("moonpool convert", function()
  local function convert(name, extra)
    local _, err, rc = program.run(("convert '%s' '%s' %s"):format(path "out", path(name), extra or ""))
    assert.equal(0, rc, err)
    return program.read(name)
  end

  local function truth()
    local rows = {}
    for i = 0, 2 do
      for _, row in ipairs(matrix.load_npy(path(("out/part-%05d.npy"):format(i)))) do
        rows[#rows + 1] = row
      end
    end
    return rows
  end

  it("writes each form by its name", function()
    local rows = truth()
    convert "all.npy"
    local m = matrix.load_npy(path "all.npy")
    assert.equal(50, #m)
    for i, row in ipairs(rows) do
      assert.equal(row:bytes(), m[i]:bytes())
    end
    local list = program.lines(convert "all.jsonl")
    assert.equal(50, #list)
    assert.same({ 2, 'text, "3"' }, { list[3].row, list[3].text })
    assert.same(rows[3]:totable(), list[3].vector)
    assert.is_nil(list[7].vector)
    assert.equal("the line is blank", list[7].error.message)
    local csv = convert "all.csv"
    assert.matches("^row,id,text,error,v0,v1,v2,v3,v4,v5,v6,v7\r\n0,,\"text, \"\"1\"\"\",,%-?%d", csv)
    assert.matches("\r\n6,,,the line is blank,,,,,,,,\r\n", csv)
    local fvecs = convert "all.fvecs"
    assert.equal(50 * 36, #fvecs)
    assert.equal(string.pack("<i4", 8) .. rows[2]:bytes(), fvecs:sub(37, 72))
    assert.equal(string.pack("<i4i4", 50, 8) .. rows[1]:bytes(), convert("all.fbin"):sub(1, 40))
  end)

  it("halves and quarters the numbers", function()
    local rows = truth()
    convert("half.npy", "--f16")
    assert.near(rows[1][1], matrix.load_npy(path "half.npy")[1][1], 1e-3)
    local bytes = convert("byte.npy", "--int8")
    assert.matches("|i1", bytes)
    local scales = json.decode(program.read "byte.npy.json").scales
    for k = 1, 8 do
      assert.near(rows[2][k], string.unpack("<b", bytes, 128 + 8 + k) * scales[k], scales[k])
    end
  end)

  it("writes over nothing and makes nothing it cannot", function()
    convert("one.npy")
    local _, err, rc = program.run(("convert '%s' '%s'"):format(path "out", path "one.npy"))
    assert.equal(1, rc)
    assert.matches("is there already", err)
    convert("one.npy", "--force")
    _, err, rc = program.run(("convert '%s' x.parquet"):format(path "out"))
    assert.equal(2, rc)
    assert.matches("ends in none of .npy", err)
    assert.is_nil(core.stat(path "one.npy.tmp"))
  end)
end)
