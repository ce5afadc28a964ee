-- moonpool.mock.quota: requests and tokens a minute, enforced over one-second windows.
--
-- Each second admits a sixtieth. A request is admitted while its window has anything left and what it
-- uses beyond goes into the next windows' account, so the average is exact and a batch larger than one
-- window's tokens can pass at all.

local core = require "moonpool.core"

local quota = {}
quota.__index = quota

local function new(spec)
  return setmetatable({
    rpm = spec.rpm, tpm = spec.tpm, window = 0, start = core.now(), requests = 0, tokens = 0,
  }, quota)
end

local function roll(used, limit, windows)
  return math.max(0, used - limit * windows)
end

function quota:advance()
  local window = math.floor(core.now() - self.start)
  local passed = window - self.window
  if passed > 0 then
    self.requests = roll(self.requests, self.rpm / 60, passed)
    self.tokens = roll(self.tokens, self.tpm / 60, passed)
    self.window = window
  end
end

-- Seconds until the window in which `used` is below the limit again.
function quota:wait_for(used, limit)
  local windows = math.max(1, math.ceil((used - limit) / limit + 1e-9))
  return self.start + self.window + windows - core.now()
end

local function left(used, limit)
  return ("%d"):format(math.max(0, math.floor(limit - used)))
end

local function in_ms(seconds)
  return ("%dms"):format(math.max(0, math.ceil(seconds * 1000)))
end

local function describe(self, headers)
  local reset = self.start + self.window + 1 - core.now()
  if self.rpm > 0 then
    headers["x-ratelimit-limit-requests"] = ("%d"):format(self.rpm)
    headers["x-ratelimit-remaining-requests"] = left(self.requests, self.rpm / 60)
    headers["x-ratelimit-reset-requests"] = in_ms(reset)
  end
  if self.tpm > 0 then
    headers["x-ratelimit-limit-tokens"] = ("%d"):format(self.tpm)
    headers["x-ratelimit-remaining-tokens"] = left(self.tokens, self.tpm / 60)
    headers["x-ratelimit-reset-tokens"] = in_ms(reset)
  end
end

--- admit(tokens, headers): true, or false and what ran out ("requests" or "tokens"); fills headers.
function quota:admit(tokens, headers)
  self:advance()
  local per_second, tokens_per_second = self.rpm / 60, self.tpm / 60
  local over, wait
  if self.rpm > 0 and self.requests + 1 > per_second and self.requests > 0 then
    over, wait = "requests", self:wait_for(self.requests + 1, per_second)
  elseif self.tpm > 0 and self.tokens > 0 and self.tokens + tokens > tokens_per_second then
    over, wait = "tokens", self:wait_for(self.tokens + math.min(tokens, tokens_per_second),
      tokens_per_second)
  else
    self.requests = self.requests + 1
    self.tokens = self.tokens + tokens
  end
  describe(self, headers)
  if over then
    headers["retry-after-ms"] = ("%d"):format(math.max(1, math.ceil(wait * 1000)))
    headers["retry-after"] = ("%d"):format(math.max(1, math.ceil(wait)))
  end
  return not over, over
end

return { new = new }
