-- C1-C11: how inputs are cut into requests and replies merged. README.md says where each comes from.

local rig = require "client_rig"

-- The sizes of the texts of each request of one embed call, in the order of the inputs.
local function cut(sizes, opts)
  local server = rig.serve(function(seen)
    return { json = rig.embeddings(seen.body.input, nil, function(t) return { #t } end) }
  end)
  local client = rig.client(server)
  opts.max_concurrent_requests = 1
  opts.input = {}
  for i, n in ipairs(sizes) do opts.input[i] = ("x"):rep(n) end
  local res = assert(client:embed(opts))
  for i, n in ipairs(sizes) do assert.equal(n, res[i][1]) end
  local batches = {}
  for k, seen in ipairs(server.log) do
    batches[k] = {}
    for i, text in ipairs(seen.body.input) do batches[k][i] = #text end
  end
  return batches
end

describe("conformance: splitting", function()
  after_each(rig.close_all)

  it("C1 a text above the limit goes alone and flushes what is open", function()
    assert.same({ { 5, 10, 3 }, { 21 }, { 5, 5 } },
      cut({ 5, 10, 3, 21, 5, 5 }, { max_chars_per_request = 20, batch_size = 3 }))
  end)

  it("C2 a batch may fill the limit exactly", function()
    assert.same({ { 5, 10, 5 }, { 4 } }, cut({ 5, 10, 5, 4 }, { max_chars_per_request = 20, batch_size = 3 }))
  end)

  it("C3 count and characters limit together", function()
    assert.same({ { 1, 1, 1 }, { 1 }, { 9 }, { 2 } },
      cut({ 1, 1, 1, 1, 9, 2 }, { max_chars_per_request = 6, batch_size = 3 }))
  end)

  it("C4 texts that are all above the limit go one by one", function()
    assert.same({ { 7 }, { 8 }, { 9 } }, cut({ 7, 8, 9 }, { max_chars_per_request = 6, batch_size = 3 }))
  end)

  it("C5 no input makes no request", function()
    local server = rig.embedder()
    for _ in rig.client(server):embed_each({}) do error "a batch of nothing" end
    assert.equal(0, #server.log)
  end)

  it("C6 a large limit makes one batch, and none is empty", function()
    assert.same({ { 1, 2, 3, 4, 5 } }, cut({ 1, 2, 3, 4, 5 },
      { max_chars_per_request = 256000, batch_size = 1024 }))
    for _, batch in ipairs(cut({ 30, 1, 30, 1, 1, 30 }, { max_chars_per_request = 3, batch_size = 2 })) do
      assert.is_true(#batch > 0)
    end
  end)

  it("C7 four inputs by two are two and two", function()
    assert.same({ { 1, 2 }, { 3, 4 } }, cut({ 1, 2, 3, 4 }, { batch_size = 2 }))
  end)

  it("C7 characters are counted, not bytes", function()
    local server = rig.serve(function(seen)
      return { json = rig.embeddings(seen.body.input, nil, function(t) return { utf8.len(t) } end) }
    end)
    assert(rig.client(server):embed { input = { "\u{1F600}\u{1F600}", "äöü", "x" },
      max_chars_per_request = 5 })
    assert.equal(2, #server.log)
    assert.equal(2, #server.log[1].body.input == 2 and 2 or #server.log[2].body.input)
  end)
end)

describe("conformance: merging", function()
  after_each(rig.close_all)

  it("C8 embed: rows joined, usage summed, model of the first, a time for each request", function()
    local usage = { { prompt_tokens = 10, total_tokens = 15 }, { prompt_tokens = 8, total_tokens = 12 } }
    local server = rig.embedder(function(seen, n)
      local reply = rig.embeddings(seen.body.input)
      reply.usage, reply.model = usage[n], "model-" .. n
      return { json = reply }
    end)
    local res = assert(rig.client(server):embed { input = rig.texts(4), batch_size = 2,
      max_concurrent_requests = 1 })
    assert.is_nil(rig.wrong_row(res, rig.texts(4)))
    assert.same({ prompt_tokens = 18, total_tokens = 27 }, res.usage)
    assert.equal("model-1", res.model)
    assert.equal(2, #res.individual_request_times)
    assert.equal(res.requests[2].time, res.individual_request_times[2])
    for k, item in ipairs(res.data) do
      assert.equal(k, item.index)
      assert.equal("embedding", item.object)
      assert.same(rig.vector(tostring(k)), item.embedding)
    end
  end)

  it("C9 rows follow the index of the reply, not its order", function()
    local server = rig.embedder(function(seen)
      return { json = rig.embeddings(seen.body.input, #seen.body.input == 3 and { 3, 1, 2 } or { 2, 1 }) }
    end)
    local res = assert(rig.client(server):embed { input = rig.texts(5), batch_size = 3 })
    assert.is_nil(rig.wrong_row(res, rig.texts(5)))
  end)

  it("C10 rerank: batches become one list, sorted by score, with the caller's indices", function()
    local server = rig.serve(function(seen)
      local list = {}
      for i, text in ipairs(seen.body.texts) do list[i] = { index = i - 1, score = tonumber(text) / 10 } end
      table.sort(list, function(a, b) return a.score > b.score end)
      return { json = list }
    end)
    local res = assert(rig.client(server):rerank { query = "q", texts = { "3", "9", "1", "7", "5" },
      batch_size = 2,
      return_text = true })
    assert.same({ { index = 2, score = 0.9, text = "9" }, { index = 4, score = 0.7, text = "7" },
      { index = 5, score = 0.5, text = "5" }, { index = 1, score = 0.3, text = "3" },
      { index = 3, score = 0.1, text = "1" } }, res.results)
    assert.equal(3, #server.log)
    assert.equal(3, #res.individual_request_times)
  end)

  it("C11 classify: a list for each input, in order", function()
    local server = rig.serve(function(seen)
      local list = {}
      for i, row in ipairs(seen.body.inputs) do
        list[i] = { { label = "is " .. row[1], score = 0.9 }, { label = "not", score = 0.1 } }
      end
      return { json = list }
    end)
    local res = assert(rig.client(server):classify { inputs = { "a", "b", "c" }, batch_size = 2 })
    for i, text in ipairs { "a", "b", "c" } do
      assert.same({ { label = "is " .. text, score = 0.9 }, { label = "not", score = 0.1 } }, res.results[i])
    end
    assert.equal(2, #server.log)

  end)
end)
