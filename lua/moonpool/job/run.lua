-- moonpool.job.run: from a source through an endpoint into a store, in bounded memory.
--
-- The feeder (inside client:embed_each) asks for the next item that must be asked; on the way it puts
-- what needs no asking: lines that cannot be asked, rows that earlier runs have, texts that were
-- asked before. Batches are put as they end, in any order.
local core = require "moonpool.core"

local run = {}

local Run = {}
Run.__index = Run

local with_grace

local COPIES = 128 -- rows copied at once
local DUPLICATES = 100000 -- rows that may wait for another's answer
local PATIENCE = 600 -- s without an endpoint before the job stops

-- ---- an endpoint that is not there --------------------------------------------------------------

local no_row_causes = { connect = true, connect_timeout = true, tls = true }
local wrong_for_all = { [401] = true, [403] = true, [404] = true }

-- What no row can be the cause of.
local function unreachable(err)
  return no_row_causes[err.kind] or err.kind == "http" and wrong_for_all[err.status] or false
end

local function gone(err)
  return unreachable(err) or err.kind == "http" and (err.status == 502 or err.status == 503) or
    err.kind == "breaker_open"
end

local advice = {
  [401] = "the key was refused: see --api-key-env", [403] = "the key may not do this: see --api-key-env",
  [404] = "no such path or model: see --url and --model",
}

local function stop_for(err, text)
  local hint = advice[err.status] or err.kind == "tls" and "see the certificate" or "see --url"
  error(core.error(err.kind, ("%s: %s (%s)"):format(text, tostring(err.message), hint),
    { status = err.status, endpoint = err.endpoint, nothing = text:find "nothing" ~= nil or nil }), 0)
end

-- The error of a batch of which nothing came; nil where some row has a vector.
local function whole_failure(batch)
  local errors = batch.errors
  if batch.matrix or #errors < #batch.items then
    return nil
  end
  for _, e in ipairs(errors) do
    if not unreachable(e.error) and not gone(e.error) then
      return nil
    end
  end
  return errors[1] and errors[1].error
end

local function open_gate(self)
  if self.probing then
    self.probing = nil
    self.gate:wake()
  end
end

-- Nothing more is sent until the one batch that is under way has told whether it helps.
local function pass_gate(self)
  while self.probing and self.probing <= 0 do
    self.gate:wait()
  end
  if self.probing then
    self.probing = self.probing - 1
  end
end

local function outage(self, batch, err)
  local now = core.now()
  local o = self.outage or { since = now, delay = 0.5 }
  self.outage = o
  if now - o.since > PATIENCE then
    stop_for(err, ("the endpoint has not answered for %d minutes"):format(PATIENCE // 60))
  end
  if not o.told and self.on_event then
    self.on_event(("the endpoint is gone (%s); waiting for it"):format(tostring(err.message)))
    o.told = true
  end
  for _, item in ipairs(batch.items) do
    self.again[#self.again + 1] = item
  end
  o.delay = math.min(2 * o.delay, 30)
  o.resume = now + o.delay
  self.probing = self.probe_rows
  self.gate:wake()
end

-- ---- what needs no asking -----------------------------------------------------------------------

local function flush_copies(self)
  if #self.copies > 0 then
    local items, raw = self.copies, self.copied_raw
    self.copies, self.copied_raw = {}, {}
    self.writer:put_raw(items, raw)
  end
end

local function add_copy(self, item, raw)
  local n = #self.copies
  if n >= COPIES or n > 0 and self.copies[n].row + 1 ~= item.row then
    flush_copies(self)
  end
  self.copies[#self.copies + 1] = item
  self.copied_raw[#self.copied_raw + 1] = raw
end

-- Rows first .. first+n-1 of the old job as they are.
local function adopt(self, first, n)
  local old, records = self.earlier.first, self.earlier.first.records
  for row = first, first + n - 1, COPIES do
    local count = math.min(COPIES, first + n - row)
    local bytes = self.writer.dim and old:raw(row, count) or nil
    self.writer:adopt(records, row, count, bytes, old:lines(row, count))
  end
end

-- A run of rows that stay as they are; a whole part of them is taken over as it is.
local function end_kept(self)
  local first, n = self.kept_from, self.kept
  self.kept = 0
  if n > 0 then
    adopt(self, first, n)
  end
end

local function keep(self, row)
  local shard = self.writer.shard_rows
  if self.kept == 0 then
    self.kept_from = row
  end
  self.kept = self.kept + 1
  self.n.kept = self.n.kept + 1
  if (row + 1) % shard == 0 then
    local number = row // shard
    local part = self.kept == shard and self.earlier:part(number, shard)
    if part then
      self.writer:link_part(number, part, self.earlier.first.dir)
      self.kept = 0
    else
      end_kept(self)
    end
  end
end

local function from_earlier(self, item)
  local how, old, at = self.earlier:look(item)
  if how == "keep" then
    keep(self, item.row)
    return true
  end
  end_kept(self)
  if how == "copy" and old.lines_only then
    item.json = old:line(at, item.row)
    self.writer:put({ item }, nil, {})
    self.n[at == item.row and "kept" or "moved"] = self.n[at == item.row and "kept" or "moved"] + 1
    return true
  elseif how == "copy" then
    add_copy(self, item, old:raw(at, 1))
    self.n[at == item.row and "kept" or "moved"] = self.n[at == item.row and "kept" or "moved"] + 1
    return true
  end
  if old == "new" then
    self.n.unmatched = self.n.unmatched + 1
  end
  return false
end

local function from_same_text(self, item)
  local other = self.writer.ledger:seen(item, item.row)
  if not other or other == item.row then
    return false
  end
  if not self.writer:done(other) then
    local waiting = self.waiting[other] or {}
    self.waiting[other] = waiting
    waiting[#waiting + 1] = item
    self.n_waiting = self.n_waiting + 1
    while self.n_waiting >= DUPLICATES do
      self.gate:wait()
    end
    self.n.duplicates = self.n.duplicates + 1
    return true
  end
  local raw = self.writer:raw(other)
  if raw then
    add_copy(self, item, raw)
    self.n.duplicates = self.n.duplicates + 1
  end
  return raw ~= nil
end

local function from_cache(self, item)
  local vector = self.cache and self.cache:get(item.text)
  if vector then
    flush_copies(self)
    self.writer:put({ item }, vector, {})
    self.n.cached = self.n.cached + 1
    vector:free()
  end
  return vector ~= nil
end

-- True once the item needs no asking.
local function settle(self, item)
  if self.resumed and self.writer:done(item.row) then
    return true
  elseif self.earlier and from_earlier(self, item) then
    return true
  elseif item.problem then
    flush_copies(self)
    if self.problem_line then
      item.error = item.problem
      item.json = self.problem_line(item)
    end
    self.writer:put({ item }, nil, nil)
    return true
  elseif self.dedupe and from_same_text(self, item) then
    return true
  end
  return from_cache(self, item)
end

-- ---- the feeder ---------------------------------------------------------------------------------

local function ask(self, item)
  if #self.copies > 0 then
    flush_copies(self)
  end
  self.n.asked = self.n.asked + 1
  self.in_flight = self.in_flight + 1
  return item
end

-- Of an input that only grew the whole parts are taken over without being looked at.
local function take_over(self)
  local shard, number = self.writer.shard_rows, 0
  local part = self.earlier:part(0, shard)
  while part do
    if not self.writer.published[number] then
      self.writer:link_part(number, part, self.earlier.first.dir)
    end
    number = number + 1
    part = self.earlier:part(number, shard)
  end
  self.n.kept = number * shard
  self.row = self.source:skip(number * shard)
end

-- Rows of which nothing need be known are passed over without being looked at.
local function pass_over(self)
  if self.earlier or not self.resumed or not self.skips then
    return
  end
  local row = self.writer:next_missing(self.row)
  if row > self.row then
    self.row = self.row + self.source:skip(row - self.row)
  end
end

local function end_of_source(self)
  self.ended = true
  if self.earlier then
    local shard, n = self.writer.shard_rows, self.kept
    local number = self.row // shard
    local part = n > 0 and n == self.row % shard and self.earlier:part(number, n)
    if part then
      self.kept = 0
      self.writer:link_part(number, part, self.earlier.first.dir)
    else
      end_kept(self)
    end
  end
  flush_copies(self)
end

local function wait_for_endpoint(self)
  local o = self.outage
  local left = o and o.resume - core.now() or 0
  if left > 0 then
    core.sleep(left)
  end
end

-- The next item to ask; it may wait.
local function next_item(self)
  while self.stopping do
    self.never:wait() -- what is under way ends; then this is cancelled
  end
  if self.spent then
    return nil
  end
  if self.probing then
    pass_gate(self)
  end
  if #self.again > 0 then
    wait_for_endpoint(self)
    self.in_flight = self.in_flight + 1
    return table.remove(self.again)
  end
  while not self.ended do
    local row = self.row
    if row % 1024 == 0 then
      self.writer:give_way()
      self:report()
      pass_over(self)
      row = self.row
    end
    local item = self.source:next()
    if not item then
      end_of_source(self)
      break
    end
    item.row = row
    self.row = row + 1
    if self.plain and not item.problem and not self.writer.ledger:seen(item, row) then
      return ask(self, item)
    elseif not settle(self, item) then
      if not self.meter:reserve(item) then
        self.spent = true
        return nil
      end
      return ask(self, item)
    end
  end
end

-- ---- the batches --------------------------------------------------------------------------------

local function resolve(self, item, err)
  local waiting = self.waiting[item.row]
  self.waiting[item.row] = nil
  for _, other in ipairs(waiting or {}) do
    self.n_waiting = self.n_waiting - 1
    if err then
      self.writer:put({ other }, nil, { { index = 1, error = err } })
    else
      self.writer:put_raw({ other }, { self.writer:raw(item.row) })
    end
  end
  if waiting and #waiting > 0 then
    self.gate:wake()
  end
end

local function resolve_all(self, batch)
  local failed = {}
  for _, e in ipairs(batch.errors) do
    failed[e.index] = e.error
    self.writer.ledger:forget(batch.items[e.index])
  end
  if self.n_waiting == 0 then
    return
  end
  for i, item in ipairs(batch.items) do
    if self.waiting[item.row] then
      resolve(self, item, failed[i])
    end
  end
end

local function take(self, batch)
  self.in_flight = self.in_flight - #batch.items
  self.batches = self.batches + 1
  if self.stopping and self.in_flight <= 0 then
    self.gate:wake()
  end
  local whole = whole_failure(batch)
  if whole and self.succeeded == 0 and unreachable(whole) then
    stop_for(whole, "nothing succeeded")
  elseif whole and self.succeeded > 0 then
    return outage(self, batch, whole)
  end
  self.outage = nil
  self:account(batch)
  open_gate(self)
  self.succeeded = self.succeeded + #batch.items - #batch.errors
  self.writer:give_way()
  self.writer:put(batch.items, batch.matrix, batch.errors)
  if self.on_health and (self.batches <= 8 or self.batches % 64 == 0) then
    self.on_health(self.writer:health())
  end
  if self.cache and batch.matrix then
    self.cache:put_batch(batch)
  end
  if self.dedupe then
    resolve_all(self, batch)
  end
  self:report(batch)
end

-- How often requests were tried, and what became of rows: for a report.
local function details(self, batch)
  for _, e in ipairs(batch.errors) do
    local kind = e.error.kind or "invalid"
    self.errors[kind] = (self.errors[kind] or 0) + 1
  end
  for _, request in ipairs(batch.requests) do
    local n = request.attempts or 1
    self.attempts[n] = (self.attempts[n] or 0) + 1
    local bin = math.floor(4 * math.log(math.max(1e-6, 1000 * (request.time or 0)), 2) + 0.5)
    self.times[bin] = (self.times[bin] or 0) + 1
  end
end

--- Tokens, and money where a price is known.
function Run:account(batch)
  self.meter:take(batch)
  if self.detailed then
    details(self, batch)
  end
end

--- Tells how far it is.
function Run:report()
  if self.on_progress then
    self.on_progress(self)
  end
end

local function text_of(item)
  return item.text
end

local function one_pass(self, client, call)
  local function source()
    return next_item(self)
  end
  for batch in (self.each or client.embed_each)(client, source, call) do
    take(self, batch)
    if batch.matrix then
      batch.matrix:free() -- a job makes them faster than the collector would look
    end
  end
end

-- ---- Ctrl+C -------------------------------------------------------------------------------------

-- Nothing new is begun; what is under way has the grace to come back.
local function wind_down(self)
  self.stopping = true
  if self.on_event then
    self.on_event "stopping; what is under way may still come back (Ctrl+C again: at once)"
  end
  local deadline = core.now() + self.grace
  self.scope:spawn(function()
    core.sleep(self.grace)
    self.gate:wake()
  end)
  while self.in_flight > 0 and core.now() < deadline do
    self.gate:wait()
  end
  self.work:cancel()
end

local function wait_for_signal(self)
  local ok, err = pcall(self.never.wait, self.never)
  if not ok and core.interrupted() then
    self.scope:spawn(wind_down, self)
  end
  error(err, 0)
end

-- Runs work; the first signal cancels only a task that waits for it.
function with_grace(self, scope, work)
  local trap <close> = core.open_scope()
  core.set_interrupt(trap, true)
  trap:spawn(wait_for_signal, self)
  self.scope = scope
  self.work = scope:spawn(function()
    return xpcall(work, core.traceback)
  end)
  local ok, good, err = pcall(core.await, self.work)
  trap:cancel()
  if self.stopping then
    error(core.error("cancelled", "interrupted"), 0)
  elseif not ok or not good then
    error(ok and err or good, 0)
  end
end

--- Runs the job to its end: o = {client=, source=, writer=, earlier=, call = options of the calls,
--- dedupe=, on_progress=, on_event=}. The writer is left for the caller to finish; raises what stops it.
function run.go(o)
  local self = setmetatable({
    source = o.source, writer = o.writer, earlier = o.earlier, dedupe = o.dedupe, cache = o.cache,
    on_progress = o.on_progress, on_event = o.on_event, row = 0, succeeded = 0,
    resumed = o.resumed,
    again = {}, waiting = {}, n_waiting = 0, copies = {}, copied_raw = {}, kept = 0, batches = 0,
    gate = core.waitlist(), never = core.waitlist(), in_flight = 0, grace = o.grace, meter = o.meter,
    probe_rows = o.call.batch_size or 128, skips = o.skips ~= false, errors = {}, attempts = {}, times = {},
    detailed = o.detailed, on_health = o.on_health, each = o.each, problem_line = o.problem_line,
    n = { asked = 0, kept = 0, moved = 0, unmatched = 0, duplicates = 0, cached = 0 },
  }, Run)
  -- nothing but asking can be the matter with a text that was not met before
  self.plain = not (o.resumed or o.earlier or o.cache or o.meter.budget) and o.dedupe
  self.probing = o.probe ~= false and self.probe_rows or nil
  local call = { text = text_of, ordered = false }
  for name, value in pairs(o.call) do
    call[name] = value
  end
  if o.started then
    o.started(self)
  end
  if o.appended then
    take_over(self)
  end
  local scope <close> = core.open_scope()
  o.writer:begin(scope)
  local function work()
    repeat
      one_pass(self, o.client, call)
    until self.spent or self.ended and #self.again == 0
  end
  if o.grace then
    with_grace(self, scope, work)
  else
    work()
  end
  if self.spent then
    error(core.error("budget", ("the budget of %g USD is spent"):format(self.meter.budget)), 0)
  end
  o.writer:stop_tending()
  o.writer:ended(self.row)
  return self
end

return run
