-- Compressed replies: what is offered, what is decoded, and that what is decoded has a bound.

local json = require("moonpool").json
local programs = require "support.programs"
local rig = require "client_rig"

local dir

-- A server that sends these bytes under this content-encoding; .offered is what the client takes.
local function server(bytes, encoding)
  local self
  self = rig.serve(function(seen)
    self.offered = seen.headers["accept-encoding"]
    return { headers = { ["content-type"] = "application/json", ["content-encoding"] = encoding },
      body = type(bytes) == "function" and bytes(seen) or bytes }
  end)
  return self
end

local function packed(text, command)
  local path = dir .. "/plain"
  programs.write(path, text)
  local pipe = assert(io.popen(command .. " < " .. path, "r"))
  local bytes = pipe:read "a"
  assert(pipe:close(), command)
  return bytes
end

local function resident()
  return tonumber(programs.read("/proc/self/status"):match "VmHWM:%s+(%d+) kB") / 1024
end

setup(function()
  dir = programs.must("mktemp -d /tmp/moonpool-wire-XXXXXX"):match "^(%S+)"
end)

teardown(function()
  programs.must("rm -rf " .. dir)
end)

programs.describe(_ENV, "gzip zstd", "compressed replies", function()
  after_each(rig.close_all)

  local commands = { gzip = "gzip -c", zstd = "zstd -c -q" }

  for name, command in pairs(commands) do
    it("of " .. name .. " are decoded", function()
      local texts = rig.texts(200)
      local bytes = packed(json.encode(rig.embeddings(texts)), command)
      local s = server(bytes, name)
      local c = rig.client(s)
      assert.is_nil(rig.wrong_row(assert(c:embed { input = texts, batch_size = 200 }), texts))
      assert.matches(name, s.offered)
      local stats = c:stats()
      assert.is_true(stats.bytes_received > #bytes) -- decoded
    end)

    it("of " .. name .. " that end too early or hold rubbish are decode errors", function()
      local bytes = packed(json.encode(rig.embeddings(rig.texts(2000))), command)
      local rubbish = bytes:sub(1, #bytes // 2) .. ("\0\255"):rep(500) .. bytes:sub(#bytes // 2)
      for _, wrong in ipairs { bytes:sub(1, #bytes // 2), rubbish, "this is not compressed at all" } do
        local s = server(wrong, name)
        local res, err = rig.client(s, { retry = { max_attempts = 3, base = 0.001 } })
          :embed { input = rig.texts(2000), batch_size = 2000 }
        assert.is_nil(res)
        assert.equal("decode", err.kind, tostring(err))
      end
    end)

    it("of " .. name .. " that would fill the memory end as too_large", function()
      local pipe = assert(io.popen("head -c 256M /dev/zero | " .. command, "r"))
      local bomb = pipe:read "a"
      pipe:close()
      assert.is_true(#bomb < 300000)
      local before = resident()
      local s = server(bomb, name)
      local c = rig.client(s)
      local res, err = c:request { method = "GET", path = "/" }
      assert.is_nil(res)
      assert.equal("too_large", err.kind)
      assert.equal(1, err.attempts)
      assert.equal(0, c:stats().retries)
      assert.matches("max_response_bytes", err.message)
      assert.is_true(#err.body <= 16384)
      -- The bound is 64 MiB of one reply, in a buffer that grows by doubling.
      local grown = resident() - before
      assert.is_true(grown < 130 * (os.getenv "MOONPOOL_SANITIZED" and 3 or 1), "grew by " .. grown .. " MiB")
    end)
  end

  it("are not asked for when switched off, and not decoded", function()
    local s = server(packed('{"ok":true}', "gzip -c"), "gzip")
    local c = rig.client(s, { accept_encoding = false, retry = false })
    local _, err = c:request { method = "GET", path = "/" }
    assert.is_nil(s.offered)
    assert.equal("decode", err.kind)
  end)

  it("are asked for as told", function()
    local s = server(packed('{"ok":true}', "gzip -c"), "gzip")
    local res = assert(rig.client(s, { accept_encoding = "gzip" }):request { method = "GET", path = "/" })
    assert.is_true(res.data.ok)
    assert.equal("gzip", s.offered)
  end)

  it("of an encoding that nobody knows are decode errors", function()
    local _, err = rig.client(server("{}", "rot13"), { retry = false }):request { method = "GET", path = "/" }
    assert.equal("decode", err.kind)
  end)
end)

programs.describe(_ENV, "nginx", "nginx", function()
  after_each(rig.close_all)

  it("compresses, and the vectors are right", function()
    local up = rig.embedder(function(seen) return not seen.body and { json = {} } or nil end)
    local front = programs.nginx([[ server { listen 127.0.0.1:$port; gzip on; gzip_types *; gzip_min_length 1;
      gzip_proxied any; location / { proxy_pass http://127.0.0.1:$up; } } ]], { up = up.port })
    local texts = rig.texts(500)
    local c = rig.client(front.url)
    local res = assert(c:embed { input = texts, batch_size = 100 })
    assert.is_nil(rig.wrong_row(res, texts))
    assert.equal("gzip", res.requests[1].headers["content-encoding"])
  end)
end)
