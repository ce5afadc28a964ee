-- resty/moonpool.lua - embeddings inside nginx and OpenResty: LuaJIT's FFI over libmoonpool's bridge.
--
-- Each worker has one engine on a thread of its own. A light thread, started by a timer, reads the
-- bridge's bell from a unix socket; a caller waits on a semaphore of his own. No callback enters Lua from
-- the engine, and nothing in nginx is patched. Where no such reader runs (lua_code_cache off makes a new
-- Lua state for each request) a caller looks for his result by himself.
local ffi = require "ffi"
local semaphore = require "ngx.semaphore"
local abi = require "resty.moonpool.abi"

local ngx = ngx
local C_str, C_new, C_gc, C_cast = ffi.string, ffi.new, ffi.gc, ffi.cast

-- A completion whose arg is the number that it was submitted with.
ffi.cdef "struct mp_resty_completion { uint64_t ticket; uintptr_t id; struct mp_result *result; };"

local M = { _VERSION = abi._VERSION }

local JOIN, IDEMPOTENT, HELD = 1, 8, 64
local NAME = "resty.moonpool"

local lib

local function library()
  lib = lib or abi.library(M.library)
  return lib
end

local function last_error()
  return C_str(lib.mp_last_error())
end

local encode, quote = abi.encode, abi.quote

-- ---- dialects: what a request for vectors looks like -----------------------------------------------

local dialects = {
  openai = {
    path = "/v1/embeddings", input = "input", list = "data", vector = "embedding", index = "index",
    encoding = "base64",
  },
  tei = { path = "/embed", input = "inputs", list = "" },
}

-- A mp_vectors with the strings it points to.
local function shape_of(d)
  local v = C_new "struct mp_vectors"
  local keep = { d.list, d.vector, d.index, d.usage }
  v.list, v.vector, v.index, v.usage = d.list, d.vector, d.index, d.usage
  return { vectors = v, keep = keep }
end

local function dialect_of(options)
  local d = options.provider or "openai"
  if type(d) == "string" then
    d = dialects[d] or error("resty.moonpool: provider: openai, tei or a table expected", 0)
  end
  for _, name in ipairs { "path", "input", "list" } do
    if type(d) ~= "table" or type(d[name]) ~= "string" then
      error("resty.moonpool: provider: a table needs path, input and list", 0)
    end
  end
  return { d = d, shape = shape_of(d) }
end

-- ---- state of this worker --------------------------------------------------------------------------

local bridge        -- with a finalizer that leaves it
local dialect, settings
local reading = false
local waiters, nwaiting, next_id = {}, 0, 0

local MANY = 64
local completions, numbered, ticket_box

local function adopt(b)
  bridge = C_gc(b, lib.mp_bridge_close)
  completions = C_new("struct mp_completion[?]", MANY)
  numbered = C_cast("struct mp_resty_completion *", completions)
  ticket_box = C_new "uint64_t[1]"
end

local function own(result)
  return result ~= nil and C_gc(result, lib.mp_result_free) or nil
end

local function deliver(c)
  local id = tonumber(c.id)
  local w = waiters[id]
  local result = own(c.result)
  if not w then return end -- its request is gone
  waiters[id] = nil
  nwaiting = nwaiting - 1
  w.result, w.finished = result, true
  w.sema:post(1)
end

local function drain()
  repeat
    local n = lib.mp_bridge_poll(bridge, completions, MANY)
    for i = 0, n - 1 do deliver(numbered[i]) end
  until n < MANY
end

-- ---- the reader ------------------------------------------------------------------------------------

local function connect()
  local path = C_new "char[108]"
  if lib.mp_bridge_bell(bridge, settings.socket_dir, path, 108) ~= 0 then return nil, last_error() end
  local sock = ngx.socket.tcp()
  sock:settimeouts(1000, 1000, 10000)
  local ok, err = sock:connect("unix:" .. C_str(path))
  if not ok then return nil, err end
  if lib.mp_bridge_bell_accept(bridge) ~= 1 then
    sock:close()
    return nil, "the bell's socket was not accepted"
  end
  return sock
end

local function read_bells()
  local sock, err = connect()
  if not sock then error(err, 0) end
  reading = true
  while true do
    drain()
    -- One byte a second comes in any case, so that this wakes up to see the worker's end.
    if ngx.worker.exiting() and nwaiting == 0 then break end
    local bytes
    bytes, err = sock:receiveany(4096)
    if not bytes then error(err, 0) end
  end
  sock:close()
end

local start_reader

local function reader(premature)
  if premature then return end
  local ok, err = pcall(read_bells)
  reading = false
  drain()
  if not ok and not ngx.worker.exiting() then
    ngx.log(ngx.ERR, "moonpool: the bell's reader starts again: ", err)
    start_reader(0.05)
  end
end

function start_reader(after)
  local ok, err = ngx.timer.at(after, reader)
  if not ok then ngx.log(ngx.ERR, "moonpool: no timer for the bell's reader: ", err) end
  return ok
end

-- ---- start -----------------------------------------------------------------------------------------

local own_options = { provider = true, socket_dir = true, model = true, on_abort = true }

-- What a Lua state that only finds the bridge has to know: lines "name<tab>value".
local function note_of(options)
  local lines = {}
  local function add(name, value)
    if type(value) == "string" then lines[#lines + 1] = name .. "\t" .. value:gsub("[\t\n]", " ") end
  end
  add("model", options.model)
  for name, value in pairs(dialect.d) do add("provider." .. name, value) end
  if options.on_abort == false then add("on_abort", "false") end
  return table.concat(lines, "\n")
end

local function read_note(text)
  local provider, known = {}, {}
  for name, value in text:gmatch "([^\t\n]+)\t([^\n]*)" do
    local field = name:match "^provider%.(.+)$"
    if field then provider[field] = value else known[name] = value end
  end
  return { provider = provider, model = known.model, on_abort = known.on_abort ~= "false" }
end

local function config_of(options)
  local t = { name = NAME, note = note_of(options) }
  for name, value in pairs(options) do
    if not own_options[name] then t[name] = value end
  end
  if t.shared == false then t.shared = nil end
  return t
end

--- Starts this worker's engine; once, in init_worker_by_lua. Further calls change nothing.
function M.start(options)
  if type(options) ~= "table" then error("resty.moonpool.start: table of options expected", 2) end
  library()
  if bridge then return true end
  dialect = dialect_of(options)
  settings = {
    model = options.model,
    on_abort = options.on_abort,
    socket_dir = options.socket_dir or ("/tmp/moonpool-" .. tonumber(ffi.C.geteuid())),
  }
  local config = config_of(options)
  local box = C_new "mp_bridge *[1]"
  local function try()
    local json = encode(config)
    return lib.mp_bridge_start_json(json, #json, box) == 0
  end
  -- All workers keep one rate and one pause an endpoint; where that has no place, each its own.
  local chosen = options.shared == nil
  if chosen then config.shared = ("/dev/shm/moonpool-%d.rates"):format(tonumber(ffi.C.geteuid())) end
  local ok = try()
  if not ok and chosen and last_error():find "^shared: " then
    ngx.log(ngx.WARN, "moonpool: workers do not share rates: ", last_error())
    config.shared = nil
    ok = try()
  end
  if not ok then error("resty.moonpool.start: " .. last_error(), 2) end
  adopt(box[0])
  if ngx.get_phase() == "init_worker" then start_reader(0) end
  return true
end

-- ---- errors ----------------------------------------------------------------------------------------

local error_mt = { __tostring = function(e) return e.kind .. ": " .. e.message end }

local function failure(kind, message, x)
  local e = { kind = kind, message = message, retryable = false }
  if x then
    e.status = x.status > 0 and x.status or nil
    e.retryable = x.retryable ~= 0
    e.retry_after = x.retry_after >= 0 and tonumber(x.retry_after) or nil
    e.attempts = x.attempts
    e.request_id = C_str(lib.mp_exchange_request_id(x))
    e.body = x.body_len > 0 and C_str(lib.mp_exchange_body(x), x.body_len) or nil
  end
  return setmetatable(e, error_mt)
end

local function kind_name(kind)
  return C_str(lib.mp_kind_name(kind))
end

local refused = { [-2] = "rate_limited", [-4] = "closed", [-5] = "closed" }

-- ---- waiting ---------------------------------------------------------------------------------------

-- No closure a request: LuaJIT does not compile a function that makes one.
local function client_is_gone()
  M.abort()
  ngx.exit(499)
end

-- Open tickets of the running request, to be dropped when its client goes away.
local function tickets_of_request()
  local ctx = ngx.ctx
  local open = ctx.moonpool_open
  if open then return open end
  open = {}
  ctx.moonpool_open = open
  if settings.on_abort ~= false then
    -- Not in every phase, and not without lua_check_client_abort: then the call simply goes on.
    pcall(ngx.on_abort, client_is_gone)
  end
  return open
end

--- Cancels what the running request still waits for; for programs with an ngx.on_abort of their own.
function M.abort(open)
  open = open or ngx.ctx.moonpool_open or {}
  for w in pairs(open) do
    lib.mp_bridge_drop(bridge, w.ticket)
    if waiters[w.id] then
      waiters[w.id] = nil
      nwaiting = nwaiting - 1
    end
    open[w] = nil
  end
end

-- Without a reader in this Lua state: look again, at first after a millisecond.
local function wait_by_looking(w)
  local c = completions
  local pause = 0.001
  while true do
    local rc = lib.mp_bridge_take(bridge, w.ticket, c)
    if rc == 1 then return own(c[0].result) end
    if rc ~= 0 then return nil end
    ngx.sleep(pause)
    pause = math.min(pause * 1.5, 0.02)
  end
end

local function wait(w)
  local open = tickets_of_request()
  open[w] = true
  local result
  if w.sema then
    -- The bridge completes every call; now and then see that there still is somebody who reads.
    while not w.finished do
      local ok, err = w.sema:wait(5)
      if not ok and err ~= "timeout" then
        open[w] = nil
        M.abort { [w] = true }
        return nil, failure("invalid", err) -- a phase that may not wait
      end
      if not reading then drain() end
    end
    result = w.result
  else
    result = wait_by_looking(w)
  end
  open[w] = nil
  return result
end

-- Semaphores are used again: each is a C object with a finalizer.
local spare, nspare = {}, 0

local function take_semaphore()
  if nspare == 0 then return semaphore.new(0) end
  local sema = spare[nspare]
  spare[nspare] = nil
  nspare = nspare - 1
  return sema
end

-- Only after its one post was waited for: then it is as new.
local function give_semaphore(sema)
  if nspare < 256 then
    nspare = nspare + 1
    spare[nspare] = sema
  end
end

-- Submits and waits: the result, or nil and an error. `t` has the request, and what it points to.
local function run(t, gather)
  local w = {}
  next_id = next_id + 1
  w.id = next_id
  t.arg[0] = next_id
  local q = t.request
  if reading then
    w.sema = take_semaphore()
    q.flags = t.flags
  else
    q.flags = t.flags + HELD
  end
  local rc = lib.mp_bridge_submit(bridge, q, gather, ticket_box)
  if rc ~= 0 then return nil, failure(refused[rc] or "invalid", last_error()) end
  w.ticket = ticket_box[0]
  if not w.sema then return wait(w) end
  waiters[w.id] = w
  nwaiting = nwaiting + 1
  local result, err = wait(w)
  if w.finished then give_semaphore(w.sema) end
  return result, err
end

-- ---- results of embed ------------------------------------------------------------------------------

local result_methods = {}
local formats = { float = 0, base64 = 1 }
local styles = { openai = 0, tei = 1, cohere = 2, ollama = 3 }

--- Row i (from 1) as float*, valid as long as the result.
function result_methods:row(i)
  if type(i) ~= "number" or i < 1 or i > self.rows then
    error(("row %s of %d"):format(tostring(i), self.rows), 2)
  end
  return self.data + (i - 1) * self.cols
end

local text_box, length_box = C_new "char *[1]", C_new "size_t[1]"

--- The whole reply as JSON text: format "float" or "base64", style "openai", "tei", "cohere" or "ollama".
function result_methods:json(format, style)
  local s = styles[style or "openai"] or error("style: openai, tei, cohere or ollama expected", 2)
  local f = formats[format or "float"] or error("format: float or base64 expected", 2)
  local result = self.result
  local model = result.model == nil and self.asked or nil
  if lib.mp_result_reply(result, s, f, model, text_box, length_box) ~= 0 then
    return nil, failure("invalid", last_error())
  end
  local out = text_box[0]
  local text = C_str(out, length_box[0])
  lib.mp_free(out)
  return text
end

-- What few callers look at is found when it is looked at.
local lazy = {}

function lazy.data(res)
  return lib.mp_matrix_data(res.result.matrix) + res.result.first_row * res.cols
end

function lazy.model(res)
  local model = res.result.model
  return model ~= nil and C_str(model) or res.asked
end

function lazy.total_time(res)
  return res.result.total_time
end

function lazy.usage(res)
  local result = res.result
  return result.total_tokens >= 0 and { prompt_tokens = tonumber(result.prompt_tokens),
    total_tokens = tonumber(result.total_tokens) } or nil
end

local result_mt = { __index = function(res, name)
  local method = result_methods[name]
  if method then return method end
  local find = lazy[name]
  local value = find and find(res)
  if value ~= nil then rawset(res, name, value) end
  return value
end }

local function error_of(result, x)
  local kind = x and x.kind ~= 0 and x.kind or tonumber(result.kind)
  return failure(kind_name(kind), x and C_str(lib.mp_exchange_message(x)) or kind_name(kind), x)
end

-- A row without a vector in a reply that was good for others.
local function fault_error(fault)
  return failure("decode", fault.message ~= nil and C_str(fault.message) or "the vector is wrong")
end

local function collect_errors(result)
  local errors = {}
  for k = 0, tonumber(result.nfaults) - 1 do
    local fault = result.faults[k]
    errors[k + 1] = { index = tonumber(fault.row) + 1, error = fault_error(fault) }
  end
  for k = 0, tonumber(result.nexchanges) - 1 do
    local x = result.exchanges[k]
    if x.kind ~= 0 then
      local e = error_of(result, x)
      for row = tonumber(x.first), tonumber(x.first) + x.count - 1 do
        errors[#errors + 1] = { index = row + 1, error = e }
      end
    end
  end
  table.sort(errors, function(a, b) return a.index < b.index end)
  return errors
end

local none = {}

local function result_of(result, model)
  local rows, good = tonumber(result.rows), tonumber(result.rows_ok)
  if good == 0 then
    if result.nfaults > 0 then return nil, fault_error(result.faults[0]) end
    return nil, error_of(result, result.nexchanges > 0 and result.exchanges[0] or nil)
  end
  return setmetatable({
    result = result, rows = rows, cols = result.dimensions, ok = good == rows, asked = model,
    errors = good == rows and none or collect_errors(result),
  }, result_mt)
end

-- ---- embed -----------------------------------------------------------------------------------------

local function need_bridge()
  if bridge then return end
  library()
  local b = lib.mp_bridge_find(NAME)
  if b == nil then error("resty.moonpool: not started; call start in init_worker_by_lua", 3) end
  adopt(b)
  if not dialect then -- a Lua state of its own (lua_code_cache off): start has not run in this one
    settings = read_note(C_str(lib.mp_bridge_note(b)))
    dialect = dialect_of(settings)
  end
end

local frames = setmetatable({}, { __mode = "v" }) -- requests without rows, by what they say

local function frame_text(opts)
  local d = dialect.d
  local head = {}
  local model = opts.model or settings.model
  if model then head[#head + 1] = '"model":' .. quote(model) end
  if d.encoding then head[#head + 1] = '"encoding_format":"' .. d.encoding .. '"' end
  if opts.dimensions then head[#head + 1] = ('"dimensions":%d'):format(opts.dimensions) end
  for name, value in pairs(opts.extra or {}) do head[#head + 1] = quote(name) .. ":" .. encode(value) end
  head[#head + 1] = quote(d.input) .. ":["
  return "{" .. table.concat(head, ",")
end

-- One of each for all calls: the bridge copies everything before it returns.
local gather, timeouts = C_new "struct mp_gather", C_new "struct mp_timeouts"
local rows_cap = 16
local rows = C_new("struct mp_str[?]", rows_cap)
local suffix = "]}"
local keyed = false
gather.size = ffi.sizeof(gather)

-- A request to be filled in, and where its number goes.
local function template(flags)
  local q = C_new "struct mp_request"
  q.size = ffi.sizeof(q)
  q.timeouts = timeouts
  local at = C_cast("char *", q) + ffi.offsetof("struct mp_request", "arg")
  return { request = q, arg = C_cast("uintptr_t *", at), flags = flags }
end

local last_frame -- of the request before, which is most often the same

local function frame_new(prefix, opts)
  local t = template(IDEMPOTENT)
  local q = t.request
  t.prefix, t.model, t.dimensions, t.extra = prefix, opts.model, opts.dimensions, opts.extra
  q.path, q.mode = dialect.d.path, JOIN
  q.prefix.p, q.prefix.n = prefix, #prefix
  q.suffix.p, q.suffix.n = suffix, #suffix
  q.vectors = dialect.shape.vectors
  q.rows = rows
  return t
end

local function frame_of(opts)
  local f = last_frame
  local model = opts.model
  if f and f.model == model and f.dimensions == opts.dimensions and not opts.extra and not f.extra then
    return f
  end
  local prefix = frame_text(opts)
  f = frames[prefix]
  if not f then
    f = frame_new(prefix, opts)
    frames[prefix] = f
  end
  last_frame = f
  return f
end

local function fill_rows(input)
  local n = #input
  if n > rows_cap then
    rows_cap = n
    rows = C_new("struct mp_str[?]", rows_cap)
  end
  for i = 1, n do
    local text = input[i]
    if type(text) ~= "string" then error(("input: text %d is a %s"):format(i, type(text)), 3) end
    rows[i - 1].p, rows[i - 1].n = text, #text
  end
  return n
end

local priorities = { low = -1, normal = 0, high = 1 }

local function fill_gather(opts)
  local key = opts.key
  if key or keyed then
    gather.key.p, gather.key.n = key, key and #key or 0
    keyed = key ~= nil
  end
  local priority = priorities[opts.priority or "normal"]
  if not priority then error("embed: priority: low, normal or high expected", 3) end
  gather.priority = priority
end

--- embed { input = text or texts, model =, dimensions =, timeout =, key =, priority =, extra = }
-- -> result, or nil and an error. Waits; for every phase that may (rewrite, access, content, timers).
function M.embed(opts)
  need_bridge()
  local input, timeout = opts.input, opts.timeout
  if timeout and not (type(timeout) == "number" and timeout > 0) then
    error("embed: timeout: positive number expected", 2)
  end
  local f = frame_of(opts)
  local q = f.request
  if type(input) == "string" then
    rows[0].p, rows[0].n = input, #input
    q.nrows = 1
  elseif type(input) == "table" and #input > 0 then
    q.nrows = fill_rows(input)
  else
    error(type(input) == "table" and "embed: input: empty" or "embed: input: text or list expected", 2)
  end
  q.rows = rows
  timeouts.total = timeout or 0
  fill_gather(opts)
  local result, err = run(f, gather)
  if not result then return nil, err or failure("closed", "the bridge is closed") end
  return result_of(result, opts.model or settings.model)
end

-- ---- one exchange ----------------------------------------------------------------------------------

local function headers_of(given)
  local names, v, n = {}, nil, 0
  for name, value in pairs(given or {}) do
    n = n + 1
    names[n] = { tostring(name), tostring(value) }
  end
  if n > 0 then
    v = C_new("struct mp_header[?]", n)
    for i = 1, n do v[i - 1].name, v[i - 1].value = names[i][1], names[i][2] end
  end
  return v, n, names
end

local function parse_head(text)
  local t = {}
  for line in text:gmatch "[^\n]+" do
    local name, value = line:match "^([^:]+):%s*(.-)%s*$"
    if name then
      name = name:lower()
      t[name] = t[name] and t[name] .. ", " .. value or value
    end
  end
  return t
end

--- request { method =, path =, body =, headers =, timeout = } -> { status =, headers =, body = }, or nil
-- and an error.
function M.request(opts)
  need_bridge()
  if type(opts.path) ~= "string" then error("request: path: text expected", 2) end
  if opts.body ~= nil and type(opts.body) ~= "string" then error("request: body: text expected", 2) end
  local t = template(0)
  local q = t.request
  local v, n, keep = headers_of(opts.headers)
  t.keep = { v, keep }
  q.method = opts.method or (opts.body and "POST" or "GET")
  q.path = opts.path
  q.headers, q.nheaders = v, n
  if opts.body then
    rows[0].p, rows[0].n = opts.body, #opts.body
    q.rows = rows
  end
  q.nrows = 1
  timeouts.total = opts.timeout or 0
  local result, err = run(t, nil)
  if not result then return nil, err or failure("closed", "the bridge is closed") end
  local x = result.nexchanges > 0 and result.exchanges[0] or nil
  if not x or (x.kind ~= 0 and x.status <= 0) then return nil, error_of(result, x) end
  return {
    status = x.status, headers = parse_head(C_str(x.data, x.head_len)),
    body = C_str(lib.mp_exchange_body(x), x.body_len), time = result.total_time,
  }
end

--- Counters of this worker's bridge, engine, client and batcher, by "bridge.taken" and the like.
function M.stats()
  need_bridge()
  local out, n = C_new "char *[1]", C_new "size_t[1]"
  if lib.mp_bridge_stats_text(bridge, out, n) ~= 0 then return nil, last_error() end
  local text = C_str(out[0], n[0])
  lib.mp_free(out[0])
  local t = {}
  for name, value in text:gmatch "(%S+) (%S+)\n" do t[name] = tonumber(value) end
  return t
end

return M
