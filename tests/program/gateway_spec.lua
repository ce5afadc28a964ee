-- `moonpool gateway` from outside: options, signals, unix sockets, and what hostile clients get.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local program = require "program_rig"
local rig = require "client_rig"

setup(program.set_up)
teardown(program.tear_down)
after_each(rig.close_all)

local function ask(url, more)
  local client <close> = moonpool.client { base_url = url, preset = "none" }
  local o = { path = "/v1/embeddings", json = { model = "m", input = "1" } }
  for k, v in pairs(more or {}) do o[k] = v end
  return client:request(o)
end

describe("moonpool gateway", function()
  it("serves one upstream from its options, also on a unix socket", function()
    local up = rig.embedder()
    local gateway <close> = program.start(
      ("gateway --url %s --listen 127.0.0.1:0 --max-batch 1"):format(up.url))
    local row = assert(ask((gateway:url())))
    assert.same(rig.vector "1", row.data.data[1].embedding)
    local path = program.dir .. "/gw.sock"
    local other <close> = program.start(("gateway --url %s --listen unix:%s"):format(up.url, path))
    assert.equal("unix:" .. path, other:url())
    row = assert(ask("unix:" .. path))
    assert.same(rig.vector "1", row.data.data[1].embedding)
  end)

  it("reads its configuration again at SIGHUP and loses no request", function()
    local first, second = rig.embedder(), rig.embedder()
    local function write(up)
      return program.write("gateway.lua", ("return { upstreams = { a = { base_url = %q } } }"):format(up.url))
    end
    local path = write(first)
    local gateway <close> = program.start("gateway --listen 127.0.0.1:0 " .. path)
    local url = gateway:url()
    local client = rig.client(url, { preset = "none" })
    local asked, failed, stop = 0, 0, false
    moonpool.scope(function(scope)
      for _ = 1, 4 do
        scope:spawn(function()
          while not stop do
            local row = client:request { path = "/v1/embeddings", json = { model = "m", input = "1" } }
            asked = asked + 1
            if not row then failed = failed + 1 end
          end
        end)
      end
      rig.until_true("requests flow", function() return asked > 20 end)
      write(second)
      gateway:signal "HUP"
      rig.until_true("the new one is asked", function() return #second.log > 20 end)
      program.write("gateway.lua", "return { upstreams = {} }")
      gateway:signal "HUP"
      local n = #second.log
      rig.until_true("a wrong one changes nothing", function() return #second.log > n + 20 end)
      stop = true
    end)
    assert.equal(0, failed)
    gateway:signal "TERM"
    local _, err, code = gateway:wait()
    assert.equal(0, code)
    assert.matches("read again", err)
    assert.matches("configuration kept: .*upstreams", err)
  end)

  it("ends with grace: what is under way is answered", function()
    local gate = moonpool.semaphore(1)
    gate:acquire()
    local up = rig.embedder(function() gate:acquire() end)
    local gateway <close> = program.start(("gateway --url %s --listen 127.0.0.1:0"):format(up.url))
    local url = gateway:url()
    local row
    moonpool.scope(function(scope)
      scope:spawn(function() row = ask(url) end)
      rig.until_true("the service has it", function() return #up.log == 1 end)
      gateway:signal "TERM"
      rig.until_true("no new connection is taken", function()
        return not ask(url, { path = "/v1/rerank" })
      end)
      gate:release()
    end)
    assert.same(rig.vector "1", row.data.data[1].embedding)
    assert.equal(0, select(3, gateway:wait()))
  end)

  it("says what is wrong with its options", function()
    local _, err, code = program.run "gateway --slots 0"
    assert.equal(2, code)
    assert.matches("slots", err)
    local path = program.write("bad.lua",
      "return { upstreams = { a = { base_url = 'http://x' } }, keyz = 1 }")
    _, err, code = program.run("gateway " .. path)
    assert.equal(1, code)
    assert.matches("keyz", err)
    _, err, code = program.run("gateway --url http://x " .. path)
    assert.equal(2, code)
    assert.matches("%-%-url", err)
  end)

  it("stays bounded against clients that mean harm", function()
    local up = rig.embedder()
    local path = program.write("small.lua", ([[return {
      upstreams = { a = { base_url = %q } }, max_body = 100000, max_connections = 50, header_timeout = 0.3,
      body_timeout = 0.3, total_body_timeout = 1,
    }]]):format(up.url))
    local gateway <close> = program.start("gateway --listen 127.0.0.1:0 " .. path)
    local url = gateway:url()
    local port = url:match ":(%d+)$"
    -- Sends it and gives the first line of what comes back.
    local function raw(what)
      local pipe = assert(io.popen(([[perl -MIO::Socket::INET -e '
        my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:%s") or die; $SIG{PIPE} = "IGNORE";
        $s->autoflush(1); print $s %s; my $l = <$s>; print $l // "nothing"']]):format(port, what)))
      local reader <close> = core.open_lines(pipe, 1 << 20)
      local line = reader:read()
      pipe:close()
      return line or ""
    end
    local head = [["POST /v1/embeddings HTTP/1.1\r\nHost: a\r\n]]
    assert.matches("413", raw(head .. [[Content-Length: 10737418240\r\n\r\n"]]))
    assert.matches("400", raw(head .. [[Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"]]))
    assert.matches("400", raw(head .. [[Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"]]))
    assert.matches("400", raw [["\x16\x03\x01rubbish" x 100, "\r\n\r\n"]])
    assert.matches("408", raw [["POST /v1/embeddings HTTP/1.1\r\nHost"]])
    assert.matches("408", raw(head .. [[Content-Length: 99\r\n\r\n{"]]))
    for _ = 1, 3 do assert(ask(url)) end
    assert.equal(3, #up.log)
  end)
end)
