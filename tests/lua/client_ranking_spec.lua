-- client:rerank and client:classify: split into requests, merged as one list.

local moonpool = require "moonpool"
local json = require "moonpool.json"
local rig = require "client_rig"

-- The score of "text 17" is 17; the reply is sorted as TEI's is.
local function score_of(text) return tonumber(text:match "%d+") end

local function reranker(hook)
  return rig.serve(function(seen, n)
    local reply = hook and hook(seen, n)
    if reply then return reply end
    local list = json.array and json.array {} or {}
    for i, text in ipairs(seen.body.texts) do
      list[i] = { index = i - 1, score = score_of(text) }
      if seen.body.return_text then list[i].text = text end
    end
    table.sort(list, function(a, b) return a.score > b.score end)
    return { json = list }
  end)
end

local function texts(n)
  local list = {}
  for i = 1, n do list[i] = ("text %d"):format(i * 7 % 101) end
  return list
end

local function sorted(list)
  local copy = table.move(list, 1, #list, 1, {})
  table.sort(copy, function(a, b) return score_of(a) > score_of(b) end)
  return copy
end

describe("rerank", function()
  after_each(rig.close_all)

  it("sorts over all batches and points into the caller's list", function()
    local server = reranker()
    local list = texts(100)
    local res = assert(rig.client(server):rerank {
      query = "q", texts = list, batch_size = 8, return_text = true })
    assert.equal(13, #server.log)
    assert.equal(100, #res.results)
    local want = sorted(list)
    for k, item in ipairs(res.results) do
      assert.equal(want[k], item.text)
      assert.equal(list[item.index], item.text)
      assert.equal(score_of(item.text), item.score)
    end
    assert.equal("q", server.log[1].body.query)
  end)

  it("cuts at top_n after the merge, and gives no text unasked", function()
    local list = texts(50)
    local res = assert(rig.client(reranker()):rerank { query = "q", texts = list, batch_size = 8, top_n = 5 })
    assert.equal(5, #res.results)
    local want = sorted(list)
    for k = 1, 5 do
      assert.equal(want[k], list[res.results[k].index])
      assert.is_nil(res.results[k].text)
    end
  end)

  it("breaks ties by the order of the texts", function()
    local res = assert(rig.client(reranker()):rerank {
      query = "q", texts = { "text 1", "text 2", "text 2", "text 1" } })
    local order = {}
    for k, item in ipairs(res.results) do order[k] = item.index end
    assert.same({ 2, 3, 1, 4 }, order)
  end)

  it("passes the seed's options on", function()
    local server = reranker()
    assert(rig.client(server):rerank { query = "q", texts = { "text 1" }, model = "m", raw_scores = true,
      truncate = true, truncation_direction = "Left", return_text = true })
    assert.same({ query = "q", texts = { "text 1" }, model = "m", raw_scores = true, truncate = true,
      truncation_direction = "Left", return_text = true }, server.log[1].body)
  end)

  it("loses only the failed batch", function()
    local server = reranker(function(seen)
      if seen.body.texts[1] == "text 21" then return { status = 401, json = { error = "no" } } end
    end)
    local list = texts(9) -- the second batch of 3 begins with text 28
    list[4] = "text 21"
    local res = assert(rig.client(server):rerank { query = "q", texts = list, batch_size = 3 })
    assert.is_false(res.ok)
    assert.equal(6, #res.results)
    assert.equal(3, #res.errors)
    assert.same({ 4, 5, 6 }, { res.errors[1].index, res.errors[2].index, res.errors[3].index })
    assert.equal(401, res.errors[1].error.status)
  end)

  it("refuses replies that do not fit", function()
    for _, body in ipairs { '[]', '[{"score":1}]', '[{"index":0,"score":1},{"index":0,"score":1}]',
      '[{"index":0,"score":1},{"index":2,"score":1}]', '[{"index":0},{"index":1}]',
      '[{"index":0,"score":null},{"index":1,"score":"x"}]', '{}', '{"error":1}', 'null', '3', '[1,2]',
      '[{"index":0,"score":1},{"index":1,"score":2}', '<html>' } do
      local client = rig.client(rig.serve(function()
        return { body = body, headers = { ["content-type"] = "application/json" } }
      end), { retry = false })
      local res, err = client:rerank { query = "q", texts = { "text 1", "text 2" } }
      assert.is_nil(res, body)
      assert.equal("decode", err.kind, body)
    end
  end)

  it("needs a query and texts", function()
    local client = rig.client(rig.dead_url())
    assert.has_error(function() client:rerank { texts = { "a" } } end)
    assert.has_error(function() client:rerank { query = "q" } end)
    assert.has_error(function() client:rerank { query = "q", texts = {} } end)
    assert.has_error(function() client:rerank { query = "q", texts = { "a" }, top_n = 0 } end)
    assert.has_error(function() client:rerank { query = "q", texts = { "a" }, topn = 1 } end)
    assert.has_error(function() client:rerank { query = "q", texts = { 5 } } end)
  end)

  it("reports usage where the server tells it, in Cohere's form", function()
    local server = rig.serve(function(seen)
      local list = {}
      for i in ipairs(seen.body.documents) do list[i] = { index = i - 1, relevance_score = i } end
      return { json = { results = list } }
    end)
    local client = rig.client(server, { provider = "cohere" })
    local res = assert(client:rerank { query = "q", texts = { "a", "b", "c" }, top_n = 3, model = "m" })
    assert.same({ 3, 2, 1 }, { res.results[1].index, res.results[2].index, res.results[3].index })
    assert.equal(3, server.log[1].body.top_n)
  end)
end)

local function classifier(hook)
  return rig.serve(function(seen, n)
    local reply = hook and hook(seen, n)
    if reply then return reply end
    local list = {}
    for i, row in ipairs(seen.body.inputs) do
      local text = type(row) == "table" and table.concat(row, "+") or row
      list[i] = { { label = text, score = 0.75 }, { label = "other", score = 0.25 } }
    end
    return { json = list }
  end)
end

describe("classify", function()
  after_each(rig.close_all)

  it("gives a list of labels for each input, in order, over batches", function()
    local server = classifier()
    local inputs = texts(20)
    local res = assert(rig.client(server):classify { inputs = inputs, batch_size = 3 })
    assert.equal(7, #server.log)
    assert.equal(20, #res.results)
    for i, text in ipairs(inputs) do
      assert.same({ { label = text, score = 0.75 }, { label = "other", score = 0.25 } }, res.results[i])
    end
    assert.same({ { inputs[1] }, { inputs[2] }, { inputs[3] } }, (function()
      for _, seen in ipairs(server.log) do
        if seen.body.inputs[1][1] == inputs[1] then return seen.body.inputs end
      end
    end)())
  end)

  it("sends pairs beside single texts", function()
    local server = classifier()
    local res = assert(rig.client(server):classify { inputs = { { "premise", "hypothesis" }, "single" } })
    assert.same({ { "premise", "hypothesis" }, { "single" } }, server.log[1].body.inputs)
    assert.equal("premise+hypothesis", res.results[1][1].label)
    assert.equal("single", res.results[2][1].label)
  end)

  it("takes one text", function()
    local client = rig.client(classifier())
    local res = assert(client:classify { inputs = "x", raw_scores = true, truncate = false })
    assert.equal("x", res.results[1][1].label)
  end)

  it("keeps the places of failed rows", function()
    local server = classifier(function(seen)
      if seen.body.inputs[1][1] == "text 14" then return { status = 403, json = {} } end
    end)
    local res = assert(rig.client(server):classify { inputs = texts(5), batch_size = 1 })
    assert.is_false(res.ok)
    assert.is_nil(res.results[2])
    assert.equal("text 21", res.results[3][1].label)
    assert.same({ 2 }, { res.errors[1].index })
  end)

  it("refuses wrong inputs by their place, and wrong replies", function()
    local client = rig.client(rig.dead_url())
    for _, inputs in ipairs { {}, { 5 }, { { "a", "b", "c" } }, { {} }, { { 1 } }, { "a", true } } do
      assert.has_error(function() client:classify { inputs = inputs } end)
    end
    for _, body in ipairs { "[]", "[[]]", "{}", '[[{"label":"a"}],[{"score":1}]]',
      "[1,2]", "null", "[[1],[2]]" } do
      local c = rig.client(rig.serve(function()
        return { body = body, headers = { ["content-type"] = "application/json" } }
      end), { retry = false })
      local res, err = c:classify { inputs = { "a", "b" } }
      assert.is_nil(res, body)
      assert.equal("decode", err.kind, body)
    end
  end)
end)

describe("the four kinds of call on one client", function()
  after_each(rig.close_all)

  it("run at once in many tasks", function()
    local client = rig.client(rig.mock { latency = "uniform:1ms,5ms" })
    local res = moonpool.map(rig.texts(60), { window = 40 }, function(text, i)
      if i % 3 == 0 then return #assert(client:embed { input = { text, "b" } }) end
      if i % 3 == 1 then return #assert(client:rerank { query = text, texts = { "a", text } }).results end
      return #assert(client:classify { inputs = { text, "b" } }).results
    end)
    for i = 1, 60 do assert.equal(2, res[i]) end
  end)
end)
