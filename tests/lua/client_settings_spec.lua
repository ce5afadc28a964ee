-- Settings as people really have them: empty variables, keys pasted with what clung to them, keys in
-- the wrong place; headers and paths that would reach past the request.
local moonpool = require "moonpool"
local core = require "moonpool.core"
local errors = require "moonpool.provider.errors"
local options = require "moonpool.options"
local rig = require "client_rig"

local KEY = "sk-test-0123456789abcdef"

local function raised(f, ...)
  local ok, why = pcall(f, ...)
  assert.is_false(ok)
  return tostring(why)
end

describe("settings", function()
  after_each(rig.close_all)

  local function sent_key(key)
    local server = rig.serve(function() return { json = {} } end)
    assert(rig.client(server, { api_key = key }):request { path = "/" })
    return server.log[1].headers.authorization
  end

  it("trim what stands around a key", function()
    for _, key in ipairs { " " .. KEY, KEY .. " ", KEY .. "\r\n", "\t" .. KEY } do
      assert.equal("Bearer " .. KEY, sent_key(key))
      assert.equal("Bearer " .. KEY, sent_key(function() return key end))
    end
    assert.is_nil(sent_key " \n")
  end)

  it("refuse a key that was pasted wrongly, in words about the key, and do not repeat it", function()
    for key, word in pairs {
      ["sk-te st-0123456789"] = "space", ["sk\u{2013}test-0123456789"] = "dash",
      ["sk-t\u{e9}st-0123456789"] = "ASCII", ["sk-test\n0123456789"] = "line break",
      ["sk-test-\u{200b}0123456789"] = "ASCII",
    } do
      local why = raised(moonpool.client, { base_url = "http://127.0.0.1:9", api_key = key })
      assert.matches("api_key: the key holds", why, 1, true)
      assert.matches(word, why, 1, true)
      assert.is_nil(why:find("0123456789", 1, true))
    end
  end)

  it("never repeat a key that stands in the wrong option", function()
    for _, wrong in ipairs {
      { base_url = KEY }, { provider = KEY }, { base_url = "http://127.0.0.1:9", preset = KEY },
      { base_url = "http://127.0.0.1:9", [KEY] = true },
      { base_url = "http://127.0.0.1:9", headers = { ["X " .. KEY] = "1" } },
    } do
      assert.is_nil(raised(moonpool.client, wrong):find("0123456789", 1, true))
    end
    assert.equal("no 'part-00012-of-00100' nor 'text-embedding-3-small'",
      options.masked "no 'part-00012-of-00100' nor 'text-embedding-3-small'")
  end)

  it("take a key out of a reply in every form a server may give it back", function()
    local key = "sk-a/b+c0123456789=="
    local function gone(text)
      local err = { message = text, body = text }
      errors.redact(err, { key })
      assert.is_nil(err.message:find("0123456789", 1, true), err.message)
      return err.message
    end
    gone("Incorrect API key provided: " .. key)
    gone "key=sk-a%2Fb%2Bc0123456789%3D%3D&x=1"
    gone "key=sk-a%2fb%2bc0123456789%3d%3d&x=1"
    gone [[{"key": "sk-a\/b+c0123456789=="}]]
    -- base64 of the key, of "user:key" and of "me:key"
    for _, text in ipairs {
      "c2stYS9iK2MwMTIzNDU2Nzg5PT0=", "dXNlcjpzay1hL2IrYzAxMjM0NTY3ODk9PQ==",
      "bWU6c2stYS9iK2MwMTIzNDU2Nzg5PT0=",
    } do
      assert.is_nil(gone("Basic " .. text):find("MTIzNDU2Nzg5", 1, true))
    end
  end)

  it("make a server's words harmless", function()
    local server = rig.serve(function()
      return { status = 400, headers = { ["content-type"] = "text/plain" },
        body = "caf\u{e9} \u{9b}31m \u{202e}txt \xff\xfe end" }
    end)
    local res = rig.client(server):batch_post { path = "/", payloads = { {} } }
    local message = res.errors[1].error.message
    assert.is_truthy(utf8.len(message))
    assert.matches("HTTP 400: caf\u{e9}  31m  txt ?? end", message, 1, true)
  end)

  it("refuse headers that say where a message ends or what a connection is for", function()
    local server = rig.serve(function() return { json = {} } end)
    local client = rig.client(server)
    for _, name in ipairs {
      "Content-Length", "transfer-encoding", "Connection", "TE", "Trailer", "Upgrade", "Keep-Alive",
    } do
      assert.matches("transport's to set", raised(moonpool.client,
        { base_url = server.url, headers = { [name] = "1" } }), 1, true)
      assert.matches("transport's to set", raised(client.request, client,
        { path = "/", json = {}, headers = { [name] = "1" } }), 1, true)
    end
    assert.equal(0, #server.log)
  end)

  it("keep a path below the endpoint's prefix", function()
    local server = rig.serve(function() return { json = {} } end)
    local client = rig.keep(moonpool.client { base_url = server.url .. "/tenant/7", retry = false })
    for _, path in ipairs {
      "/../8/x", "/a/../../8", "/%2e%2e/8", "/.%2E/8", "/a/./../../8", "..",
    } do
      local ok, why = pcall(client.request, client, { path = path, json = {} })
      assert.matches("leads out of base_url", tostring(ok and select(2, client:request {
        path = path, json = {} }) or why), 1, true)
    end
    assert.equal(0, #server.log)
    for path, asked in pairs {
      ["/a/../b"] = "/tenant/7/b", ["/a..b/...x"] = "/tenant/7/a..b/...x", ["/q?x=/../.."] = "/tenant/7/q",
    } do
      assert(client:request { path = path, json = {} })
      assert.equal(asked, server.log[#server.log].path)
    end
  end)

  it("take an empty variable for none", function()
    assert.is_nil(options.env "MOONPOOL_NO_SUCH_VARIABLE")
    assert.equal(core.getenv "PATH", options.env "PATH")
  end)
end)
