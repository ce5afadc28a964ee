-- moonpool.gateway.limits: how much a caller may use in a window that slides.
--
-- A window is cut into 60 slices and the sum of the last 60 and of the one under way counts, so at
-- most the limit is used in any stretch of the window's length, and none comes back in one burst.
local now = require "moonpool.core".now

local M = {}

local SLICES = 60

local window = {}
window.__index = window

--- window(limit, seconds)
function M.window(limit, seconds)
  return setmetatable({
    limit = limit, width = seconds / SLICES, sum = 0, used = {}, first = 0, at = 0,
  }, window)
end

-- Forgets the slices that have left the window; returns the number of the current one.
function window:slide()
  local slice = now() // self.width
  if slice == self.at then
    return slice
  end
  local oldest = slice - SLICES
  local used = self.used
  if oldest - self.first > 2 * SLICES then
    self.used, self.sum = {}, 0
  else
    for i = self.first, oldest - 1 do
      local n = used[i]
      if n then
        self.sum, used[i] = self.sum - n, nil
      end
    end
    -- what rounding has left of money
    if next(used) == nil then
      self.sum = 0
    end
  end
  self.first, self.at = oldest, slice
  return slice
end

--- Seconds until n more fit, 0 now; nil when they never will.
function window:wait(n)
  local slice = self:slide()
  if self.sum + n <= self.limit then
    return 0
  end
  if n > self.limit then
    return nil
  end
  local sum = self.sum
  for i = self.first, slice do
    sum = sum - (self.used[i] or 0)
    if sum + n <= self.limit then
      return math.max((i + SLICES + 1) * self.width - now(), 0.001)
    end
  end
  return SLICES * self.width
end

--- Uses n; negative gives back.
function window:use(n)
  local slice = self:slide()
  self.used[slice] = (self.used[slice] or 0) + n
  self.sum = self.sum + n
end

--- What is used now.
function window:level()
  self:slide()
  return self.sum
end

-- ---- a caller's windows -----------------------------------------------------------------------

local account = {}
account.__index = account

-- {rpm=, tpm=, budget={requests=, tokens=, usd=, window=}, concurrency=}; nil when there is nothing.
function M.account(o)
  local list = {}
  local function add(kind, limit, seconds, name)
    if limit then
      list[#list + 1] = { kind = kind, name = name, window = M.window(limit, seconds) }
    end
  end
  add("requests", o.rpm, 60, "requests a minute")
  add("tokens", o.tpm, 60, "tokens a minute")
  for _, b in ipairs(o.budget and (o.budget[1] and o.budget or { o.budget }) or {}) do
    add("requests", b.requests, b.window, "budget of requests")
    add("tokens", b.tokens, b.window, "budget of tokens")
    add("usd", b.usd, b.window, "budget of money")
  end
  if #list == 0 and not o.concurrency then
    return nil
  end
  return setmetatable({ list = list, concurrency = o.concurrency, open = 0 }, account)
end

local function amount(kind, tokens, price)
  if kind == "requests" then
    return 1
  end
  if kind == "tokens" then
    return tokens
  end
  return tokens * price / 1e6
end

--- Takes a request of about so many tokens, at USD a million: nil, or what is used up and for how
--- long (seconds; nil: for ever).
function account:take(tokens, price)
  if self.concurrency and self.open >= self.concurrency then
    return "requests at once", 1
  end
  for _, one in ipairs(self.list) do
    local seconds = one.window:wait(amount(one.kind, tokens, price))
    if seconds ~= 0 then
      return one.name, seconds
    end
  end
  for _, one in ipairs(self.list) do one.window:use(amount(one.kind, tokens, price)) end
  self.open = self.open + 1
end

--- The request taken so has ended and used `tokens`; failed: nothing is charged.
function account:settle(taken, tokens, price, failed)
  self.open = self.open - 1
  for _, one in ipairs(self.list) do
    local charged = amount(one.kind, taken, price)
    local due = failed and 0 or amount(one.kind, tokens, price)
    if one.kind == "requests" then
      due = charged
    end
    if due ~= charged then
      one.window:use(due - charged)
    end
  end
end

return M
