-- What a user's text must never become: another header, another request, another server.

local moonpool = require "moonpool"
local rig = require "client_rig"

local breaks = {
  "a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\0b", "\r\n\r\nGET /evil HTTP/1.1\r\n\r\n",
}

local function server()
  return rig.serve(function(seen) return { json = { path = seen.path, query = seen.query } } end)
end

-- Raised, or refused as invalid; never sent.
local function refused(s, what, fn)
  local before = #s.log
  local ok, res, err = pcall(fn)
  local message = not ok and tostring(res) or err and tostring(err)
  if ok and not err and type(res) == "table" and res.errors and res.errors[1] then
    message = tostring(res.errors[1].error)
    assert.equal("invalid", res.errors[1].error.kind)
  elseif ok and err then
    assert.equal("invalid", err.kind, message)
  end
  assert.is_truthy(message, what .. " was accepted")
  assert.is_nil(message:find("\r", 1, true))
  assert.equal(before, #s.log, what)
  return message
end

describe("injection", function()
  after_each(rig.close_all)

  it("by the values and names of headers is refused, wherever they come from", function()
    local s = server()
    local c = rig.client(s)
    for _, text in ipairs(breaks) do
      local as_value, as_name = { ["X-A"] = text }, { [text] = "a" }
      for _, headers in ipairs { as_value, as_name, { [""] = "a" }, { ["X A"] = "a" }, { ["X:A"] = "a" } } do
        refused(s, "a client's header", function()
          return rig.client(s, { headers = headers }):request { path = "/" }
        end)
        refused(s, "a call's header", function()
          return c:request { path = "/", headers = headers }
        end)
        refused(s, "a header of a batch", function()
          return c:batch_post { path = "/", payloads = { {} }, headers = headers }
        end)
        refused(s, "an endpoint's header", function()
          return moonpool.client { endpoints = { { base_url = s.url, headers = headers } } }
        end)
      end
    end
  end)

  it("by a key, a user agent or a prefix is refused, and the key is not shown", function()
    local s = server()
    for _, text in ipairs(breaks) do
      local key = "sk-canary" .. text
      local function secret(what, fn)
        assert.is_nil(refused(s, what, fn):find("canary", 1, true))
      end
      secret("api_key", function() return rig.client(s, { api_key = key }):request { path = "/" } end)
      secret("api_key by function", function()
        return rig.client(s, { api_key = function() return key end }):request { path = "/" }
      end)
      secret("a call's api_key", function() return rig.client(s):request { path = "/", api_key = key } end)
      refused(s, "user_agent", function()
        return rig.client(s, { user_agent = text }):request { path = "/" }
      end)
      refused(s, "request_id_prefix", function()
        return rig.client(s, { request_id_prefix = text }):request { path = "/" }
      end)
      refused(s, "request_id_header", function()
        return rig.client(s, { request_id_header = text }):request { path = "/" }
      end)
    end
  end)

  it("by a method or a path is refused", function()
    local s = server()
    local c = rig.client(s)
    for _, text in ipairs(breaks) do
      refused(s, "method", function() return c:request { method = "GET" .. text, path = "/" } end)
      refused(s, "path", function() return c:request { method = "GET", path = "/" .. text } end)
    end
    refused(s, "a path with a space", function() return c:request { method = "GET", path = "/a b" } end)
  end)

  it("by a path reaches no other server", function()
    local s, other = server(), server()
    local c = rig.client(s)
    local port = other.url:match "%d+$"
    for _, path in ipairs { "@127.0.0.1:" .. port .. "/x", "//127.0.0.1:" .. port .. "/x", other.url,
      ":" .. port .. "/x", "/../../x", "\\\\127.0.0.1:" .. port, ".evil/x", "/x#@127.0.0.1:" .. port } do
      pcall(c.request, c, { method = "GET", path = path }) -- some are refused
    end
    assert.equal(0, #other.log)
  end)

  it("by another scheme is refused", function()
    for _, url in ipairs { "ftp://localhost", "file:///etc/passwd", "gopher://localhost",
      "dict://localhost:1/d", "javascript:alert(1)", "localhost:80", "http:/localhost", "http://", "" } do
      local ok, err = pcall(moonpool.client, { base_url = url })
      assert.is_false(ok, url)
      assert.matches("base_url", err)
    end
    local ok, err = pcall(moonpool.client, { base_url = "http://me:canary@localhost" })
    assert.is_false(ok)
    assert.is_nil(err:find("canary", 1, true))
  end)
end)
