-- What callers give that cannot be meant: whole URLs as paths, times and budgets beyond sense, HTTP/2 to
-- a server without it.

local moonpool = require "moonpool"
local rig = require "client_rig"

describe("a whole URL as path", function()
  after_each(rig.close_all)

  it("is cut to its path below the client's own base_url", function()
    local server = rig.serve(function(seen) return { json = { path = seen.path, query = seen.query } } end)
    local client = rig.client(server.url .. "/api")
    assert.equal("/api/v1/x", client:request { path = server.url .. "/api/v1/x" }.data.path)
    assert.equal("/api/", client:request { path = server.url .. "/api" }.data.path)
    assert.equal("/api/a", client:batch_post { path = server.url:upper():gsub("HTTP", "http") .. "/api/a",
      payloads = { {} } }[1].data.path)
    local plain = rig.client(server)
    assert.matches("^/a", plain:request { path = server.url .. "/a?b=c" }.data.path)
    for _ in assert(plain:stream { path = server.url .. "/s" }) do break end -- luacheck: ignore
  end)

  it("of another server is refused by name, and nothing is sent", function()
    local server = rig.serve(function() return { json = {} } end)
    local client = rig.client(server.url .. "/api")
    for _, url in ipairs { "http://example.com/x?key=secret", "https://127.0.0.1/x", server.url .. "/apix",
      server.url .. "/other", "ftp://127.0.0.1/x", "http://user:secret@example.com/" } do
      local ok, why = pcall(client.request, client, { path = url })
      assert.is_false(ok, url)
      assert.matches("path: ", why)
      assert.is_nil(why:find "secret")
      assert.is_false(pcall(client.batch_post, client, { path = url, payloads = { {} } }))
      assert.is_false(pcall(client.stream, client, { path = url }))
    end
    assert.equal(0, #server.log)
  end)
end)

describe("limits beyond sense", function()
  after_each(rig.close_all)

  it("are refused by name", function()
    local client = rig.client(rig.dead_url())
    for _, case in ipairs {
      { { timeout = 5, total_timeout = 4 }, "timeout: must not be more" },
      { { timeout_s = 5, total_timeout_s = 4 }, "timeout_s: must not be more" },
      { { timeout = { attempt = 5, total = 4 } }, "timeout: must not be more" },
      { { hedge_budget_pct = 3.5 }, "hedge_budget_pct: cannot exceed 3.0" },
      { { retry_budget_pct = 4 }, "retry_budget_pct: cannot exceed 3.0" },
      { { preference = moonpool.preference { timeout_s = 2 }, total_timeout = 1 }, "timeout_s: must not" },
    } do
      case[1].input = "x"
      local ok, why = pcall(client.embed, client, case[1])
      assert.is_false(ok)
      assert.matches(case[2], why, 1, true)
    end
    assert.has_error(function() moonpool.preference { timeout_s = 2, total_timeout_s = 1 } end)
    local _, err = client:embed { input = "x", timeout = 5, total_timeout = 5, retry = false }
    assert.equal("connect", err.kind)
  end)
end)

describe("HTTP/2 to a server that does not speak it without TLS", function()
  after_each(rig.close_all)

  it("says so, once", function()
    local server = rig.serve(function() return { json = {} } end)
    local _, err = rig.client(server, { http_version = "2" }):request { path = "/" }
    assert.equal("connect", err.kind)
    assert.matches("does not speak HTTP/2 without TLS", err.message)
    assert.is_false(err.retryable)
    assert.equal(1, err.attempts)
  end)
end)

describe("res.data of embed", function()
  after_each(rig.close_all)

  it("counts from 1, as everything does", function()
    local res = assert(rig.client(rig.embedder()):embed { input = { "1", "2" } })
    assert.same({ 1, 2 }, { res.data[1].index, res.data[2].index })
  end)
end)
