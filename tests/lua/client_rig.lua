-- What the client's specs share: servers in this process that write down what they get, texts that
-- are numbers and whose vectors say so, guards against hanging.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local serve = require "moonpool.serve"
local json = require "moonpool.json"

local M = {}

local open = {}

--- Closes what the test opened; for after_each.
function M.close_all()
  for i = #open, 1, -1 do
    open[i]:close()
    open[i] = nil
  end
end

function M.keep(closable)
  open[#open + 1] = closable
  return closable
end

local function answer(req, reply)
  if reply.fault then
    local headers = reply.headers or { ["content-type"] = "application/json" }
    return core.server_fault(req, reply.status or 200, headers, reply.body or "", reply.fault)
  end
  core.server_answer(req, reply)
end

--- A server: handler(seen, n, req) returns a reply as for moonpool.serve, or one with `fault`.
-- server.log[n] = {n, method, path, query, headers, text, body, at}.
function M.serve(handler)
  local log = {}
  local server = assert(serve.serve_raw {
    listen = "127.0.0.1:0", max_body = 64 << 20,
    handler = function(req)
      local seen = {
        n = #log + 1, method = req.method, path = req.path, query = req.query, headers = req.headers,
        text = req.body, body = req.body ~= "" and req:json() or nil, at = moonpool.now(),
      }
      log[seen.n] = seen
      local ok, reply = pcall(handler, seen, seen.n, req)
      if not ok then
        seen.error = reply
        error(reply, 0)
      end
      seen.done = moonpool.now()
      answer(req, reply)
    end,
    on_error = function(_, err) io.stderr:write("rig: ", tostring(err), "\n") end,
  })
  server.log = log
  return M.keep(server)
end

function M.mock(opts)
  opts.dim = opts.dim or 8
  return M.keep(assert(moonpool.mock(opts)))
end

--- The vector of a text that holds a number: {n, -n, 0.5}.
function M.vector(text)
  local n = assert(tonumber(text:match "%-?%d+"), text)
  return { n, -n, 0.5 }
end

--- OpenAI's reply for these texts; order: a permutation of 1..n in which they are sent.
function M.embeddings(texts, order, vector)
  local data = {}
  for k = 1, #texts do
    local i = order and order[k] or k
    data[k] = { object = "embedding", index = i - 1, embedding = (vector or M.vector)(texts[i]) }
  end
  return {
    object = "list", data = data, model = "rig",
    usage = { prompt_tokens = #texts, total_tokens = #texts },
  }
end

--- A server that embeds. hook(seen, n, req) may return another reply.
function M.embedder(hook)
  return M.serve(function(seen, n, req)
    local reply = hook and hook(seen, n, req)
    if reply then
      return reply
    end
    return { json = M.embeddings(seen.body.input) }
  end)
end

local quick = { base = 0.001, throttle_base = 0.001, cap = 0.01 }

--- A client of that server whose backoff a test need not wait for.
function M.client(server, opts)
  local o = { base_url = type(server) == "string" and server or server.url, retry = quick }
  for k, v in pairs(opts or {}) do
    o[k] = v
  end
  return M.keep(moonpool.client(o))
end

M.quick = quick

--- "1".."n"
function M.texts(n, from)
  local list = {}
  for i = 1, n do
    list[i] = tostring((from or 0) + i)
  end
  return list
end

--- The first row that is not its text's vector, or nil when all are.
function M.wrong_row(res, texts)
  if #res ~= #texts then
    return "rows: " .. #res
  end
  for i, text in ipairs(texts) do
    local want, got = M.vector(text), res[i] and res[i]:totable() or {}
    for k = 1, 3 do
      if want[k] ~= got[k] then
        return ("row %d is %s"):format(i, json.encode(got))
      end
    end
  end
end

--- fn's results, or an error when they take longer than `seconds`: a guard, not a measurement.
function M.within(seconds, fn, ...)
  local args = table.pack(...)
  return moonpool.timeout(seconds, function() return fn(table.unpack(args, 1, args.n)) end)
end

--- Waits until done() is true; an error after ten seconds.
function M.until_true(what, done)
  local stop = moonpool.now() + 10
  while not done() do
    if moonpool.now() > stop then
      error("waited too long until " .. what, 2)
    end
    moonpool.sleep(0.002)
  end
end

--- A listening socket that nobody ever accepts from, as a url; perl is in every Debian.
function M.silent_listener()
  local pipe = assert(io.popen([[exec perl -MSocket -e '
    $| = 1;
    socket(S, PF_INET, SOCK_STREAM, 0); bind(S, pack_sockaddr_in(0, INADDR_LOOPBACK)); listen(S, 0);
    ($port) = unpack_sockaddr_in(getsockname(S)); print "$port $$\n"; sleep 60']], "r"))
  local port, pid = pipe:read("l"):match "(%d+) (%d+)"
  M.keep { close = function()
    os.execute("kill " .. pid)
    pipe:close()
  end }
  return "127.0.0.1:" .. port
end

--- A port at which nobody listens.
function M.dead_url()
  local server = assert(moonpool.serve { listen = "127.0.0.1:0", handler = function() end })
  local url = server.url
  server:close()
  return url
end

return M
