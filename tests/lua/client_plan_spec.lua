-- A plan, a call without its rows, is kept for the next call with the same options, and only for that.

local rig = require "client_rig"

describe("calls with the same options", function()
  after_each(rig.close_all)

  it("send the same, whatever was asked for in between", function()
    local server = rig.embedder()
    local client = rig.client(server, { model = "m" })
    local asked = {
      {}, {}, { model = "n" }, { model = "n", user = "u" }, { user = "u" }, {},
      { headers = { ["x-a"] = "1" } }, { headers = { ["x-a"] = "2" } }, {},
      { api_key = "one" }, { api_key = "two" }, {},
    }
    for i, o in ipairs(asked) do
      o.input = { tostring(i), tostring(i + 1) }
      assert.is_nil(rig.wrong_row(assert(client:embed(o)), o.input))
      local seen = server.log[#server.log]
      assert.same(o.input, seen.body.input)
      assert.equal(o.model or "m", seen.body.model)
      assert.equal(o.user, seen.body.user)
      assert.equal(o.headers and o.headers["x-a"], seen.headers["x-a"])
      assert.equal(o.api_key and "Bearer " .. o.api_key, seen.headers.authorization)
    end
  end)

  it("see a table that was changed since", function()
    local server = rig.embedder()
    local client = rig.client(server)
    local extra = { a = 1 }
    assert(client:embed { input = "1", extra_body = extra })
    extra.a = 2
    assert(client:embed { input = "1", extra_body = extra })
    assert.same({ 1, 2 }, { server.log[1].body.a, server.log[2].body.a })
  end)

  it("ask for the key each time", function()
    local server, n = rig.embedder(), 0
    local client = rig.client(server, { api_key = function()
      n = n + 1
      return "key" .. n
    end })
    for _ = 1, 3 do assert(client:embed { input = "1" }) end
    assert.equal("Bearer key3", server.log[3].headers.authorization)
  end)

  it("are checked as ever", function()
    local client = rig.client(rig.embedder())
    assert(client:embed { input = "1", user = "u" })
    assert.has_error(function() client:embed { input = "1", user = "u", dimension = 3 } end,
      "embed: unknown option 'dimension' (did you mean 'dimensions'?)")
    assert.has_error(function() client:embed { input = {}, user = "u" } end,
      "embed: input: must not be empty")
    assert.has_error(function() client:embed { input = { "1", false }, user = "u" } end,
      "embed: input[2]: string expected, got a boolean")
    assert.has_error(function() client:embed { user = "u" } end)
  end)
end)
