-- `moonpool mock` and `moonpool serve` as a user starts them.

local moonpool = require "moonpool"
local binary = assert(os.getenv "MOONPOOL", "run by scripts/test")

-- Starts the command; an object with its url, which ends the command by SIGTERM when closed.
local function start(command)
  local pipe = assert(io.popen(("echo $$; exec '%s' %s"):format(binary, command)))
  local pid = assert(pipe:read "l")
  local started = { url = (pipe:read "l" or "nothing"):match "^listening on (.+)$" }
  function started.stop()
    if pipe then
      os.execute("kill -TERM " .. pid)
      pipe:close()
      pipe = nil
    end
  end
  return setmetatable(started, { __close = started.stop })
end

local function output(command)
  local pipe = assert(io.popen(("'%s' %s 2>&1; echo \" status $?\""):format(binary, command)))
  local text = pipe:read "a"
  pipe:close()
  return text
end

local function temporary(text)
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
  return path
end

describe("moonpool mock", function()
  it("says where it listens, answers, and ends on a signal", function()
    local mock <close> = start "mock --port 0 --dim 8 --model little"
    assert.matches("^http://127%.0%.0%.1:%d+$", mock.url)
    do
      local client <close> = moonpool.client { base_url = mock.url }
      local res = assert(client:embed { input = { "a", "b" }, model = "m" })
      assert.equal(8, #res[1])
      assert.equal("little", client:request({ path = "/info" }).data.model_id)
    end
    mock.stop()
    local client <close> = moonpool.client { base_url = mock.url, retry = false }
    local _, err = client:request { path = "/health" }
    assert.equal("connect", err.kind)
  end)

  it("takes its faults from the command line", function()
    local mock <close> = start("mock --port 0 --error 429:1:retry-after-ms=1 --latency lognormal:1ms,0.2 "
      .. "--slow 0.5:1ms --chunk 1 --shuffle --seed 7")
    local client <close> = moonpool.client { base_url = mock.url, retry = false }
    local _, err = client:request { method = "POST", path = "/embed", json = { inputs = "a" } }
    assert.equal(429, err.status)
  end)

  it("refuses wrong options with status 2", function()
    for _, wrong in ipairs { "--latency soon", "--port x", "--error 429", "--no-such-thing", "--dim 0" } do
      assert.matches(" status 2\n$", output("mock --port 0 " .. wrong))
    end
    assert.matches("latency", output "mock --port 0 --latency soon", 1, true)
  end)

  it("says that its port is taken, with status 1", function()
    local mock <close> = start "mock --port 0"
    local text = output("mock --port " .. mock.url:match "%d+$")
    assert.matches("address already in use", text, 1, true)
    assert.matches(" status 1\n$", text)
  end)

  it("has help", function()
    local text = output "mock --help"
    for _, word in ipairs { "--latency", "--error", "--quota", " status 0" } do
      assert.truthy(text:find(word, 1, true), word)
    end
  end)
end)

describe("moonpool serve", function()
  it("answers by a script, on a port or a unix socket", function()
    local script = temporary [[
      local word = ...
      return function(req) return { json = { word = word, path = req.path } } end
    ]]
    local dir = io.popen "mktemp -d":read "l"
    for _, where in ipairs { "127.0.0.1:0", "unix:" .. dir .. "/s" } do
      local server <close> = start(("serve --listen %s %s hello"):format(where, script))
      local client <close> = moonpool.client { base_url = server.url }
      assert.same({ word = "hello", path = "/x" }, client:request({ path = "/x" }).data)
    end
    os.remove(script)
    assert.is_true(os.remove(dir)) -- the socket file is gone
  end)

  it("needs a handler", function()
    local script = temporary "return 5"
    assert.matches("return its handler", output("serve " .. script), 1, true)
    os.remove(script)
    assert.matches(" status 1\n$", output "serve /no/such/script.lua")
  end)
end)
