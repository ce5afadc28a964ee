-- client:fingerprint, and which models' vectors may be compared.

local moonpool = require "moonpool"
local json = require "moonpool.json"
local provider = require "moonpool.provider"
local rig = require "client_rig"

describe("fingerprint", function()
  after_each(rig.close_all)

  local function client(opts)
    return rig.client(rig.mock { dim = 32 }, opts)
  end

  it("is a table that JSON can hold, and the same model is the same", function()
    local c = client()
    local kept = json.decode(json.encode(assert(c:fingerprint { model = "m" })))
    assert.same({ "m", "openai", 32 }, { kept.model, kept.provider, kept.dimensions })
    local now = assert(c:fingerprint { model = "m", like = kept })
    assert.is_true(now.same)
    assert.is_true(now.cosine > 0.999999 and now.cosine <= 1)
  end)

  it("takes the model from what it compares with, or from the client", function()
    local c = client { model = "of-the-client" }
    local kept = assert(c:fingerprint())
    assert.equal("of-the-client", kept.model)
    assert.is_true(assert(c:fingerprint { like = kept }).same)
  end)

  it("one text's drift is the model's", function()
    local c = client()
    local kept = assert(c:fingerprint { model = "m" })
    for k = 1, 32 do kept.vectors[3][k] = kept.vectors[3][k] + (k % 2 == 0 and 0.02 or -0.02) end
    local now = assert(c:fingerprint { model = "m", like = kept })
    assert.is_false(now.same)
    assert.is_true(now.cosine < 0.999 and now.cosine > 0.9)
  end)

  it("other dimensions are another model", function()
    local c = client()
    local kept = assert(c:fingerprint { model = "m", dimensions = 16 })
    assert.is_true(assert(c:fingerprint { like = kept }).same) -- asked for again
    kept.dimensions_asked = nil
    assert.same({ cosine = 0, same = false, dimensions = 32, was = 16 }, (c:fingerprint { like = kept }))
  end)

  it("a model that does not answer is an error; a table that is no fingerprint is refused", function()
    local c = rig.client(rig.embedder(function() return { status = 500, json = {} } end),
      { retry = { max_attempts = 1 } })
    local now, err = c:fingerprint { model = "m" }
    assert.is_nil(now)
    assert.equal("http", err.kind)
    local ok, why = pcall(function() c:fingerprint { like = { vectors = {} } } end)
    assert.is_false(ok)
    assert.matches("client_fingerprint_spec.-fingerprint: like: what an earlier fingerprint returned", why)
  end)
end)

describe("same_space", function()
  it("knows a model under the names of several services, and families", function()
    for _, pair in ipairs {
      { "BAAI/bge-m3", "@cf/baai/bge-m3" }, { "bge-m3:latest", "bge-m3" },
      { "voyage-4-lite", "voyage-4-large" }, { "eu.cohere.embed-v4:0", "embed-v4.0" },
      { "cohere.embed-english-v3", "embed-english-v3.0" },
      { "models/gemini-embedding-001", "gemini-embedding-001" },
      { "nomic-ai/nomic-embed-text-v1.5", "nomic-embed-text" },
    } do
      assert.is_true(provider.same_space(pair[1], pair[2]), pair[1])
    end
  end)

  it("takes nothing else for the same, and says why", function()
    for _, pair in ipairs {
      { "text-embedding-3-small", "text-embedding-3-large" }, { "voyage-3.5", "voyage-4" },
      { "nomic-embed-text-v1", "nomic-embed-text-v1.5" }, { "embed-v4.0", "embed-english-v3.0" },
    } do
      local same, why = moonpool.provider.same_space(pair[1], pair[2])
      assert.is_false(same)
      assert.matches("not known to share a vector space", why)
    end
    assert.is_false(pcall(provider.same_space, "a", nil))
  end)
end)
