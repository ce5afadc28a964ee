-- A 2xx whose body is an error, and what an error says of trying again.

local rig = require "client_rig"

describe("a good status with an error inside", function()
  after_each(rig.close_all)

  local function ask(body, opts)
    local server = rig.serve(function() return { json = body } end)
    local res, err = rig.client(server, opts):embed { input = { "1", "2" } }
    assert.is_nil(res)
    return err, #server.log
  end

  it("has the service's words and the status it names, and is not sent twice", function()
    local bodies = {
      { 404, { error = { message = "no such model", code = "model_not_found" } } },
      { 404, { object = "error", message = "no such model", type = "NotFoundError", code = 404 } },
      { 401, { error = "no such model", status = 401 } },
      { 200, { error = "no such model" } },
    }
    for _, case in ipairs(bodies) do
      local err, requests = ask(case[2])
      assert.equal(case[1] == 200 and "decode" or "http", err.kind)
      assert.equal(case[1], err.status)
      assert.matches("no such model", err.message)
      assert.equal(1, requests)
    end
  end)

  it("is retried where that status would be", function()
    local err, requests = ask({ error = { message = "slow down", code = "rate_limit_exceeded" } })
    assert.equal("rate_limited", err.kind)
    assert.equal(429, err.status)
    assert.is_true(err.retryable)
    assert.equal(6, requests)
  end)

  it("is read to its end when it is long", function()
    local err = ask { error = { message = ("word "):rep(300), code = 404 } }
    assert.equal(404, err.status)
  end)

  it("is no error when the vectors are there", function()
    local server = rig.embedder(function(seen)
      local reply = rig.embeddings(seen.body.input)
      reply.error = require "moonpool.json".null
      return { json = reply }
    end)
    assert(rig.client(server):embed { input = { "1" } })
  end)
end)

describe("err.retryable", function()
  after_each(rig.close_all)

  it("is what a classify hook says", function()
    local server = rig.serve(function() return { status = 418, json = {} } end)
    local client = rig.client(server, { retry = { max_attempts = 2, base = 0.001 },
      classify = function(view) if view.status == 418 then return "transient" end end })
    local _, err = client:embed { input = "1" }
    assert.is_true(err.retryable)
    assert.equal(2, #server.log)
  end)
end)
