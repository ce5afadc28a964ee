-- Replies written from a matrix: {vectors =, rows =, style =, encoding_format =}.

local moonpool = require "moonpool"
local rig = require "client_rig"

after_each(rig.close_all)

local values = { { 0.1, -2, 3e-9 }, { 1, 0.5, 0.25 }, { 1 / 3, 0, -0.75 } }

-- The reply's decoded JSON (or bytes) for what the handler returns; or nil, the error's status.
local function ask(reply)
  local why
  local server = rig.keep(assert(moonpool.serve {
    listen = "127.0.0.1:0", handler = function() return reply end,
    on_error = function(_, err) why = tostring(err) end,
  }))
  local client = rig.client(server.url, { retry = false })
  local row, err = client:request { method = "GET", path = "/" }
  if row then return row.data, row.headers end
  return nil, err.status, why
end

local function floats(list)
  local m = moonpool.matrix.from { list }
  return m:row(1):totable()
end

describe("serve: vectors", function()
  it("come back as the same float32, whichever way they are written", function()
    local m = moonpool.matrix.from(values)
    local reply = ask { vectors = m, model = "mod", usage = { prompt_tokens = 3, total_tokens = 4 } }
    assert.equal("list", reply.object)
    assert.equal("mod", reply.model)
    assert.same({ prompt_tokens = 3, total_tokens = 4 }, reply.usage)
    for i, item in ipairs(reply.data) do
      assert.equal(i - 1, item.index)
      assert.same(m:row(i):totable(), floats(item.embedding))
    end
    local server = rig.serve(function(seen)
      return { vectors = m, encoding_format = seen.body.encoding_format }
    end)
    local client = rig.client(server.url, { model = "m", retry = false })
    assert.equal(m:bytes(), assert(client:embed { input = { "a", "b", "c" } }).matrix:bytes())
    assert.equal("base64", server.log[1].body.encoding_format)
    local bytes, headers = ask { vectors = m, encoding_format = "bytes" }
    assert.equal(m:bytes(), bytes)
    assert.equal("application/octet-stream", headers["content-type"])
  end)

  it("are chosen by rows, in their order, in the words of each style", function()
    local m = moonpool.matrix.from(values)
    local tei = ask { vectors = m, rows = { 3, 1 }, style = "tei" }
    assert.equal(2, #tei)
    assert.same(m:row(3):totable(), floats(tei[1]))
    assert.same(m:row(1):totable(), floats(tei[2]))
    local cohere = ask { vectors = m, rows = { 2 }, style = "cohere", id = "r1" }
    assert.equal("r1", cohere.id)
    assert.same({ { 1, 0.5, 0.25 } }, cohere.embeddings.float)
    local ollama = ask { vectors = m, rows = { 2, 2 }, style = "ollama", model = "m" }
    assert.same({ { 1, 0.5, 0.25 }, { 1, 0.5, 0.25 } }, ollama.embeddings)
    assert.equal("m", ollama.model)
  end)

  it("take model and usage from a result of embed", function()
    local mock = rig.mock { dim = 8 }
    local client = rig.client(mock.url, { model = "local-demo" })
    local res = assert(client:embed { input = { "a", "b" } })
    local reply = ask { vectors = res, rows = { 2 } }
    assert.equal(res.model, reply.model)
    assert.equal(res.usage.total_tokens, reply.usage.total_tokens)
    assert.same(res[2]:totable(), floats(reply.data[1].embedding))
  end)

  it("that cannot be written become a 500 that says why, and never a short reply", function()
    local m = moonpool.matrix.from(values)
    local failed = moonpool.matrix.from { { 1, 2 }, { 0 / 0, 1 } }
    for why, reply in pairs {
      ["rows%[2%] is no row"] = { vectors = m, rows = { 1, 4 } },
      ["style: 'xml'"] = { vectors = m, style = "xml" },
      ["encoding_format: 'hex'"] = { vectors = m, encoding_format = "hex" },
      ["has no base64"] = { vectors = m, style = "tei", encoding_format = "base64" },
      ["must be a matrix"] = { vectors = {} },
      ["row 2 holds no vector"] = { vectors = failed },
      ["only one of"] = { vectors = m, body = "x" },
      ["not UTF%-8"] = { vectors = m, model = "\xff" },
    } do
      local none, status, said = ask(reply)
      assert.is_nil(none)
      assert.equal(500, status)
      assert.matches(why, said)
    end
  end)
end)
