-- moonpool.serve: HTTP requests answered by tasks.
--
-- Workers wait for requests in C; one that takes a request while no other is idle first spawns its
-- successor, so there are as many workers as handlers that wait, and a handler that does not wait
-- costs no new task. When a client leaves, the task of its request is cancelled; a worker that was
-- cancelled so ends, for a cancelled task cannot wait again.

local core = require "moonpool.core"
local options = require "moonpool.options"

local M = {}

local MAX_IDLE = 64 -- workers kept waiting
local MAX_FAILURES = 100 -- of a worker for want of memory
local NO_MEMORY = "not enough memory" -- Lua's own words

local rule = options.rule
local rules = {
  listen = rule.text, handler = rule.func, on_error = rule.func,
  max_body = rule.count, max_head = rule.count, max_headers = rule.count,
  max_connections = rule.count,
  header_timeout = rule.positive, body_timeout = rule.positive,
  idle_timeout = rule.positive, write_timeout = rule.positive, total_body_timeout = rule.positive,
  reuse_port = rule.boolean, front = rule.any,
}

local server = {}
server.__index = server
server.__name = "moonpool.server"

-- ---- one request --------------------------------------------------------------------------------

--- The values of the stream, called until it gives nil, as chunks; waits where the client is slower. A
-- stream that has __close is closed in the end, whatever happens. A stream cut off by an error ends
-- without its last chunk, so the client can tell.
function M.pump(req, stream)
  local write = core.server_write
  local meta = type(stream) == "table" and getmetatable(stream)
  local held <close> = meta and meta.__close and stream or nil -- luacheck: ignore
  for chunk in stream do
    if not write(req, chunk) then
      break
    end
  end
  core.server_end(req)
end

local function answer(req, handler)
  local reply = handler(req)
  if reply == nil then
    error("the handler returned no reply", 0)
  end
  local sent, stream = core.server_answer(req, reply)
  if sent == nil then
    M.pump(req, stream)
  end
end

local function raw(req, handler)
  handler(req)
end

local function log(req, err)
  io.stderr:write("moonpool: serve: ", req.method or "?", " ", req.path or "?", ": ", tostring(err),
    "\n", core.traceback_of(err) or "", "\n")
end

local failure = '{"error":{"message":"internal server error","type":"server_error"}}\n'

local function is_cancelled(err)
  return type(err) == "table" and err.kind == "cancelled"
end

function server:failed(req, err)
  if not is_cancelled(err) then
    local ok = pcall(self.on_error, req, err)
    if not ok then
      log(req, err)
    end
  end
  if core.server_state(req) == "new" and not is_cancelled(err) then
    core.server_reply(req, 500, "application/json", failure)
  end
  core.server_abort(req)
end

-- ---- workers ------------------------------------------------------------------------------------

function server:work()
  local handle, handler, run, next_request = self.handle, self.handler, self.run, core.server_next
  local traceback = core.traceback
  while true do
    local req <close>, idle = next_request(handle)
    if not req then
      return
    end
    local alone = idle == 0 and not self:add_worker()
    local ok, err = xpcall(run, traceback, req, handler)
    if not ok then
      self:failed(req, err)
    end
    if req:gone() or idle > MAX_IDLE then
      if alone and not self:add_worker() then
        error("no memory for a worker", 0)
      end
      return
    end
  end
end

-- A worker that is cancelled while it is idle means that the scope of the server is.
local function worker(self)
  local ok, err
  for _ = 1, MAX_FAILURES do
    ok, err = pcall(self.work, self)
    if ok then
      return
    elseif err ~= NO_MEMORY then -- for one request it may have been too little
      break
    end
  end
  self:shut()
  error(err, 0)
end

function server:add_worker()
  return (pcall(self.scope.spawn, self.scope, worker, self))
end

-- ---- the object ---------------------------------------------------------------------------------

function server:shut()
  core.server_close(self.handle)
  self.closed = true
  self.ended:wake()
end

--- Stops. With grace (seconds) requests being answered may finish first; what is left is cancelled.
function server:close(grace)
  if self.closed then
    return
  end
  core.server_stop(self.handle)
  if grace and grace > 0 then
    core.timeout(grace, core.server_quiet, self.handle)
  end
  self:shut()
end

function server:__close()
  self:close()
end

--- Counters: requests, replies, in_flight, connections_opened, connections_now, disconnects, ...
function server:stats()
  return core.server_stats(self.handle)
end

-- The program that runs the script, as far as servers are its business: see M.hosted.
local host

--- Waits until the server is closed.
function server:wait()
  if host and host.wait and not self.awaited then
    return host.wait(self)
  end
  while not self.closed do
    self.ended:wait()
  end
end

function server:__tostring()
  return "moonpool.server (" .. (self.closed and "closed" or self.url) .. ")"
end

local function start(opts, run, listen)
  local given = {}
  for name, value in pairs(opts) do
    given[name] = value
  end
  given.listen = listen
  local handle, err = core.server_open(given)
  if not handle then
    return nil, err
  end
  local self = setmetatable({
    handle = handle, handler = opts.handler, run = run, on_error = opts.on_error or log,
    scope = core.open_scope(), ended = core.waitlist(), closed = false,
  }, server)
  self.url, self.port = core.server_address(handle)
  self:add_worker()
  return self
end

--- serve{listen=, handler=, ...}: a server whose handler is called in a task for each request and
-- returns {status=, headers=, json= or body= or stream=} or a string. Does not block: the server
-- lives until it, or the scope in which it was made, is closed. nil and an error if it cannot listen.
function M.serve(opts)
  options.check("serve", opts, rules, 2)
  local listen = opts.listen
  if host then
    listen = host.listen(listen)
  end
  if not listen or not opts.handler then
    error("serve: listen and handler are needed", 2)
  end
  local made, err = start(opts, answer, listen)
  if made and host then
    host.opened(made)
  end
  return made, err
end

--- Tells who runs the scripts of this process: by.listen(given) is where a server listens, by.opened(server)
--- is called for each, by.wait(server) stands for server:wait(), and may wait with server.awaited set.
function M.hosted(by)
  host = by
end

--- What a server does with an error of its handler unless told otherwise.
M.log_error = log

-- For the mock: its handler sends the reply itself.
function M.serve_raw(opts)
  return start(opts, raw, opts.listen)
end

return M
