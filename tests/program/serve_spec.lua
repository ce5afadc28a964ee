-- `moonpool serve` from outside: what a script may return, and how it ends.

local moonpool = require "moonpool"
local program = require "program_rig"
local rig = require "client_rig"

local function script(text)
  return program.write("script.lua", text)
end

local function start(text, args)
  return program.start(("serve --listen 127.0.0.1:0 %s %s"):format(script(text), args or ""))
end

local function client_of(url)
  return rig.client(url, { retry = false })
end

setup(program.set_up)
teardown(program.tear_down)
after_each(rig.close_all)

local slow = [[
local served = 0
return function(req)
  print("got " .. req.path)
  io.stdout:flush()
  if req.path == "/slow" then
    moonpool.sleep(0.3)
  elseif req.path == "/stuck" then
    moonpool.sleep(60)
  elseif req.path == "/busy" then
    local stop = moonpool.now() + 0.3
    while moonpool.now() < stop do end
  end
  served = served + 1
  return { json = { served = served } }
end
]]

-- Sends the request and, once the server has it, calls meanwhile(); the reply.
local function request_and(server, client, path, meanwhile)
  local reply, err
  moonpool.scope(function(scope)
    scope:spawn(function() reply, err = client:request { path = path } end)
    assert.equal("got " .. path, server:line())
    meanwhile()
  end)
  return reply, err
end

describe("moonpool serve", function()
  it("serves what the script returns: a function, a table, or its own server", function()
    for _, text in ipairs {
      'local word = ... return function(req) return { json = { word = word, path = req.path } } end',
      [[local function handler(req) return { json = { word = arg[1], path = req.path } } end
      return { handler = handler, max_body = 5 }]],
      [[moonpool.serve { listen = "127.0.0.1:1", handler = function(req)
        return { json = { word = arg[1], path = req.path } } end }]],
      [[local server = require "moonpool".serve { handler = function(req)
        return { json = { word = arg[1], path = req.path } } end }
      server:wait()]],
    } do
      local server <close> = start(text, "hello")
      local client = client_of(server:url())
      assert.same({ word = "hello", path = "/x" }, assert(client:request { path = "/x" }).data)
      server:signal "TERM"
      local _, err, rc = server:wait()
      assert.equal(0, rc, err)
      assert.equal("", err)
    end
  end)

  it("starts as many servers as the script asks for", function()
    local server <close> = start [[
      moonpool.serve { handler = function() return "one" end }
      moonpool.serve { listen = "127.0.0.1:0", handler = function() return "two" end }]]
    assert.equal("one", client_of(server:url()):request({ path = "/" }).data)
    assert.equal("two", client_of(server:url()):request({ path = "/" }).data)
    server:signal "INT"
    assert.equal(0, (select(3, server:wait())))
  end)

  it("lets requests under way finish when it is told to end", function()
    for _, name in ipairs { "TERM", "INT" } do
      for _, path in ipairs { "/slow", "/busy" } do -- waiting, or in the middle of Lua
        local server <close> = start(slow)
        local url = server:url()
        local reply, err = request_and(server, client_of(url), path, function() server:signal(name) end)
        assert.is_nil(err)
        assert.equal(1, reply.data.served)
        local _, why = client_of(url):request { path = "/" }
        assert.equal("connect", why.kind)
        local _, text, rc = server:wait()
        assert.equal(0, rc, text)
      end
    end
  end)

  it("waits no longer than the grace period", function()
    local server <close> = start(slow, "--grace 0.05")
    local client = client_of(server:url())
    local reply, err = request_and(server, client, "/stuck", function() server:signal "TERM" end)
    assert.is_nil(reply)
    assert.truthy(err)
    assert.equal(0, (select(3, server:wait())))
  end)

  it("ends at once on a second signal", function()
    local server <close> = start(slow, "--grace 60")
    local url = server:url()
    request_and(server, client_of(url), "/stuck", function()
      server:signal "TERM"
      rig.until_true("it listens no more", function()
        local _, err = client_of(url):request { path = "/" }
        return err and err.kind == "connect"
      end)
      server:signal "TERM"
    end)
    assert.equal(143, (select(3, server:wait())))
  end)

  it("listens where the script says, unless told otherwise", function()
    local path = program.dir .. "/socket"
    local text = ('return { listen = "unix:%s", handler = function() return "x" end }'):format(path)
    local server <close> = program.start("serve " .. script(text))
    assert.equal("unix:" .. path, server:url())
    assert.equal("x", client_of("unix:" .. path):request({ path = "/" }).data)
    local other <close> = start(text)
    assert.matches("^http://127%.0%.0%.1:%d+$", other:url())
  end)

  it("says what is wrong with the script, where it is", function()
    for text, message in pairs {
      ["return 5"] = "must return its handler",
      ["local a ="] = "script.lua:1: unexpected symbol",
      ["local a = nil + 1"] = "script.lua:1: attempt to perform arithmetic",
      ["return { handlr = print }"] = "serve: unknown option 'handlr' (did you mean 'handler'?)",
      ["\nmoonpool.serve { handler = 5 }"] = "script.lua:2: serve: handler: function expected",
      ["return { handler = print, max_body = -1 }"] = "max_body",
    } do
      local out, err, rc = program.run("serve --listen 127.0.0.1:0 " .. script(text))
      assert.equal(1, rc, text)
      assert.equal("", out)
      assert.truthy(err:find(message, 1, true), err)
    end
    local _, err, rc = program.run "serve /nonexistent.lua"
    assert.equal(1, rc)
    assert.matches("cannot open /nonexistent.lua", err)
    assert.equal(2, (select(3, program.run "serve")))
    assert.equal(2, (select(3, program.run("serve --grace soon " .. script(slow)))))
  end)
end)
