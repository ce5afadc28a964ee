-- moonpool.job.cost: tokens and money: what a job will take at most, what it has taken, when to stop.
local core = require "moonpool.core"

local cost = {}

local BOUND = 0.45 -- tokens a byte, until the service has told
local ENOUGH = 20000 -- tokens before its own figure is believed
local SECONDS = 0.5 -- a request, where nothing else bounds the time

local Meter = {}
Meter.__index = Meter

--- A meter: price in USD for a million tokens, budget in USD, before: what earlier runs of the job took.
function cost.meter(o)
  return setmetatable({
    price = o.price, budget = o.budget, tokens = 0, before = o.before or {}, bytes = 0, counted = 0,
    reserved = 0,
  }, Meter)
end

local function money(self, tokens)
  return self.price and tokens * self.price / 1e6 or nil
end

--- Tokens a byte: an upper bound first, then what the service counted, with some room.
function Meter:ratio()
  if self.counted < ENOUGH then
    return BOUND
  end
  return math.min(BOUND, 1.1 * self.counted / self.bytes)
end

function Meter:total_tokens()
  return self.tokens + (self.before.tokens or 0)
end

--- USD so far, of all runs; nil without a price.
function Meter:cost()
  return money(self, self:total_tokens())
end

--- Takes a text's tokens out of the budget: false once it does not reach.
function Meter:reserve(item)
  if not self.budget then
    return true
  end
  local tokens = math.ceil(#item.text * self:ratio())
  if money(self, self:total_tokens() + self.reserved + tokens) > self.budget then
    return false
  end
  item.reserved = tokens
  self.reserved = self.reserved + tokens
  return true
end

--- What a batch took; where the service does not tell it is the bound.
function Meter:take(batch)
  local bytes = 0
  for _, item in ipairs(batch.items) do
    bytes = bytes + #(item.text or "")
    self.reserved = self.reserved - (item.reserved or 0)
    item.reserved = nil
  end
  local usage = batch.usage
  local tokens = usage and (usage.total_tokens or usage.prompt_tokens)
  if tokens then
    self.bytes, self.counted = self.bytes + bytes, self.counted + tokens
  elseif batch.matrix then
    tokens = math.ceil(bytes * BOUND)
  end
  self.tokens = self.tokens + (tokens or 0)
end

-- ---- before anything is sent --------------------------------------------------------------------

-- Seconds at least, by the limits that were given.
local function seconds_of(requests, tokens, o)
  local seconds = requests * SECONDS / math.max(1, math.min(requests, o.max_concurrent or 128))
  if o.rpm then
    seconds = math.max(seconds, requests / o.rpm * 60)
  end
  if o.tpm then
    seconds = math.max(seconds, tokens / o.tpm * 60)
  end
  return seconds
end

--- cost.estimate(source, {earlier=, batch_size=, dedupe=, price=, rpm=, tpm=, max_concurrent=}): rows, those
--- to ask, tokens at most, requests, USD, seconds. Reads the source to its end and sends nothing.
function cost.estimate(source, o)
  local ledger = core.job_ledger()
  local e = { rows = 0, failed = 0, asked = 0, duplicates = 0, kept = 0, bytes = 0 }
  for item in function() return source:next() end do
    item.row = e.rows
    e.rows = e.rows + 1
    if item.problem then
      e.failed = e.failed + 1
    elseif o.earlier and o.earlier:look(item) then
      e.kept = e.kept + 1
    elseif o.dedupe and ledger:seen(item, item.row) then
      e.duplicates = e.duplicates + 1
    else
      e.asked, e.bytes = e.asked + 1, e.bytes + #item.text
    end
  end
  ledger:close()
  local size = o.batch_size or 128
  e.tokens = math.ceil(e.bytes * BOUND)
  e.requests = (e.asked + size - 1) // size
  e.cost = o.price and e.tokens * o.price / 1e6 or nil
  e.seconds = seconds_of(e.requests, e.tokens, o)
  return e
end

return cost
