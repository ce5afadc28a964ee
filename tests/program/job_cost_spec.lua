-- What a job costs: dry runs, budgets, caches; pieces of texts; a model that is not what it was.

local core = require "moonpool.core"
local json = require "moonpool.json"
local moonpool = require "moonpool"
local program = require "program_rig"
local rig = require "client_rig"

local mock, url

setup(function()
  program.set_up()
  mock = program.start "mock --port 0 --dim 8"
  url = mock:url()
end)
teardown(function()
  mock:signal "KILL"
  mock:wait()
  program.tear_down()
end)
after_each(function()
  rig.close_all()
  os.execute(("rm -rf '%s/out'"):format(program.dir))
end)

local function path(name)
  return program.dir .. "/" .. name
end

local function write_rows(n)
  local lines = {}
  for i = 1, n do
    lines[i] = ("text number %d"):format(i)
  end
  program.write("in.txt", table.concat(lines, "\n") .. "\n")
end

local function embed(extra, where)
  return program.run(("embed --json -i '%s' -o '%s' --url %s --model m --batch-size 10 %s"):format(
    path "in.txt", path "out", where or url, extra or ""))
end

local function lines_of(name)
  return program.lines(program.read(name))
end

describe("a job's cost", function()
  it("is told before anything is sent", function()
    write_rows(95)
    local out, err, rc = embed "--dry-run --price 10 --rpm 60"
    assert.equal(0, rc, err)
    local e = json.decode(out)
    assert.same({ 95, 95, 10 }, { e.rows, e.asked, e.requests })
    assert.is_true(e.tokens >= 0.45 * 95 * 13 and e.tokens < 95 * 16)
    assert.near(e.tokens * 10 / 1e6, e.cost, 1e-9)
    assert.equal(10, e.seconds)
    assert.is_nil(core.stat(path "out"))
    embed()
    write_rows(105)
    out = embed "--dry-run"
    assert.same({ 105, 10, 95 }, { json.decode(out).rows, json.decode(out).asked, json.decode(out).kept })
  end)

  it("stays below the budget, and goes on with another one", function()
    write_rows(400)
    local _, err, rc = embed "--price 1000 --budget 1 --max-concurrent 2"
    assert.equal(1, rc, err)
    assert.matches("the budget of 1 USD is spent; .*/out holds %d+ rows; the same command goes on", err)
    local index = json.decode(program.read "out/index.json")
    assert.is_true(index.run.cost <= 1, index.run.cost)
    assert.is_true(index.run.cost > 0.5, index.run.cost)
    local out
    out, err, rc = embed "--price 1000 --budget 100"
    assert.equal(0, rc, err)
    assert.equal(400 - index.rows, json.decode(out).asked)
    assert.is_true(json.decode(out).cost > index.run.cost)
    assert.equal(2, (select(3, embed "--budget 3")))
  end)

  it("is paid once where there is a cache", function()
    write_rows(50)
    local cache = path "cache.db"
    local out, err, rc = embed(("--cache '%s'"):format(cache))
    assert.equal(0, rc, err)
    assert.equal(0, json.decode(out).cached)
    local first = program.read "out/part-00000.npy"
    os.execute(("rm -rf '%s'"):format(path "out"))
    out = embed(("--cache '%s'"):format(cache))
    assert.same({ 50, 0, 0 }, { json.decode(out).cached, json.decode(out).asked, json.decode(out).requests })
    assert.equal(first, program.read "out/part-00000.npy")
    os.execute(("rm -rf '%s'"):format(path "out"))
    out = embed(("--cache '%s' --dimensions 4"):format(cache))
    assert.same({ 0, 50 }, { json.decode(out).cached, json.decode(out).asked })
    out = program.run(("cache --json '%s'"):format(cache))
    local stats = json.decode(out)
    assert.same({ 100, 2 }, { stats.vectors, #stats.spaces })
    out, err, rc = program.run(("cache --prune 0 '%s'"):format(cache))
    assert.equal(0, rc, err)
    assert.matches("cache.db: 0 vectors", out)
    out, err, rc = program.run("cache " .. path "nowhere.db")
    assert.same({ "", 1 }, { out, rc })
    assert.matches("No such file", err)
    out, err, rc = embed(("--force --cache '%s'"):format(path "in.txt"))
    assert.same({ "", 1 }, { out, rc })
    assert.matches("in.txt: .*not a database", err)
  end)
end)

describe("pieces", function()
  it("are rows that say whose they are", function()
    program.write("in.txt", "one two three four five\n\nsix\n")
    local _, err, rc = embed "--chunk words=2,overlap=1"
    assert.equal(3, rc, err)
    local seen = {}
    for i, line in ipairs(lines_of "out/part-00000.jsonl") do
      assert.equal(i - 1, line.row)
      seen[i] = ("%d.%d %s"):format(line.parent, line.piece, line.text or "-")
    end
    assert.same({ "0.0 one two", "0.1 two three", "0.2 three four", "0.3 four five", "1.0 -", "2.0 six" },
      seen)
    _, err, rc = embed "--chunk words=3"
    assert.equal(1, rc)
    assert.matches("the chunking was 'words=2,overlap=1' there and is 'words=3' now", err)
    assert.equal(2, (select(3, embed "--chunk words=2,overlap=2")))
    assert.equal(2, (select(3, embed "--chunk lines=2")))
  end)
end)

-- A service whose vectors turn after so many requests.
local function drifting(after)
  return rig.embedder(function(seen, n)
    local data = {}
    for i, text in ipairs(seen.body.input) do
      local number = tonumber(text:match "%d+") or 0
      data[i] = { index = i - 1, embedding = { n <= after and 900 or -900, number, #text } }
    end
    return { json = { data = data, model = "m", usage = { prompt_tokens = 1, total_tokens = 1 } } }
  end)
end

describe("a model that is not what it was", function()
  it("stops the job, and no part is of both", function()
    write_rows(200)
    local server = drifting(14)
    local _, err, rc = embed("--on-drift stop --shard-rows 50 --max-concurrent 1 --encoding-format float",
      server.url)
    assert.equal(1, rc, err)
    assert.matches("the model is not what it was", err)
    local index = json.decode(program.read "out/index.json")
    assert.is_false(index.complete)
    assert.is_true(index.rows < 200 and index.rows % 50 == 0, index.rows)
  end)
end)

describe("a job's report", function()
  it("is a page that needs nothing else; a server that answers one vector to all is found", function()
    write_rows(200)
    local server = rig.embedder(function(seen, n)
      if n == 3 then
        return { status = 400, json = { error = { message = "not <this>" } } }
      end
      local data = {}
      for i in ipairs(seen.body.input) do
        data[i] = { index = i - 1, embedding = { 1, 2, 3 } }
      end
      return { json = { data = data, model = "m", usage = { prompt_tokens = 7, total_tokens = 7 } } }
    end)
    local _, err, rc = embed(("--encoding-format float --max-concurrent 1 --price 1 --report '%s'"):format(
      path "r.html"), server.url)
    assert.is_true(rc == 0 or rc == 3, err)
    assert.matches("not sound: %d+ of %d+ texts got the vector of another text", err)
    local page = program.read "r.html"
    for _, words in ipairs { "<!doctype html>", "Throughput", "Attempts a request", "Time of a request",
      "USD",
      "not sound", "prefers%-color%-scheme:dark", "answers of 429", "<polyline" } do
      assert.matches(words, page)
    end
    assert.matches("the vectors are not sound: [6-9]%d of %d%d texts", err) -- as soon as it shows
    assert.is_nil(page:find "<script" or page:find "src=" or page:find "href=")
    local out
    out, err, rc = program.run("check " .. path "out")
    assert.equal(1, rc, err)
    assert.matches("texts got the vector of another text", out)
  end)
end)

describe("a provider's batch API", function()
  it("makes the same directory, and what expires is asked in the usual way", function()
    local other = program.start "mock --port 0 --dim 8 --batch-expired 0.3"
    local _ <close> = other
    local where = other:url()
    write_rows(100)
    local out, err, rc = embed("--via batch --price 1", where)
    assert.equal(0, rc, err)
    assert.equal(100, json.decode(out).asked)
    assert.is_true(json.decode(out).tokens > 0)
    local npy, jsonl = program.read "out/part-00000.npy", program.read "out/part-00000.jsonl"
    assert.is_nil(core.stat(path "out/.job/batches.json"))
    os.execute(("rm -rf '%s'"):format(path "out"))
    embed("", where)
    assert.equal(npy, program.read "out/part-00000.npy")
    assert.equal(jsonl, program.read "out/part-00000.jsonl")
  end)

  it("goes on waiting for the batch that a killed job handed in", function()
    local other = program.start "mock --port 0 --dim 8"
    local _ <close> = other
    local where = other:url()
    write_rows(100)
    local one = program.start(("embed -q -i '%s' -o '%s' --url %s --model m --via batch"):format(
      path "in.txt", path "out", where))
    repeat
      moonpool.sleep(0.01)
    until core.stat(path "out/.job/batches.json")
    one:signal "KILL"
    one:wait()
    local out, err, rc = embed("--via batch", where)
    assert.equal(0, rc, err)
    assert.equal(100, json.decode(out).rows)
    local client <close> = moonpool.client { base_url = where }
    local stats = assert(client:request { method = "GET", path = "/stats" }).data
    assert.equal(1, stats.requests["POST /v1/batches"])
    assert.equal(100, stats.inputs)
  end)
end)
