-- Replies that are not quite right: each vector, score or label that is wrong costs its own row, the
-- others stand, and the message says which row of the caller's it is.

local rig = require "client_rig"

local function raw(text)
  return { body = text, headers = { ["content-type"] = "application/json" } }
end

-- Embeds texts 1..n in batches of `size`; `items(texts, first)` makes the list of items as text.
local function embed(n, size, items, opts)
  local server = rig.serve(function(seen)
    local first = tonumber(seen.body.input[1])
    return raw('{"data":[' .. table.concat(items(seen.body.input, first), ",") .. "]}")
  end)
  local o = { input = rig.texts(n), batch_size = size }
  for k, v in pairs(opts or {}) do o[k] = v end
  local res, err = rig.client(server):embed(o)
  return res, err, server
end

local function item(i, vector, index)
  local position = index == false and "" or (',"index":%s'):format(index or i)
  return ('{"embedding":%s%s}'):format(vector, position)
end

local function vector(text)
  return ("[%s,0.5]"):format(text)
end

-- All items in order, except that `odd[text]` stands in place of a vector.
local function with(odd)
  return function(texts)
    local list = {}
    for k, text in ipairs(texts) do list[k] = item(k - 1, odd[text] or vector(text)) end
    return list
  end
end

local function check_rows(res, n, wrong)
  local failed = {}
  for _, e in ipairs(res.errors) do failed[#failed + 1] = e.index end
  assert.same(wrong, failed)
  local bad = {}
  for _, i in ipairs(wrong) do bad[i] = true end
  for i = 1, n do
    if bad[i] then
      assert.is_true(res[i][1] ~= res[i][1] and res[i][2] ~= res[i][2], "row " .. i .. " is not NaN")
    else
      assert.same({ i, 0.5 }, res[i]:totable())
    end
  end
end

describe("a vector that is wrong", function()
  after_each(rig.close_all)

  it("fails its row alone, in the caller's numbering, and is not asked for again", function()
    local res, err, server = embed(20, 5, with {
      ["2"] = "null", ["7"] = "[]", ["8"] = "[8,null]", ["11"] = "[NaN,1]", ["13"] = "[13,0.5,1]",
      ["16"] = "\"AADAfwAAAAA=\"", ["20"] = "{}",
    })
    assert.is_nil(err)
    assert.is_false(res.ok)
    check_rows(res, 20, { 2, 7, 8, 11, 13, 16, 20 })
    local told = {}
    for k, e in ipairs(res.errors) do
      told[k] = tostring(e.error)
      assert.equal("decode", e.error.kind)
      assert.equal(e.index, e.error.row)
      assert.equal(200, e.error.status)
      assert.equal(server.url, e.error.endpoint)
      assert.is_nil(e.error.message:find "row")
    end
    assert.same({
      "decode: row 2: the vector is null", "decode: row 7: the vector is empty",
      "decode: row 8: element 2 of the vector is null",
      "decode: row 11: element 1 of the vector is NaN or infinite",
      "decode: row 13: the vector has more than the expected 2 dimensions",
      "decode: row 16: NaN or infinity in the vector", "decode: row 20: the vector is not a list",
    }, told)
    assert.equal(4, #server.log)
  end)

  it("that stands first does not give its length to the others", function()
    local res = embed(6, 6, with { ["1"] = "[1,2,3]" })
    check_rows(res, 6, { 1 })
    assert.equal(2, res.matrix:cols())
  end)

  it("that is left out fails its row if the indices say which, after one more try", function()
    local res, _, server = embed(9, 3, function(texts, first)
      local list = with {}(texts)
      if first == 4 then table.remove(list, 2) end
      return list
    end)
    check_rows(res, 9, { 5 })
    assert.equal("decode: row 5: the reply has no vector for it (after 2 attempts)",
      tostring(res.errors[1].error))
    assert.equal(4, #server.log)
  end)

  it("leaves no doubt when every row of a reply is wrong", function()
    local res = embed(4, 2, with { ["3"] = "null", ["4"] = "[]" })
    check_rows(res, 4, { 3, 4 })
    local nothing, err = embed(1, 1, with { ["1"] = "null" })
    assert.is_nil(nothing)
    assert.equal("decode", err.kind)
    assert.matches("the vector is null", err.message)
  end)

  it("reaches embed_each by the item's number", function()
    local server = rig.serve(function(seen)
      return raw('{"data":[' .. table.concat(with { ["8"] = "null" }(seen.body.input), ",") .. "]}")
    end)
    local found = {}
    for batch in rig.client(server):embed_each(rig.texts(12), { batch_size = 3 }) do
      for _, e in ipairs(batch.errors) do
        found[#found + 1] = { batch.first + e.index - 1, tostring(e.error) }
      end
    end
    assert.same({ { 8, "decode: row 8: the vector is null" } }, found)
  end)
end)

describe("an index", function()
  after_each(rig.close_all)

  it("that is missing on some items or all is the items' order", function()
    check_rows(embed(6, 3, function(texts)
      return { item(0, vector(texts[1]), false), item(1, vector(texts[2])),
        item(2, vector(texts[3]), "null") }
    end), 6, {})
    check_rows(embed(6, 3, function(texts)
      local list = {}
      for k, text in ipairs(texts) do list[k] = item(k - 1, vector(text), false) end
      return list
    end), 6, {})
  end)

  it("may be a text or a number with a fraction of nothing", function()
    check_rows(embed(4, 2, function(texts)
      return { item(1, vector(texts[2]), '"1"'), item(0, vector(texts[1]), "0.0") }
    end), 4, {})
  end)

  it("that contradicts another is an error", function()
    local res, err = embed(2, 2, function(texts)
      return { item(1, vector(texts[1])), item(nil, vector(texts[2]), false) }
    end, { retry = false })
    assert.is_nil(res)
    assert.equal("decode", err.kind)
    assert.matches("duplicate index 1", err.message)
  end)
end)

-- What client:rerank makes of a reply to texts t1..tn: "index=score ..." and "index why; ...".
local function ranked(n, reply, opts)
  local texts = {}
  for i = 1, n do texts[i] = "t" .. i end
  local server = rig.serve(function() return raw(reply) end)
  opts = opts or {}
  local client = rig.client(server, { retry = false, provider = opts.provider, model = "m" })
  local res, err = client:rerank { query = "q", texts = texts, top_n = opts.top_n }
  if not res then return nil, err end
  local list, wrong = {}, {}
  for _, best in ipairs(res.results) do list[#list + 1] = ("%d=%g"):format(best.index, best.score) end
  for _, e in ipairs(res.errors) do
    assert.equal(e.index, e.error.row)
    wrong[#wrong + 1] = tostring(e.error)
  end
  assert.equal(#wrong == 0, res.ok)
  return table.concat(list, " "), table.concat(wrong, "; ")
end

describe("a reply of scores", function()
  after_each(rig.close_all)

  it("may leave out positions, or write them otherwise", function()
    local function same(want, reply)
      assert.same({ want, "" }, { ranked(3, reply) })
    end
    same("3=3 2=2 1=1", '[{"score":1},{"score":2},{"score":3}]')
    same("3=3 2=2 1=1", '[{"index":null,"score":1},{"index":1,"score":2},{"index":2,"score":3}]')
    same("3=3 2=2 1=1", '[{"index":"2","score":3},{"index":1.0,"score":2},{"index":0,"score":1}]')
    -- sorted by score, the zero left out
    same("3=3 1=2 2=1", '[{"index":2,"score":3},{"score":2},{"index":1,"score":1}]')
  end)

  it("costs the rows whose score is wrong or missing, and no other", function()
    assert.same({ "4=4 1=1", "decode: row 2: the score is null; decode: row 3: the score is not a number" },
      { ranked(4, '[{"index":3,"score":4},{"index":1,"score":null},{"index":2,"score":"3"},'
        .. '{"index":0,"score":1}]') })
    assert.same({ "3=2 1=1", "decode: row 2: the reply has no score for it" },
      { ranked(3, '[{"index":2,"score":2},{"index":0,"score":1}]') })
  end)

  it("that contradicts itself is an error", function()
    for _, reply in ipairs {
      '[{"score":1},{"index":0,"score":2},{"index":0,"score":3}]',
      '[{"index":2,"score":1},{"score":2},{"score":3}]',
      '[{"score":1},{"score":2}]', '[{"index":"x","score":1},{"index":1,"score":1},{"index":2,"score":1}]',
      '[{"index":0.5,"score":1},{"index":1,"score":1},{"index":2,"score":1}]', '[]',
      '[{"index":0,"score":1},{"index":1,"score":1},{"index":2,"score":1},{"index":1,"score":1}]',
    } do
      local res, err = ranked(3, reply)
      assert.is_nil(res, reply)
      assert.equal("decode", err.kind)
    end
  end)

  it("of a server that ignores top_n is cut to the best of its list", function()
    local reply = '{"results":[{"index":0,"relevance_score":1},{"index":1,"relevance_score":4},'
      .. '{"index":2,"relevance_score":2},{"index":3,"relevance_score":3}]}'
    assert.same({ "2=4 4=3", "" }, { ranked(4, reply, { provider = "cohere", top_n = 2 }) })
  end)
end)

describe("a reply of labels", function()
  after_each(rig.close_all)

  it("costs the rows that are wrong", function()
    local server = rig.serve(function()
      return raw '[[{"label":"a","score":0.5}],null,[{"label":"a","score":null}],[{"score":1}],{"error":"x"}]'
    end)
    local res = assert(rig.client(server):classify { inputs = { "1", "2", "3", "4", "5" } })
    local wrong = {}
    for k, e in ipairs(res.errors) do wrong[k] = tostring(e.error) end
    assert.same({ "decode: row 2: the result is null", "decode: row 3: the score of label 1 is not a number",
      "decode: row 4: label 1 is null", "decode: row 5: the result is no list of labels" }, wrong)
    assert.equal("a", res.results[1][1].label)
    assert.is_nil(res.results[2])
  end)
end)
