-- `moonpool serve --restricted`: what a hostile script gets, which is nothing, and what others notice.

local program = require "program_rig"
local rig = require "client_rig"

setup(program.set_up)
teardown(program.tear_down)
after_each(rig.close_all)

local hostile = [==[
local tests = {}
function tests.fine() return "fine" end
function tests.globals()
  local found = {}
  for _, name in ipairs { "io", "debug", "dofile", "loadfile", "package", "collect" } do
    if _G[name] ~= nil then found[#found + 1] = name end
  end
  for _, name in ipairs { "execute", "getenv", "remove", "rename", "exit", "tmpname", "setlocale" } do
    if os[name] ~= nil then found[#found + 1] = "os." .. name end
  end
  for _, name in ipairs { "jsonl", "job", "serve", "mock", "exit", "simulate", "provider", "policy" } do
    if moonpool[name] ~= nil then found[#found + 1] = "moonpool." .. name end
  end
  if string.dump or ("").dump or moonpool.matrix.load_npy then found[#found + 1] = "dump" end
  return table.concat(found, " ")
end
function tests.require()
  return tostring(pcall(require, "moonpool.core")) .. tostring(pcall(require, "os"))
    .. tostring(require "moonpool" == moonpool)
end
function tests.bytecode() return tostring(load("\27Lua")) .. tostring(load("\27Lua", "x", "b")) end
function tests.metatables()
  local found = {}
  for _, v in ipairs { "", moonpool.cancel_token(), moonpool.client "http://127.0.0.1:1" } do
    if type(getmetatable(v)) == "table" then found[#found + 1] = type(v) end
  end
  return table.concat(found, " ") .. tostring(pcall(setmetatable, {}, { __gc = function() end }))
end
function tests.files()
  local out = {}
  for i, o in ipairs {
    { tls = { ca_file = "/etc/hostname" } }, { api_key = { file = "/etc/hostname" } },
    { api_key = { env = "PATH" } }, { verify_ssl = "/etc/hostname" }, { proxy = { http = "http://x" } },
    { endpoints = { { base_url = "http://x", api_key = { env = "PATH" } } } },
    { base_url = "unix:/tmp/x" },
  } do
    o.base_url = o.base_url or "http://x"
    if o.endpoints then o.base_url = nil end
    out[i] = tostring((pcall(moonpool.client, o)))
  end
  return table.concat(out, " ")
end
function tests.loop() while true do end end
function tests.stubborn() while true do pcall(function() while true do end end) end end
function tests.coroutine() coroutine.wrap(function() while true do end end)() end
function tests.handler() xpcall(function() while true do end end, function() while true do end end) end
function tests.spawned() moonpool.scope(function(s) s:spawn(function() while true do end end) end) end
function tests.memory() local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(1000) .. i end end
function tests.rep() return ("x"):rep(1e9) end
function tests.pattern() return tostring((("a"):rep(3000)):find(".-.-.-.-.-b")) end
function tests.move() table.move({}, 1, 1e15, 2) end
function tests.reply() return setmetatable({}, { __index = function() while true do end end }) end
function tests.json() return { json = setmetatable({}, { __pairs = function() while true do end end }) } end
function tests.error() error(setmetatable({}, { __tostring = function() while true do end end })) end
function tests.stream() return { stream = function() while true do end end } end
function tests.sleep() moonpool.sleep(1000) end
local function reach(url)
  local client <close> = moonpool.client { base_url = url, retry = false }
  local row, err = client:request { method = "GET", path = "/" }
  return row and "reached" or err.kind .. ": " .. err.message
end
function tests.loopback() return reach "http://127.0.0.1:DENIED" end
function tests.name() return reach "http://localhost:DENIED" end
function tests.mapped() return reach "http://[::ffff:127.0.0.1]:DENIED" end
function tests.private() return reach "http://10.1.2.3:80" end
function tests.metadata() return reach "http://169.254.169.254" end
function tests.allowed() return reach "http://127.0.0.1:ALLOWED" end
function tests.redirected() return reach "http://127.0.0.1:ALLOWED/redirect" end
function tests.key()
  local client <close> = moonpool.client { base_url = "http://127.0.0.1:ALLOWED", retry = false }
  return client:request({ method = "GET", path = "/key" }).data.authorization or "none"
end
return function(req) return tests[req.path:sub(2)]() end
]==]

describe("moonpool serve --restricted", function()
  local denied, allowed, server, ask

  before_each(function()
    denied = rig.serve(function() return { json = { secret = 1 } } end)
    allowed = rig.serve(function(seen)
      if seen.path == "/redirect/" then
        return { status = 302, headers = { location = denied.url .. "/" }, body = "" }
      end
      return { json = { authorization = seen.headers.authorization } }
    end)
    local text = hostile:gsub("DENIED", denied.port):gsub("ALLOWED", allowed.port)
    server = program.start(("serve --restricted --listen 127.0.0.1:0 --memory 32M --handler-time 0.1 "
      .. "--handler-wall 1 --allow 127.0.0.1:%d %s"):format(allowed.port, program.write("evil.lua", text)))
    local client = rig.client(server:url(), { retry = false })
    ask = function(name)
      local row, err = client:request { method = "GET", path = "/" .. name }
      return row and row.status or err.status, row and row.data
    end
  end)

  after_each(function() server:__close() end)

  it("gives no file, no process, no environment, no bytecode and no library behind the library", function()
    for name, wanted in pairs {
      fine = "fine", globals = "", require = "falsefalsetrue", bytecode = "nilnil", metatables = "false",
      files = "false false false false false false false", key = "none",
    } do
      local status, said = ask(name)
      assert.equal(200, status, name)
      assert.equal(wanted, said or "", name)
    end
  end)

  it("ends what takes too long or too much, and goes on", function()
    for _, name in ipairs {
      "loop", "stubborn", "coroutine", "handler", "spawned", "memory", "rep", "pattern", "move", "error",
      "sleep",
    } do
      assert.equal(500, (ask(name)), name)
      assert.same({ 200, "fine" }, { ask "fine" }, name)
    end
    for _, name in ipairs { "reply", "stream", "json" } do
      ask(name)
    end
    assert.same({ 200, "fine" }, { ask "fine" })
  end)

  it("connects to no loopback or private address but those allowed, whatever it is called", function()
    for _, name in ipairs { "loopback", "name", "mapped", "private", "metadata" } do
      local status, said = ask(name)
      assert.equal(200, status, name)
      assert.matches("may not be connected to", said, name)
    end
    assert.matches("not followed", select(2, ask "redirected"))
    assert.same({ 200, "reached" }, { ask "allowed" })
    assert.equal(0, #denied.log)
  end)
end)
