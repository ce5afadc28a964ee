-- Servers that speak a little less than the client: no base64, no field for it, another version in
-- their paths, a base URL that is the whole endpoint already.

local rig = require "client_rig"

-- Refuses a request by what its body says under encoding_format; refusal(format) returns a reply or nil.
local function picky(refusal)
  return rig.embedder(function(seen) return refusal(seen.body.encoding_format) end)
end

local function no_base64(format)
  if format == "base64" then
    return { status = 400, json = { message = "this server has no base64 encoding" } }
  end
end

local function no_field(format)
  if format ~= nil then
    return { status = 422, json = { detail = { { type = "extra_forbidden",
      loc = { "body", "encoding_format" }, msg = "Extra inputs are not permitted" } } } }
  end
end

local function formats(server)
  local list = {}
  for i, seen in ipairs(server.log) do list[i] = seen.body.encoding_format or "none" end
  return table.concat(list, " ")
end

describe("encoding_format", function()
  after_each(rig.close_all)

  it("that is refused is left out at once, and from then on", function()
    for _, refusal in ipairs { no_base64, no_field } do
      local server = picky(refusal)
      local client = rig.client(server, { retry = false, batch_size = 4 })
      local res = assert(client:embed { input = rig.texts(12), max_concurrent_requests = 1 })
      assert.is_nil(rig.wrong_row(res, rig.texts(12)))
      assert.is_true(res.ok)
      assert.equal("base64 none none none", formats(server))
      assert.equal(1, res.requests[1].attempts)
      assert(client:embed { input = rig.texts(2) })
      assert.equal("base64 none none none none", formats(server))
    end
  end)

  it("that is refused to many requests at once costs each one more at most", function()
    local server = picky(no_base64)
    local res = assert(rig.client(server, { retry = false }):embed { input = rig.texts(60), batch_size = 1 })
    assert.is_true(res.ok)
    assert.is_nil(rig.wrong_row(res, rig.texts(60)))
    assert.is_true(#server.log <= 120)
  end)

  it("is asked for as the caller says", function()
    local server = rig.embedder()
    local client = rig.client(server)
    for _, format in ipairs { "float", "base64" } do
      assert(client:embed { input = "1", encoding_format = format })
    end
    assert(client:embed { input = "1", encoding_format = false })
    assert.equal("float base64 none", formats(server))
    assert.has_error(function() client:embed { input = "1", encoding_format = true } end)
  end)

  it("float that is refused is left out too", function()
    local server = picky(no_field)
    local client = rig.client(server, { retry = false })
    local res = assert(client:embed { input = { "1", "2" }, encoding_format = "float" })
    assert.is_nil(rig.wrong_row(res, { "1", "2" }))
    assert.equal("float none", formats(server))
  end)

  it("is not blamed for a refusal in other words", function()
    local server = rig.embedder(function() return { status = 400, json = { error = "no such model" } } end)
    local client = rig.client(server, { retry = false })
    assert.is_nil(client:embed { input = "1" })
    assert.equal("base64", formats(server))
  end)

  it("named in vain is given up on", function()
    local server = rig.serve(function()
      return { status = 400, json = { error = "neither base64 nor float" } }
    end)
    local client = rig.client(server, { retry = false })
    for _ = 1, 6 do
      local res, err = client:embed { input = "1" }
      assert.is_nil(res)
      assert.matches("neither base64 nor float", err.message)
    end
    assert.equal(9, #server.log)
  end)
end)

describe("a base URL", function()
  after_each(rig.close_all)

  local function asked(suffix, call, opts)
    local server = rig.serve(function(seen)
      return { json = seen.body and seen.body.input and rig.embeddings(seen.body.input)
        or seen.body and seen.body.inputs and { { 1, 2 } }
        or seen.body and seen.body.texts and { { index = 0, score = 1 } } or {} }
    end)
    local client = rig.client(server.url .. suffix, opts)
    assert(call(client))
    return server.log[1].path
  end

  local function embed(client) return client:embed { input = { "1" } } end

  it("may end in another version", function()
    for suffix, want in pairs {
      [""] = "/v1/embeddings", ["/v1"] = "/v1/embeddings", ["/v1/"] = "/v1/embeddings",
      ["/api/coding/v3"] = "/api/coding/v3/embeddings", ["/api/paas/v4/"] = "/api/paas/v4/embeddings",
      ["/v12"] = "/v12/embeddings", ["/vx"] = "/vx/v1/embeddings", ["/v"] = "/v/v1/embeddings",
      ["/v1/proxy"] = "/v1/proxy/v1/embeddings",
    } do
      assert.equal(want, asked(suffix, embed), suffix)
    end
    assert.equal("/api/v3/chat/completions", asked("/api/v3", function(client)
      return client:request { path = "/v1/chat/completions", json = {} }
    end))
    assert.equal("/v3/models", asked("/v3", function(client) return client:request { path = "/models" } end))
  end)

  it("may be the whole endpoint", function()
    for suffix, want in pairs {
      ["/v1/embeddings"] = "/v1/embeddings", ["/v1/embeddings/"] = "/v1/embeddings",
      ["/api/v3/embeddings"] = "/api/v3/embeddings", ["/openai/embeddings"] = "/openai/embeddings",
      ["/myembeddings"] = "/myembeddings/v1/embeddings",
    } do
      assert.equal(want, asked(suffix, embed), suffix)
    end
    assert.equal("/tei/embed", asked("/tei/embed", function(client)
      return client:embed { input = { "1" } }
    end, { provider = {
      name = "own", embed = { path = "/embed", rows = "inputs", reply = { list = "" } } } }))
    assert.equal("/x/rerank", asked("/x/rerank", function(client)
      return client:rerank { query = "q", texts = { "1" } }
    end))
    assert.equal("/v1/chat/completions", asked("/v1/chat/completions", function(client)
      return client:request { path = "/v1/chat/completions", json = {} }
    end))
    -- A prefix that looks like the path a caller names himself stays a prefix.
    assert.equal("/score/score", asked("/score", function(client)
      return client:request { path = "/score", json = {} }
    end))
  end)

  it("stands in the message of a 404, without its query", function()
    local server = rig.serve(function() return { status = 404, json = { error = "no such route" } } end)
    local client = rig.client(server.url .. "/api/v3", { retry = false })
    local _, err = client:embed { input = "1" }
    assert.matches("no such route", err.message)
    assert.matches("asked: POST " .. server.url:gsub("%p", "%%%0") .. "/api/v3/embeddings$", err.message)
    _, err = client:request { path = "/x?sig=secret" }
    assert.matches("asked: GET .*/api/v3/x$", err.message)
    assert.is_nil(tostring(err):find "secret")
  end)
end)
