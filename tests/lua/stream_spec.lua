-- client:stream over real sockets: events, chunks, faults, leaving early, holding back.
local moonpool = require "moonpool"
local stream = require "moonpool.client.stream"

local function serve(handler)
  return moonpool.serve { listen = "127.0.0.1:0", handler = handler }
end

local function client(server, opts)
  opts = opts or {}
  opts.base_url = server.url
  return moonpool.client(opts)
end

local function pieces(list, delay)
  local n = 0
  return function()
    n = n + 1
    if delay then moonpool.sleep(delay) end
    return list[n]
  end
end

local sse = { ["content-type"] = "text/event-stream; charset=utf-8" }

-- Feeds text in pieces of `size` bytes.
local function parse(text, size)
  local feed, out = stream.parser(), {}
  for at = 1, #text, size do
    for _, ev in ipairs(feed(text:sub(at, at + size - 1))) do out[#out + 1] = ev end
  end
  return out
end

describe("server-sent events", function()
  local text = "\239\187\191: a comment\n\ndata: one\n\n"
    .. "event: tick\ndata: {\"n\":2}\ndata:second line\r\nid: 7\r\n\r\n"
    .. "retry: 1500\rdata\rdata: \r\r\nunknown: x\n\ndata: last\n\n"

  it("are the same however the bytes are cut", function()
    for size = 1, #text do
      local ev = parse(text, size)
      assert.equal(4, #ev)
      assert.same({ "one", "message" }, { ev[1].data, ev[1].event })
      assert.same({ '{"n":2}\nsecond line', "tick", "7" }, { ev[2].data, ev[2].event, ev[2].id })
      assert.same({ "\n", 1.5, "7" }, { ev[3].data, ev[3].retry, ev[3].id })
      assert.equal("last", ev[4].data)
    end
  end)

  it("may end their lines with a bare CR, which waits for nothing behind it", function()
    local ev = parse("data: 1\r\rdata: 2\r\r", 1000)
    assert.same({ 2, "1", "2" }, { #ev, ev[1].data, ev[2].data })
    local feed = stream.parser()
    assert.equal(0, #feed "data: 1\r")
    assert.equal("1", feed("\r")[1].data)
    assert.equal(0, #feed "\n") -- the other half of a CRLF that was cut
    assert.equal(0, #feed "data: 2\r")
    assert.equal("2\n3", feed("\ndata: 3\r\n\r")[1].data)
    assert.equal(0, #feed "")
    assert.equal(0, #feed "\ndata: 4\n")
    assert.equal("4", feed("\n")[1].data)
  end)

  it("take time in proportion to their bytes, whatever the bytes are", function()
    local count = 512 * 1024
    assert.equal(0, #parse(("\n"):rep(count), 65536))
    assert.equal(0, #parse(("\r"):rep(count), 1000))
    assert.equal(count // 8, #parse(("data: 1\n"):rep(count // 8):gsub("\n", "\n\n"), 65536))
    local line = "data: " .. ("x"):rep(count) .. "\n\n"
    assert.equal(count, #parse(line, 100)[1].data)
    local many = parse(("data: x\n"):rep(count // 8) .. "\n", 7777)
    assert.equal(count // 4 - 1, #many[1].data)
  end)

  it("read null in their JSON as nothing, but keep its place in a list", function()
    local ev = parse('data: {"delta":{"content":null,"n":0},"list":[1,null,{"a":null}]}\n\ndata: null\n\n', 9)
    assert.is_nil(ev[1].json.delta.content)
    assert.equal(0, ev[1].json.delta.n)
    assert.equal(3, #ev[1].json.list)
    assert.is_nil(ev[1].json.list[3].a)
    assert.is_nil(ev[2].json)
  end)

  it("decode their data when asked, and only then", function()
    local ev = parse('data: {"a":[1,2]}\n\ndata: no json\n\n', 5)
    assert.same({ 1, 2 }, { ev[1].json.a[1], ev[1].json.a[2] })
    assert.is_nil(ev[2].json)
    assert.equal("no json", tostring(ev[2]))
  end)

  it("that never end are an error, not memory", function()
    local feed = stream.parser()
    local ok, err = pcall(function()
      for _ = 1, 40 do feed(("x"):rep(1024 * 1024)) end
    end)
    assert.is_false(ok)
    assert.equal("too_large", err.kind)
    feed = stream.parser()
    ok, err = pcall(function()
      for _ = 1, 40 do feed("data: " .. ("x"):rep(1024 * 1024) .. "\n") end
    end)
    assert.is_false(ok)
    assert.equal("too_large", err.kind)
  end)
end)

describe("client:stream", function()
  it("gives events as they come and ends at [DONE]", function()
    local server <close> = serve(function(req)
      assert(req.method == "POST" and req:json().stream == true)
      return { headers = sse, stream = pieces({ "data: {\"n\":1}\n\nda", "ta: {\"n\":2}\n\n",
        "data: [DONE]\n\n" }, 0.002) }
    end)
    local c <close> = client(server)
    local got = {}
    for ev in c:stream { path = "/v1/chat", json = { stream = true } } do got[#got + 1] = ev.json.n end
    assert.same({ 1, 2 }, got)
    assert.equal(0, c:stats().in_flight)
  end)

  it("gives the last event of a reply that ends without an empty line", function()
    for _, text in ipairs { "data: 1\n\ndata: 2", "data: 1\n\ndata: 2\n", "data: 1\r\rdata: 2\r\r" } do
      local server <close> = serve(function() return { headers = sse, body = text } end)
      local c <close> = client(server)
      local got = {}
      for ev in c:stream { path = "/" } do got[#got + 1] = ev.data end
      assert.same({ "1", "2" }, got)
    end
  end)

  it("gives raw chunks of any other reply, whole and in order", function()
    local body = {}
    for i = 1, 200 do body[i] = ("%05d"):format(i):rep(1000) end
    local server <close> = serve(function() return { stream = pieces(body) } end)
    local c <close> = client(server)
    local got = {}
    for chunk in c:stream { path = "/" } do got[#got + 1] = chunk end
    assert.equal(table.concat(body), table.concat(got))
  end)

  it("tells status and headers, and an empty reply is no item", function()
    local server <close> = serve(function() return { status = 204, headers = { ["x-a"] = "b" } } end)
    local c <close> = client(server)
    local next_item, head = c:stream { path = "/" }
    assert.same({ 204, "b" }, { head.status, head.headers["x-a"] })
    assert.is_nil(next_item())
    assert.is_nil(next_item())
  end)

  it("returns nil, err for a refusal, after its retries", function()
    local hits = 0
    local server <close> = serve(function()
      hits = hits + 1
      return { status = 503, json = { error = "busy" } }
    end)
    local c <close> = client(server)
    local it, err = c:stream { path = "/", retry = { max_attempts = 3, base = 0.001 } }
    assert.is_nil(it)
    assert.same({ "http", 503, 3, 3 }, { err.kind, err.status, err.attempts, hits })
  end)

  it("is not repeated once bytes were given: the break is raised", function()
    local hits = 0
    local server <close> = serve(function()
      hits = hits + 1
      return { headers = sse, stream = pieces { "data: 1\n\n", function() end } }
    end)
    local c <close> = client(server)
    local got = 0
    local ok, err = pcall(function()
      for _ in c:stream { path = "/", retry = { base = 0.001 } } do got = got + 1 end
    end)
    assert.equal(1, got)
    assert.is_false(ok)
    assert.equal("connect", err.kind)
    assert.equal(1, hits)
  end)

  it("left early drops the connection", function()
    local gone = false
    local server <close> = serve(function(req)
      return { headers = sse, stream = function()
        moonpool.sleep(0.001)
        gone = gone or req:gone()
        return "data: x\n\n"
      end }
    end)
    local c <close> = client(server)
    for _ in c:stream { path = "/" } do break end -- luacheck: ignore
    for _ = 1, 2000 do
      if c:stats().in_flight == 0 then break end
      moonpool.sleep(0.001)
    end
    assert.equal(0, c:stats().in_flight)
  end)

  it("ends with its token", function()
    local server <close> = serve(function()
      return { headers = sse, stream = pieces({ "data: 1\n\n", "data: 2\n\n", "data: 3\n\n" }, 0.2) }
    end)
    local c <close> = client(server)
    local token = moonpool.cancel_token()
    local ok, err = pcall(function()
      for _ in c:stream { path = "/", cancel_token = token } do token:cancel() end
    end)
    assert.is_false(ok)
    assert.equal("cancelled", err.kind)
  end)

  it("holds the server back while the script does not read", function()
    local sent = 0
    local server <close> = serve(function()
      return { stream = function()
        sent = sent + 1
        if sent <= 2000 then return ("x"):rep(65536) end -- 128 MB
      end }
    end)
    local c <close> = client(server)
    local next_chunk = c:stream { path = "/" }
    assert(next_chunk())
    local before
    for _ = 1, 200 do -- until the server makes no progress any more
      before = sent
      moonpool.sleep(0.01)
      if sent == before then break end
    end
    assert.equal(before, sent)
    assert.is_true(sent < 1000)
    local total = 0
    for chunk in next_chunk do total = total + #chunk end
    assert.is_true(total > 100e6)
  end)

  it("may stand still longer than its read timeout when it is the script that waits", function()
    local server <close> = serve(function()
      local n = 0
      return { stream = function()
        n = n + 1
        if n <= 100 then return ("y"):rep(65536) end
      end }
    end)
    local c <close> = client(server)
    local next_chunk = c:stream { path = "/", timeout = { read = 0.05 } }
    assert(next_chunk())
    moonpool.sleep(0.2)
    local total = 0
    for chunk in next_chunk do total = total + #chunk end
    assert.is_true(total > 6e6)
  end)

  it("refuses what it does not know", function()
    local server <close> = serve(function() return {} end)
    local c <close> = client(server)
    assert.error_matches(function() c:stream { pth = "/" } end, "did you mean 'path'")
    assert.error_matches(function() c:stream { json = {}, body = "x" } end, "exclude")
  end)
end)
