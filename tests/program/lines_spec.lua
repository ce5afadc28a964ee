-- `moonpool classify`, `rerank` and `post` into directories that survive.

local json = require "moonpool".json
local program = require "program_rig"

local mock, url

setup(function()
  program.set_up()
  mock = program.start "mock --port 0 --latency 0.01"
  url = mock:url()
end)
teardown(function()
  mock:signal "KILL"
  mock:wait()
  program.tear_down()
end)
before_each(function() os.execute(("rm -rf '%s/out'"):format(program.dir)) end)

local inputs = {
  ["classify --provider tei"] = function(i) return { text = "text " .. i, id = i } end,
  ["rerank --provider tei"] = function(i)
    return { query = "q " .. i, texts = { "a", "text " .. i }, id = i }
  end,
  ["post --path /v1/embeddings"] = function(i)
    return { custom_id = "c" .. i, model = "m", input = { "text " .. i }, dimensions = 2 }
  end,
}

local function write(make, from, to)
  local lines = {}
  for i = from, to do
    lines[#lines + 1] = json.encode(make(i))
  end
  lines[3] = lines[3] and "not json"
  program.write("in.jsonl", table.concat(lines, "\n") .. "\n")
end

local function run(command, extra)
  return program.run(("%s --url %s -i '%s/in.jsonl' -o '%s/out' --json %s"):format(command, url, program.dir,
    program.dir, extra or ""))
end

local function result()
  local index = json.decode(program.read "out/index.json")
  local list = {}
  for _, part in ipairs(index.parts) do
    assert.is_nil(part.npy)
    for line in program.read("out/" .. part.jsonl):gmatch "[^\n]+" do
      list[#list + 1] = json.decode(line)
    end
  end
  return list, index
end

local function answered(line)
  return line.labels or line.results or line.data
end

describe("a job of lines", function()
  for command, make in pairs(inputs) do
    it(("goes on, grows and is nothing when it is done: %s"):format(command), function()
      write(make, 1, 60)
      local _, err, rc = run(command)
      assert.equal(3, rc, err)
      local list, index = result()
      assert.is_true(index.complete)
      assert.equal(60, #list)
      for i, line in ipairs(list) do
        assert.equal(i - 1, line.row)
        assert.equal(i ~= 3, answered(line) ~= nil, i)
      end
      assert.equal("decode", list[3].error.kind)
      local out
      out, err, rc = run(command)
      assert.equal(3, rc, err)
      assert.same({ 60, 0 }, { json.decode(out).rows, json.decode(out).requests })
      write(make, 0, 70)
      out, err = run(command)
      assert.matches("the input changed: %+", err)
      assert.equal(12, json.decode(out).asked)
      local more = result()
      assert.equal(71, #more)
      for i, line in ipairs(more) do
        assert.equal(i - 1, line.row)
      end
      out, err, rc = run(command, command:find "post" and "--method PUT" or "--truncate")
      assert.same({ "", 1 }, { out, rc })
      assert.matches("the rest of the options was", err)
    end)
  end
end)
