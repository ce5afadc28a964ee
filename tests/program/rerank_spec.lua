-- `moonpool rerank`: a query with its texts a line, or --query with a text a line.

local moonpool = require "moonpool"
local program = require "program_rig"
local rig = require "client_rig"

-- The score of a text is the number in it, as a share of a thousand.
local function ranker(hook)
  return rig.serve(function(seen, n)
    if seen.path == "/info" then return { json = { max_client_batch_size = 32 } } end
    local reply = hook and hook(seen, n)
    if reply then return reply end
    local list = {}
    for i, text in ipairs(seen.body.texts) do
      list[i] = { index = i - 1, score = tonumber(text:match "%d+") / 1000 }
    end
    table.sort(list, function(a, b) return a.score > b.score end)
    return { json = list }
  end)
end

local function rerank(server, args, input)
  return program.run(("rerank --url %s --provider tei %s"):format(server.url, args or ""), input)
end

setup(program.set_up)
teardown(program.tear_down)
after_each(rig.close_all)

describe("moonpool rerank", function()
  it("orders the texts of each line, with indexes from 0", function()
    local server = ranker(function(seen) moonpool.sleep(0.001 * (#seen.body.texts % 5)) end)
    local input = {}
    for i = 1, 100 do
      local texts = {}
      for k = 1, 1 + i % 7 do texts[k] = "text " .. k * 37 % 11 end
      local id = i % 2 == 0 and "id" .. i or nil
      input[i] = moonpool.json.encode { query = "q" .. i, texts = texts, id = id }
    end
    local out, err, rc = rerank(server, "", table.concat(input, "\n"))
    assert.equal(0, rc, err)
    local lines = program.lines(out)
    assert.equal(100, #lines)
    for i, line in ipairs(lines) do
      assert.equal(i - 1, line.row)
      assert.equal(i % 2 == 0 and "id" .. i or nil, line.id)
      assert.equal(1 + i % 7, #line.results)
      local seen, last = {}, math.huge
      for _, r in ipairs(line.results) do
        assert.equal(((r.index + 1) * 37 % 11) / 1000, r.score)
        assert.is_true(r.score <= last and not seen[r.index])
        assert.is_nil(r.text)
        seen[r.index], last = true, r.score
      end
      assert.is_true(seen[0])
    end
    assert.matches("ranked 100 rows", err)
  end)

  it("splits long lists and merges them", function()
    local texts = {}
    for i = 1, 200 do texts[i] = "text " .. (i * 71 % 997) end
    local out, _, rc = rerank(ranker(), "--top-n 3 --return-text",
      moonpool.json.encode { query = "q", documents = texts } .. "\n")
    assert.equal(0, rc)
    table.sort(texts, function(a, b) return tonumber(a:match "%d+") > tonumber(b:match "%d+") end)
    local results = program.lines(out)[1].results
    assert.equal(3, #results)
    for i = 1, 3 do assert.equal(texts[i], results[i].text) end
  end)

  it("keeps the place of bad lines; a ranking with a hole is an error", function()
    local server = ranker(function(seen)
      if seen.body.texts[1] == "bad 5" then return { status = 422, json = { error = "no" } } end
    end)
    local out, err, rc = rerank(server, "", [[
{"query":"q","texts":["a 1"]}
{"query":5,"texts":["a 1"]}
{"query":"q","texts":[]}
{"query":"q","texts":["a 1",{}]}

"a"
{"query":"q","texts":["bad 5"],"id":7}
{"query":"q","texts":["a 2"]}
]])
    assert.equal(3, rc, err)
    local lines = program.lines(out)
    assert.equal(8, #lines)
    for i, message in pairs { [2] = "no field 'query'", [3] = "no field 'texts'",
      [4] = "texts%[1%] is a table", [5] = "blank", [6] = "not a JSON object", [7] = "422" } do
      assert.matches(message, lines[i].error.message)
      assert.is_nil(lines[i].results)
    end
    assert.same({ 422, 7 }, { lines[7].error.status, lines[7].id })
    assert.equal(0.002, lines[8].results[1].score)
    assert.matches("6 rows of 8 failed", err)
  end)

  it("ranks all lines by one query, best first, failed ones last", function()
    local server = ranker(function(seen)
      for _, text in ipairs(seen.body.texts) do
        if text == "poison 999" then return { status = 400, json = { error = "no" } } end
      end
    end)
    local input, want = {}, {}
    for i = 0, 499 do
      input[i + 1] = "line " .. i * 7 % 503
      want[i + 1] = { index = i, score = i * 7 % 503 / 1000, text = input[i + 1] }
    end
    input[100], input[300] = "", "poison 999"
    want[100], want[300] = { score = -1 }, { score = -1 }
    table.sort(want, function(a, b) return a.score > b.score end)
    local out, err, rc = rerank(server, "--query q --return-text --batch-size 20",
      table.concat(input, "\n") .. "\n")
    assert.equal(3, rc, err)
    local lines = program.lines(out)
    assert.equal(500, #lines)
    for i = 1, 498 do assert.same(want[i], lines[i]) end
    assert.same({ 99, "invalid" }, { lines[499].index, lines[499].error.kind })
    assert.same({ 299, "http" }, { lines[500].index, lines[500].error.kind })
    out, err, rc = rerank(server, "--query q --top-n 2", table.concat(input, "\n", 101, 150) .. "\n")
    assert.equal(0, rc, err)
    assert.equal(2, #program.lines(out))
    assert.is_nil(program.lines(out)[1].text)
  end)

  it("takes the texts of records", function()
    local out, _, rc = rerank(ranker(), "--query q --field body --return-text",
      '{"body":"a 1"}\n{"body":"b 2"}\n{"text":"c 3"}\n')
    assert.equal(3, rc)
    local lines = program.lines(out)
    assert.same({ "b 2", "a 1" }, { lines[1].text, lines[2].text })
    assert.same({ 2, "invalid" }, { lines[3].index, lines[3].error.kind })
  end)

  it("refuses wrong use", function()
    local _, err, rc = program.run "rerank --field body"
    assert.equal(2, rc)
    assert.matches("%-%-field goes with %-%-query", err)
    _, _, rc = program.run "rerank --top-n none"
    assert.equal(2, rc)
  end)

  it("reads the dialects of other services", function()
    local server <close> = program.start "mock --port 0"
    local url = server:url()
    for _, provider in ipairs { "tei", "cohere" } do
      local out, err, rc = program.run(("rerank --provider %s --url %s --model m"):format(provider, url),
        '{"query":"compress files","texts":["a cat","compress files fast"]}\n')
      assert.equal(0, rc, err)
      assert.equal(1, program.lines(out)[1].results[1].index)
    end
  end)
end)
