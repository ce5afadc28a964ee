-- Servers on unix-domain sockets: ours, as a program and in this process, and nginx.

local moonpool = require "moonpool"
local programs = require "support.programs"
local rig = require "client_rig"

local function path()
  return programs.directory() .. "/socket"
end

local function started(command, where)
  local dir = programs.directory()
  local self = programs.start(("'%s' %s"):format(os.getenv "MOONPOOL", command), dir)
  rig.until_true("it listens", function() return programs.read(self.log):find "listening on [^\n]+\n" end)
  assert.equal("listening on unix:" .. where .. "\n", programs.read(self.log))
  return self
end

describe("a unix-domain socket", function()
  after_each(rig.close_all)

  it("carries requests to moonpool mock", function()
    local where = path()
    local mock = started(("mock --dim 8 --listen unix:%s"):format(where), where)
    local c = rig.client("unix:" .. where)
    local res = assert(c:embed { input = { "a", "b", "c" }, model = "m", batch_size = 1 })
    assert.equal(3, #res)
    assert.equal(8, #res[1])
    local pool = c:stats().pool
    assert.equal(0, pool.ports_in_use)
    assert.is_true(pool.open >= 1)
    mock:close()
    assert.is_nil(io.open(where, "r")) -- its file goes with it
  end)

  it("carries requests to moonpool serve", function()
    local where, script = path(), programs.directory() .. "/handler.lua"
    programs.write(script,
      [[return function(req) return { json = { path = req.path, host = req.headers.host } } end]])
    started(("serve %s --listen unix:%s"):format(script, where), where)
    -- With and without the slashes of a URL, and with a prefix of the path.
    assert.equal("/x", assert(rig.client("unix:" .. where):request { path = "/x" }).data.path)
    assert.equal("/x", assert(rig.client("unix://" .. where):request { path = "/x" }).data.path)
    local res = assert(rig.client("unix:" .. where .. ":/v1"):request { path = "/x" })
    assert.equal("/v1/x", res.data.path)
    assert.equal("localhost", res.data.host)
  end)

  it("carries many at once, and never goes through a proxy", function()
    local where = path()
    local server = rig.keep(assert(moonpool.serve { listen = "unix:" .. where, handler = function(req)
      moonpool.sleep(0.01)
      return { json = { n = req:json().n } }
    end }))
    assert.equal("unix:" .. where, server.url)
    local c = rig.client(server.url, { proxy = rig.dead_url(), pool = { max_connections = 8 } })
    local payloads = {}
    for i = 1, 50 do payloads[i] = { n = i } end
    local res = assert(c:batch_post { path = "/", payloads = payloads })
    for i = 1, 50 do
      assert.equal(i, res[i].data.n)
    end
    assert.equal(8, server:stats().connections_opened)
  end)

  it("that nobody listens on is a connect error that names it", function()
    local where = path()
    local _, err = rig.client("unix:" .. where, { retry = false }):request { path = "/" }
    assert.equal("connect", err.kind)
    assert.truthy(tostring(err):find(where, 1, true), tostring(err))
  end)

  it("must be an absolute path that fits", function()
    for _, url in ipairs { "unix:relative", "unix:", "unix:/" .. ("x"):rep(107) } do
      local ok, err = pcall(moonpool.client, { base_url = url })
      assert.is_false(ok, url)
      assert.matches("base_url", err)
    end
  end)
end)

programs.describe(_ENV, "nginx", "a unix-domain socket of nginx", function()
  after_each(rig.close_all)

  it("carries requests over connections that are kept", function()
    local where = path()
    programs.nginx([[ server { listen unix:$socket; location / { default_type application/json;
      return 200 '{"connection":$connection}'; } } ]], { socket = where })
    local c, seen = rig.client("unix:" .. where), nil
    for _ = 1, 5 do
      local res = assert(c:request { path = "/" })
      assert.equal(seen or res.data.connection, res.data.connection)
      seen = res.data.connection
    end
    assert.equal(1, c:stats().pool.opened)
    assert.equal(4, c:stats().pool.reused)
  end)
end)
