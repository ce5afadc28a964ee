-- moonpool.gateway.callers: who asks, and what they may still use.
local failure = require "moonpool.gateway.dialect".failure
local limits = require "moonpool.gateway.limits"

local M = {}

local MAX_CALLERS = 65536 -- accounts kept of callers without a key

local function key_of(req)
  local value = req:header "authorization"
  if value then
    return value:match "^[Bb][Ee][Aa][Rr][Ee][Rr]%s+(%S+)%s*$"
  end
  return req:header "x-api-key" or req:header "api-key"
end

-- A caller without a key of their own: counted by address, or by a header.
local function account_of_caller(setup, req)
  local o = setup.config.caller
  if not o then
    return nil
  end
  local by = o.by or "peer"
  local who = by == "peer" and (req.peer:match "^(.*):%d+$" or req.peer)
    or req:header(by:match "^header:(.+)$" or by) or "?"
  local account = setup.callers[who]
  if not account then
    if setup.ncallers >= MAX_CALLERS then
      setup.callers, setup.ncallers = {}, 0
    end
    account = limits.account(o)
    setup.callers[who], setup.ncallers = account, setup.ncallers + 1
  end
  return account, who
end

-- Whose request it is: fills ctx.key, ctx.account, ctx.flow; or the error.
function M.identify(setup, req, ctx)
  local keys = setup.config.keys
  if keys then
    local given = key_of(req)
    local key = given and keys[given]
    if not key then
      return failure("unauthorized", given and "incorrect API key provided" or
        "no API key was given: send 'Authorization: Bearer KEY'")
    end
    ctx.key, ctx.account, ctx.flow = key, setup.accounts[key.name], key.name
    if not setup.config.caller then
      return nil
    end
  end
  local account, who = account_of_caller(setup, req)
  if account then
    if ctx.account then
      ctx.second = account
    else
      ctx.account = account
    end
    ctx.flow = ctx.flow or who
  end
end

local function refusal(ctx, what, seconds)
  ctx.retry_after = seconds
  local budget = what:find("budget", 1, true)
  return failure("rate_limited", ("the caller's %s used up%s"):format(
    what .. (budget and " is" or " are"),
    seconds and (": try again in %.0f s"):format(math.max(1, math.ceil(seconds))) or ""),
    { code = budget and "insufficient_quota" or "rate_limit_exceeded" })
end

-- Takes the request from the caller's accounts; the error when one is used up.
function M.admit(ctx, tokens, price)
  ctx.tokens, ctx.price = tokens, price or 0
  local account = ctx.account
  if not account then
    return nil
  end
  local what, seconds = account:take(tokens, ctx.price)
  if what then
    return refusal(ctx, what, seconds)
  end
  ctx.taken = true
  if ctx.second then
    what, seconds = ctx.second:take(tokens, ctx.price)
    if what then
      return refusal(ctx, what, seconds)
    end
    ctx.second_taken = true
  end
end

function M.settle(ctx, tokens, failed)
  tokens = tokens or ctx.tokens
  if ctx.taken then
    ctx.taken = nil
    ctx.account:settle(ctx.tokens, tokens, ctx.price, failed)
  end
  if ctx.second_taken then
    ctx.second_taken = nil
    ctx.second:settle(ctx.tokens, tokens, ctx.price, failed)
  end
end

return M
