-- Rows of several vectors and sparse rows: the ragged matrix, its files, and the calls that make it.

local moonpool = require "moonpool"
local rig = require "client_rig"
local ragged = moonpool.ragged

local function near(want, got)
  assert.is_true(math.abs(want - got) < 1e-5, ("%s is not %s"):format(got, want))
end

describe("ragged", function()
  local path

  before_each(function() path = os.tmpname() end)
  after_each(function()
    for _, tail in ipairs { "", ".npy", ".offsets.npy", ".indices.npy" } do os.remove(path .. tail) end
  end)

  local dense = { { { 1, 0 }, { 0, 1 } }, {}, { { 0.6, 0.8 } }, { { -1, 0 }, { 0, -1 }, { 0.5, 0.5 } } }

  it("keeps rows of their own lengths", function()
    local r = ragged.from(dense)
    assert.same({ 4, 2, false }, { r:rows(), r:cols(), r:sparse() })
    assert.same({ 2, 0, 1, 3 }, { r:count(1), r:count(2), r:count(3), r:count(4) })
    assert.same({ { -1, 0 }, { 0, -1 }, { 0.5, 0.5 } }, r:row(4):totable())
    assert.equal(0, r:row(2):rows())
    assert.equal(4, #r)
    assert.is_false(pcall(r.row, r, 5))
    assert.is_false(pcall(r.count, r, 0))
  end)

  it("finds by the sum of the best products of each of the query's vectors", function()
    local r = ragged.from(dense)
    local hits = r:topk(moonpool.matrix.from { { 1, 0 }, { 0, 1 } }, 3)
    assert.same({ 1, 3, 4 }, { hits[1].index, hits[2].index, hits[3].index })
    near(2, hits[1].score)
    near(1.4, hits[2].score)
    near(1, hits[3].score)
    hits = r:topk({ 0, -1 }, 9) -- rows without vectors are never found
    assert.equal(3, #hits)
    assert.equal(4, hits[1].index)
    assert.same({}, r:topk({ 1, 0 }, 0))
    assert.is_false(pcall(r.topk, r, { 1, 2, 3 }, 1))
  end)

  it("agrees with the sum done by hand on random rows", function()
    math.randomseed(7)
    local rows = {}
    for i = 1, 30 do
      rows[i] = {}
      for v = 1, math.random(1, 5) do
        rows[i][v] = { math.random() - 0.5, math.random() - 0.5, math.random() - 0.5 }
      end
    end
    local query = { { 0.3, -0.2, 0.9 }, { -0.5, 0.1, 0.2 } }
    local want = {}
    for i, row in ipairs(rows) do
      local sum = 0
      for _, q in ipairs(query) do
        local best = -math.huge
        for _, v in ipairs(row) do best = math.max(best, q[1] * v[1] + q[2] * v[2] + q[3] * v[3]) end
        sum = sum + best
      end
      want[i] = { index = i, score = sum }
    end
    table.sort(want, function(a, b) return a.score > b.score end)
    local hits = ragged.from(rows):topk(moonpool.matrix.from(query), 30)
    for i = 1, 30 do
      assert.equal(want[i].index, hits[i].index)
      near(want[i].score, hits[i].score)
    end
  end)

  local sparse = { { indices = { 2, 7 }, values = { 1, 0.5 } }, { indices = {}, values = {} },
    { indices = { 7, 4000000000 }, values = { 2, 3 } } }

  it("finds sparse rows by the products where both have a number", function()
    local r = ragged.from(sparse)
    assert.is_true(r:sparse())
    assert.same(sparse[3], r:row(3))
    local hits = r:topk({ indices = { 4000000000, 7 }, values = { 1, 10 } }, 5)
    assert.same({ { index = 3, score = 23 }, { index = 1, score = 5 } }, hits)
    assert.is_false(pcall(r.topk, r, { indices = { 1 }, values = {} }, 1))
    assert.is_false(pcall(ragged.from, { { indices = { 7, 2 }, values = { 1, 1 } } }))
  end)

  it("is saved as rows and offsets, and loaded again", function()
    for _, rows in ipairs { dense, sparse } do
      local r = ragged.from(rows)
      assert(r:save(path))
      local back = assert(ragged.load(path))
      assert.same({ r:offsets(), r:indices() }, { back:offsets(), back:indices() })
      for i = 1, #r do
        local a, b = r:row(i), back:row(i)
        assert.same(r:sparse() and a or a:totable(), r:sparse() and b or b:totable())
      end
    end
    local f = assert(io.open(path .. ".offsets.npy", "rb"))
    local bytes = f:read "a"
    f:close()
    f = assert(io.open(path .. ".offsets.npy", "wb"))
    f:write(bytes:sub(1, -9))
    f:close()
    local r, err = ragged.load(path)
    assert.is_nil(r)
    assert.matches("offsets.npy: not a .npy file of <i8", err)
    assert.is_nil((ragged.load(path .. "-nowhere")))
  end)
end)

describe("embed_all and embed_sparse", function()
  after_each(rig.close_all)

  local function words(n)
    local list = {}
    for i = 1, n do list[i] = ("one two%d"):format(i) .. (" three"):rep(i % 4) end
    return list
  end

  local function client(name, mock_options, opts)
    local mock = rig.mock(mock_options or {})
    local o = { base_url = mock.url .. "/" .. name, provider = name, api_key = "k" }
    for k, v in pairs(opts or {}) do o[k] = v end
    return rig.client(o.base_url, o), mock
  end

  for _, name in ipairs { "tei", "jina", "vllm" } do
    it(name .. " has a vector for each word", function()
      local texts = words(100)
      local c = client(name, { shuffle = name ~= "tei" })
      local res = assert(c:embed_all { input = texts, model = "m", batch_size = 30 })
      assert.is_true(res.ok)
      assert.equal(100, #res)
      local plain = client "openai"
      for i = 1, 100 do assert.equal(2 + i % 4, res.ragged:count(i)) end
      local two = assert(plain:embed { input = { "two77" }, model = "m" })
      for k = 1, 8 do near(two[1][k], res[77][2][k]) end
      local hits = res.ragged:topk(res[41], 1)
      assert.equal(41, hits[1].index)
    end)
  end

  for _, name in ipairs { "tei", "pinecone" } do
    it(name .. " has sparse rows", function()
      local texts = words(100)
      local c = client(name)
      local res = assert(c:embed_sparse { input = texts, model = name == "pinecone" and "sparse-en" or nil })
      assert.is_true(res.ok)
      for i = 1, 100 do assert.equal(i % 4 > 0 and 3 or 2, res.ragged:count(i)) end
      local query = res[63]
      assert.equal(63, res.ragged:topk(query, 1)[1].index)
    end)
  end

  it("a reply that is short, or odd, fails its rows and no others", function()
    local n = 0
    local c = client("tei", { hook = function(_, _, job)
      n = n + 1
      if n == 2 then return { status = 200, body = job.reply { 1, 2 } } end
      if n == 3 then return { status = 200, body = '[[[1,2],[1]]]' } end
    end }, { retry = { max_attempts = 1 } })
    local res = assert(c:embed_all { input = words(7), batch_size = 3, max_concurrent_requests = 1 })
    assert.is_false(res.ok)
    assert.same({ 4, 5, 6, 7 }, { res.errors[1].index, res.errors[2].index, res.errors[3].index,
      res.errors[4].index })
    assert.matches("2 items, 3 were sent", res.errors[1].error.message)
    assert.equal("decode", res.errors[4].error.kind)
    assert.equal(3, res.ragged:count(1))
    assert.equal(0, res.ragged:count(4))
  end)

  it("groups of texts stay together, and each has its vectors", function()
    local groups, n = {}, 0
    for i = 1, 60 do
      groups[i] = {}
      for k = 1, 1 + i % 3 do groups[i][k] = ("group%d text%d"):format(i, k) end
      n = n + #groups[i]
    end
    local c, mock = client("voyage", { shuffle = true, record_body = true })
    local res = assert(c:embed_groups { input = groups, model = "voyage-context-3", batch_size = 25 })
    assert.is_true(res.ok)
    for i = 1, 60 do assert.equal(#groups[i], res.ragged:count(i)) end
    assert.equal(n, res.ragged:vectors():rows())
    assert.equal(3, #mock:requests())
    local plain = assert(client("openai"):embed { input = { "group8 group8 text2" }, model = "m" })
    for k = 1, 8 do near(plain[1][k], res[8][2][k]) end
    assert.is_false(pcall(c.embed_groups, c, { input = { "a" } }))
    assert.is_false(pcall(c.embed_groups, c, { input = { {} } }))
  end)

  it("a group with a vector too few is an error", function()
    local c = client("voyage", { hook = function()
      return { status = 200, body = '{"data":[{"index":0,"data":[{"index":0,"embedding":[1,2]}]}]}' }
    end })
    local res, err = c:embed_groups { input = { { "a", "b" } }, model = "m" }
    assert.is_nil(res)
    assert.matches("1 vectors, 2 texts were sent", err.message)
  end)

  it("a provider without it says so", function()
    local c = client "openai"
    local ok, err = pcall(function() c:embed_sparse { input = "a" } end)
    assert.is_false(ok)
    assert.matches("provider 'openai' has no embed_sparse call", err)
  end)
end)
