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

-- Seconds until the window in which something is left again.
function quota:wait_for(used, limit)
  local windows = math.floor(used / limit + 1e-9)
  return self.start + self.window + math.max(1, windows) - core.now()
end

local function in_ms(seconds)
  return ("%dms"):format(math.max(0, math.ceil(seconds * 1000)))
end

-- remaining is what is left of this second; reset, when something is left again.
local function describe(self, headers, name, used, per_minute)
  local limit = per_minute / 60
  headers["x-ratelimit-limit-" .. name] = ("%d"):format(per_minute)
  headers["x-ratelimit-remaining-" .. name] = ("%d"):format(math.max(0, math.floor(limit - used)))
  headers["x-ratelimit-reset-" .. name] = in_ms(self:wait_for(used, limit))
end

local function left(used, per_minute)
  return per_minute == 0 or used < per_minute / 60 - 1e-9
end

--- admit(tokens, headers): true, or false and what ran out ("requests" or "tokens"); fills headers.
function quota:admit(tokens, headers)
  self:advance()
  local wait, over = 0, nil
  if not left(self.tokens, self.tpm) then
    wait, over = self:wait_for(self.tokens, self.tpm / 60), "tokens"
  end
  if not left(self.requests, self.rpm) then
    wait, over = math.max(wait, self:wait_for(self.requests, self.rpm / 60)), "requests"
  end
  if not over then
    self.requests = self.requests + 1
    self.tokens = self.tokens + tokens
  else
    headers["retry-after-ms"] = ("%d"):format(math.max(1, math.ceil(wait * 1000)))
    headers["retry-after"] = ("%d"):format(math.max(1, math.ceil(wait)))
  end
  if self.rpm > 0 then
    describe(self, headers, "requests", self.requests, self.rpm)
  end
  if self.tpm > 0 then
    describe(self, headers, "tokens", self.tokens, self.tpm)
  end
  return not over, over
end

return { new = new }
