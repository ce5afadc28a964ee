-- moonpool.serve over real sockets, with the library's own client in the same loop.

local moonpool = require "moonpool"
local core = require "moonpool.core"

local function quiet() end

-- Runs fn(client, server) against a server with this handler.
local function with_server(handler, fn, opts)
  opts = opts or {}
  opts.handler, opts.listen = handler, opts.listen or "127.0.0.1:0"
  opts.on_error = opts.on_error or quiet
  local server <close> = assert(moonpool.serve(opts))
  local client <close> = moonpool.client { base_url = server.url, retry = false }
  fn(client, server)
end

local function get(client, path, opts)
  opts = opts or {}
  opts.method, opts.path = opts.method or "GET", path or "/"
  return client:request(opts)
end

-- Waits, by letting the loop turn, until the condition holds; the count guards a hang.
local function eventually(condition)
  for _ = 1, 20000 do
    if condition() then
      return
    end
    core.sleep(0.001)
  end
  error("it never happened", 2)
end

describe("serve: replies", function()
  local replies = {
    ["/text"] = "just text",
    ["/body"] = { body = "bytes", headers = { ["Content-Type"] = "image/png", ["X-N"] = 3 } },
    ["/json"] = { json = { a = { 1, 2 }, b = core.json_null } },
    ["/status"] = { status = 404, json = { error = "no such thing" } },
    ["/empty"] = { status = 204 },
    ["/list"] = { body = "", headers = { ["X-Many"] = { "one", "two" } } },
  }

  it("come as text, body or JSON, with their status and headers", function()
    with_server(function(req) return replies[req.path] end, function(client)
      local r = assert(get(client, "/text"))
      assert.equal("just text", r.data)
      assert.equal("text/plain; charset=utf-8", r.headers["content-type"])
      r = assert(get(client, "/body"))
      assert.equal("bytes", r.data)
      assert.equal("image/png", r.headers["content-type"])
      assert.equal("3", r.headers["x-n"])
      r = assert(get(client, "/json"))
      assert.same({ a = { 1, 2 }, b = core.json_null }, r.data)
      assert.equal("application/json", r.headers["content-type"])
      assert.equal(204, assert(get(client, "/empty")).status)
      assert.equal(200, assert(get(client, "/list")).status)
      local none, err = get(client, "/status")
      assert.is_nil(none)
      assert.equal(404, err.status)
      assert.matches("no such thing", err.body)
    end)
  end)

  it("may be streamed, and the stream may wait", function()
    local function numbers(n, wait)
      local i = 0
      return function()
        i = i + 1
        if i <= n then
          moonpool.sleep(wait)
          return i .. "\n"
        end
      end
    end
    with_server(function(req)
      return { stream = numbers(5, req.path == "/slow" and 0.001 or 0) }
    end, function(client)
      assert.equal("1\n2\n3\n4\n5\n", assert(get(client, "/fast")).data)
      assert.equal("1\n2\n3\n4\n5\n", assert(get(client, "/slow")).data)
    end)
  end)

  it("wait for a client that is slower than the stream", function()
    local block, sent = ("x"):rep(100000), 0
    with_server(function()
      return { stream = function()
        if sent < 200 then
          sent = sent + 1
          return block
        end
      end }
    end, function(client)
      assert.equal(200 * #block, #assert(get(client)).data)
    end)
  end)

  it("break off visibly when the stream fails", function()
    local seen
    with_server(function()
      local n = 0
      return { stream = function()
        n = n + 1
        return n < 3 and "part" or error "lost the rest"
      end }
    end, function(client)
      local r, err = get(client)
      assert.is_nil(r)
      assert.equal("connect", err.kind)
      assert.matches("lost the rest", tostring(seen))
    end, { on_error = function(_, err) seen = err end })
  end)

  it("become 500 when the handler fails, without telling why", function()
    local seen = {}
    with_server(function(req)
      if req.path == "/raise" then
        error "secret: do not tell"
      elseif req.path == "/table" then
        error { kind = "own" }
      end
      return replies[req.path]
    end, function(client)
      for _, path in ipairs { "/raise", "/table", "/nothing" } do
        local r, err = get(client, path)
        assert.is_nil(r)
        assert.equal(500, err.status)
        assert.is_nil(err.body:find("secret", 1, true))
      end
      assert.equal("just text", get(client, "/text").data)
      assert.equal(3, #seen)
      assert.matches("secret", seen[1])
    end, { on_error = function(_, err) seen[#seen + 1] = err end })
  end)

  it("become 500 when they make no sense", function()
    local bad = {
      { status = 99 }, { status = "x" }, { json = {}, body = "" }, { body = {} }, { stream = "text" },
      { headers = { ["a\nb"] = "c" } }, { headers = { a = "b\r\nset-cookie: evil" } },
      { headers = { a = true } }, { headers = { "x" } }, { json = print }, true, 42,
    }
    with_server(function(req) return bad[tonumber(req.path:sub(2))] end, function(client, server)
      for i = 1, #bad do
        local r, err = get(client, "/" .. i)
        assert.is_nil(r)
        assert.equal(500, err.status, "reply " .. i)
      end
      assert.equal(#bad, server:stats().status_5xx)
    end)
  end)
end)

describe("serve: requests", function()
  it("show their parts", function()
    with_server(function(req)
      req.mine = "kept"
      local ok, err = pcall(function() return req:json() end)
      return { json = {
        method = req.method, path = req.path, query = req.query, body = req.body, x = req.headers["x-a"],
        again = req.headers["x-a"], header = req:header "X-A", none = req:header "x-none" == nil,
        peer = req.peer:match "^127%.0%.0%.1:%d+$" ~= nil, version = req.version, mine = req.mine,
        other = req.other == nil, value = ok and err or nil,
      } }
    end, function(client)
      local r = assert(client:request { method = "POST", path = "/p%20q?a=1&b", json = { n = 1 },
        headers = { ["X-A"] = "Value" } })
      assert.same({
        method = "POST", path = "/p%20q", query = "a=1&b", body = '{"n":1}', x = "Value", again = "Value",
        header = "Value", none = true, peer = true, version = "1.1", mine = "kept", other = true,
        value = { n = 1 },
      }, r.data)
    end)
  end)

  it("tell what is wrong with their JSON", function()
    with_server(function(req)
      local value, err = req:json()
      return { json = { value == nil, err and err.kind } }
    end, function(client)
      assert.same({ true, "decode" }, client:request { method = "POST", body = "{oops" }.data)
    end)
  end)

  it("of any method reach the handler; HEAD gets no body", function()
    with_server(function(req) return { body = req.method } end, function(client)
      for _, method in ipairs { "GET", "PUT", "PATCH", "DELETE", "OPTIONS" } do
        assert.equal(method, get(client, "/", { method = method }).data)
      end
      local r = get(client, "/", { method = "HEAD" })
      assert.equal(200, r.status)
      assert.equal("4", r.headers["content-length"])
    end)
  end)

  it("larger than max_body are refused", function()
    with_server(function(req) return { body = tostring(#req.body) } end, function(client, server)
      assert.equal("1000", client:request { method = "POST", body = ("x"):rep(1000) }.data)
      local _, err = client:request { method = "POST", body = ("x"):rep(1001) }
      assert.equal(413, err.status)
      assert.equal(1, server:stats().malformed)
    end, { max_body = 1000 })
  end)

  it("are over after the reply, and say so", function()
    local kept
    with_server(function(req)
      kept = req
      local _ = req.path
      req.note = "mine"
      return "ok"
    end, function(client)
      get(client)
      assert.equal("mine", kept.note)
      assert.is_nil(kept.body)
      assert.has_error(function() kept:json() end)
    end)
  end)
end)

describe("serve: tasks", function()
  it("handle many waiting requests at once and go away again", function()
    local now, most = 0, 0
    local before = core.task_count()
    with_server(function()
      now = now + 1
      most = math.max(most, now)
      while most < 50 do
        moonpool.sleep(0.001)
      end
      now = now - 1
      return "done"
    end, function(client, server)
      local fns = {}
      for i = 1, 50 do
        fns[i] = function() return get(client).data end
      end
      local results = moonpool.gather(fns)
      for i = 1, 50 do
        assert.equal("done", results[i])
      end
      assert.equal(50, most)
      assert.equal(0, server:stats().in_flight)
    end)
    eventually(function() return core.task_count() <= before end)
  end)

  it("are cancelled when the client leaves, with everything they had open", function()
    local log = {}
    local function closer(name)
      return setmetatable({}, { __close = function() log[#log + 1] = name end })
    end
    with_server(function()
      local outer <close> = closer "outer" -- luacheck: ignore
      moonpool.scope(function(scope)
        scope:spawn(function()
          local inner <close> = closer "inner" -- luacheck: ignore
          moonpool.sleep(60)
        end)
        moonpool.sleep(60)
      end)
    end, function(client, server)
      local r, err = get(client, "/", { timeout = 0.05 })
      assert.is_nil(r)
      assert.equal("read_timeout", err.kind)
      eventually(function() return #log == 2 end)
      assert.same({ "inner", "outer" }, log)
      eventually(function() return server:stats().in_flight == 0 end)
      assert.equal(1, server:stats().disconnects)
    end)
  end)

  it("end when a client leaves in the middle of a stream", function()
    local ended, stop = 0, false
    with_server(function(req)
      if req.path == "/quick" then
        return "quick"
      end
      local guard <close> = setmetatable({}, { __close = function() ended = ended + 1 end }) -- luacheck: ignore
      return { stream = function()
        moonpool.sleep(0.001)
        return not stop and "more" or nil
      end }
    end, function(client, server)
      get(client, "/", { timeout = 0.05 })
      eventually(function() return server:stats().in_flight == 0 end)
      assert.equal(1, server:stats().disconnects)
      assert.equal(1, ended)
      assert.equal("quick", get(client, "/quick").data)
      stop = true
    end)
  end)

  it("may call other servers", function()
    with_server(function() return { json = { from = "inner" } } end, function(_, inner)
      local upstream <close> = moonpool.client { base_url = inner.url }
      with_server(function()
        return { json = upstream:request { path = "/" }.data }
      end, function(client)
        assert.same({ from = "inner" }, get(client).data)
      end)
    end)
  end)
end)

describe("serve: the server", function()
  it("refuses what it does not know", function()
    assert.error_matches(function() moonpool.serve { listen = ":0", handlr = quiet } end, "handler")
    assert.error_matches(function() moonpool.serve { handler = quiet } end, "listen")
    assert.error_matches(function() moonpool.serve { listen = ":0", handler = 1 } end, "handler")
    assert.error_matches(function()
      moonpool.serve { listen = ":0", handler = quiet, max_body = -1 }
    end, "max_body")
  end)

  it("says why it cannot listen", function()
    local server, err = moonpool.serve { listen = "nonsense", handler = quiet }
    assert.is_nil(server)
    assert.equal("invalid", err.kind)
    with_server(quiet, function(_, first)
      server, err = moonpool.serve { listen = "127.0.0.1:" .. first.port, handler = quiet }
      assert.is_nil(server)
      assert.matches("address already in use", tostring(err))
    end)
  end)

  it("listens on a unix socket", function()
    local dir = io.popen "mktemp -d":read "l"
    with_server(function(req) return req.peer end, function(client, server)
      assert.equal("unix:" .. dir .. "/s", server.url)
      assert.equal(0, server.port)
      assert.equal("unix", get(client).data)
    end, { listen = "unix:" .. dir .. "/s" })
    assert.is_nil(io.open(dir .. "/s"))
    os.remove(dir)
  end)

  it("cancels what is open when it closes", function()
    local ended = 0
    with_server(function()
      local guard <close> = setmetatable({}, { __close = function() ended = ended + 1 end }) -- luacheck: ignore
      moonpool.sleep(60)
    end, function(client, server)
      moonpool.scope(function(scope)
        local request = scope:spawn(function() return select(2, get(client)) end)
        eventually(function() return server:stats().in_flight == 1 end)
        server:close()
        server:close()
        assert.equal("connect", request:await().kind)
      end)
      eventually(function() return ended == 1 end)
      assert.matches("closed", tostring(server))
      local _, err = get(client)
      assert.equal("connect", err.kind)
    end)
  end)

  it("lets open requests finish when given grace", function()
    local go = false
    with_server(function()
      while not go do
        moonpool.sleep(0.001)
      end
      return "finished"
    end, function(client, server)
      moonpool.scope(function(scope)
        local request = scope:spawn(function() return get(client) end)
        eventually(function() return server:stats().in_flight == 1 end)
        local closing = scope:spawn(function() server:close(60) end)
        moonpool.sleep(0.005)
        go = true
        assert.equal("finished", request:await().data)
        closing:await()
      end)
    end)
  end)

  it("writes a reply to its end when given grace, however slow its reader", function()
    with_server(function() return ("x"):rep(32 << 20) end, function(client, server)
      moonpool.scope(function(scope)
        local chunks = client:stream { path = "/" }
        eventually(function() return server:stats().in_flight == 0 end)
        local closing = scope:spawn(function() server:close(60) end)
        local n = 0
        for chunk in chunks do n = n + #chunk end
        assert.equal(32 << 20, n)
        closing:await()
        assert.is_true(server.closed)
      end)
    end)
  end)

  it("is closed with the scope it was made in", function()
    local server
    moonpool.scope(function(scope)
      server = moonpool.serve { listen = "127.0.0.1:0", handler = function() return "x" end }
      local client <close> = moonpool.client { base_url = server.url }
      assert.equal("x", get(client).data)
      scope:cancel()
    end)
    assert.is_true(server.closed)
  end)

  it("can be waited for", function()
    local server = assert(moonpool.serve { listen = "127.0.0.1:0", handler = quiet })
    moonpool.gather {
      function() server:wait() end,
      function()
        moonpool.sleep(0.002)
        server:close()
      end,
    }
    server:wait()
    assert.is_true(server.closed)
  end)

  it("counts", function()
    with_server(function() return "12345" end, function(client, server)
      for _ = 1, 10 do
        get(client)
      end
      local stats = server:stats()
      assert.equal(10, stats.requests)
      assert.equal(10, stats.replies)
      assert.equal(10, stats.status_2xx)
      assert.equal(1, stats.connections_opened)
      assert.equal(0, stats.in_flight)
      assert.is_true(stats.bytes_out > 50)
    end)
  end)
end)
