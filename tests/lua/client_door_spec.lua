-- A fault that no row can cause, and nothing was ever answered: a handful of requests, then an error that
-- says what to do. One good reply in a client's life, and faults are waited out.

local rig = require "client_rig"

local function refusing(status)
  return rig.serve(function() return { status = status, json = { error = "no" } } end)
end

describe("before anything was answered", function()
  after_each(rig.close_all)

  it("a wrong key or path ends the call after a handful of requests", function()
    for _, status in ipairs { 401, 403, 404 } do
      local server = refusing(status)
      local res, err = rig.client(server):embed { input = rig.texts(3000) }
      assert.is_nil(res)
      assert.is_true(err.hopeless)
      assert.equal(status, err.status)
      assert.equal(3000, #err.errors)
      assert.equal(status, err.errors[3000].error.status)
      assert.matches("nothing has been answered yet", err.message)
      assert.is_true(#server.log <= 10, #server.log)
    end
  end)

  it("so does a server that is not there, after ten seconds", function()
    local client = rig.client(rig.dead_url())
    local res, err = rig.within(30, client.embed, client, { input = rig.texts(3000) })
    assert.is_nil(res)
    assert.equal("connect", err.kind)
    assert.matches("is the server running there", err.message)
    assert.is_true(client:stats().attempts <= 20, client:stats().attempts)
  end)

  it("a name that does not exist does", function()
    local client = rig.client("http://no.such.name.invalid")
    local _, err = client:embed { input = rig.texts(3000) }
    assert.is_true(err.hopeless)
    assert.matches("check base_url and DNS", err.message)
    assert.is_true(client:stats().attempts <= 10)
  end)

  it("the batches of embed_each end with it", function()
    local server = refusing(401)
    local client, rows = rig.client(server), 0
    for batch in client:embed_each(rig.texts(20000)) do
      assert.equal(batch.count, #batch.errors)
      assert.equal(401, batch.errors[1].error.status)
      rows = rows + batch.count
    end
    assert.equal(20000, rows)
    assert.is_true(#server.log <= 60, #server.log) -- a window of 128 calls, each new one asks once
  end)
end)

describe("after one good reply", function()
  after_each(rig.close_all)

  it("each part has its own fate", function()
    local server = rig.embedder(function(_, n)
      if n > 1 then return { status = 401, json = { error = "no" } } end
    end)
    local client = rig.client(server)
    assert(client:embed { input = "1" })
    local _, err = client:embed { input = rig.texts(20), batch_size = 1 }
    assert.is_nil(err.hopeless)
    assert.equal(21, #server.log)
  end)
end)
