-- moonpool.mock.parse: the little languages of the mock's options. Each parser takes what the command
-- line gives (text) or what a script gives (numbers too) and returns nil and a message when it is no
-- good.

local M = {}

local units = { ms = 1e-3, s = 1, [""] = 1, m = 60, h = 3600 }

--- "20ms", "5s", "1.5", 0.02 -> seconds
function M.duration(text)
  if type(text) == "number" then
    if text >= 0 and text < math.huge then
      return text + 0.0
    end
    return nil, "a duration cannot be negative"
  end
  local number, unit = tostring(text):match("^%s*([%d.]+)%s*(%a*)%s*$")
  local value = tonumber(number)
  if not value or not units[unit] then
    return nil, ("'%s' is no duration (5s, 20ms or plain seconds)"):format(tostring(text))
  end
  return value * units[unit]
end

--- "0.01", "1%" -> a share from 0 to 1
function M.share(text)
  local value = tonumber(text)
  local percent = type(text) == "string" and text:match("^%s*([%d.]+)%%%s*$")
  if percent then
    value = tonumber(percent) and tonumber(percent) / 100
  end
  if not value or value < 0 or value > 1 then
    return nil, ("'%s' is no share (0 to 1)"):format(tostring(text))
  end
  return value + 0.0
end

local function count(text)
  local value = math.tointeger(tonumber(text))
  if not value or value < 0 then
    return nil, ("'%s' is no whole number"):format(tostring(text))
  end
  return value
end
M.count = count

local function split(text, sep)
  local parts = {}
  for part in (tostring(text) .. sep):gmatch("(.-)" .. sep) do
    parts[#parts + 1] = part
  end
  return parts
end

-- ---- latency --------------------------------------------------------------------------------

-- Each distribution is a function of a uniform draw's source: draw() gives numbers in [0, 1).
local distributions = {}

function distributions.lognormal(median, sigma)
  return function(draw)
    local radius = math.sqrt(-2 * math.log(1 - draw()))
    return median * math.exp(sigma * radius * math.cos(2 * math.pi * draw()))
  end
end

function distributions.uniform(low, high)
  return function(draw)
    return low + (high - low) * draw()
  end
end

function distributions.exp(mean)
  return function(draw)
    return -mean * math.log(1 - draw())
  end
end

local function parameters(name, text)
  local parts = split(text, ",")
  local list = {}
  for i, part in ipairs(parts) do
    local value, err
    if name == "lognormal" and i == 2 then
      value, err = tonumber(part), "sigma must be a number"
    else
      value, err = M.duration(part)
    end
    if not value then
      return nil, err
    end
    list[i] = value
  end
  local wanted = name == "exp" and 1 or 2
  if #list ~= wanted then
    return nil, ("%s needs %d parameters"):format(name, wanted)
  end
  return list
end

--- "20ms", "lognormal:20ms,0.2", "uniform:10ms,30ms", "exp:20ms" -> function(draw) -> seconds
function M.latency(text)
  local name, rest = tostring(text):match("^(%a+):(.*)$")
  if not name then
    local value, err = M.duration(text)
    if not value then
      return nil, err
    end
    return function()
      return value
    end
  end
  if not distributions[name] then
    return nil, ("no distribution '%s' (lognormal, uniform, exp)"):format(name)
  end
  local list, err = parameters(name, rest)
  if not list then
    return nil, err
  end
  return distributions[name](list[1], list[2])
end

-- ---- faults ---------------------------------------------------------------------------------

local function status(text)
  local value = count(text)
  if not value or value < 200 or value > 599 then
    return nil, ("'%s' is no status"):format(tostring(text))
  end
  return value
end

--- "0.01:5s" -> {share=, duration=}
function M.slow(text)
  local parts = split(text, ":")
  local share, err = M.share(parts[1])
  local duration, err2 = M.duration(parts[2] or "")
  if not share or not duration or #parts > 2 then
    return nil, "slow is SHARE:DURATION: " .. (err or err2 or tostring(text))
  end
  return { share = share, duration = duration }
end

--- "429:0.1" or "429:0.1:retry-after=2" -> {status=, share=, headers=}
function M.error(text)
  local parts = split(text, ":")
  local code, err = status(parts[1])
  local share, err2 = M.share(parts[2] or "")
  if not code or not share then
    return nil, "error is STATUS:SHARE[:retry-after=SECONDS]: " .. (err or err2)
  end
  local spec = { status = code, share = share, headers = {} }
  for i = 3, #parts do
    local name, value = parts[i]:match("^([%w-]+)=(.+)$")
    if not name then
      return nil, ("'%s' is no header=value"):format(parts[i])
    end
    spec.headers[name:lower()] = value
  end
  return spec
end

--- "30:20s[:refuse]" -> {start=, duration=, refuse=}
function M.outage(text)
  local parts = split(text, ":")
  local start, err = M.duration(parts[1])
  local duration, err2 = M.duration(parts[2] or "")
  if not start or not duration or (parts[3] and parts[3] ~= "refuse") then
    return nil, "outage is START:DURATION[:refuse]: " .. (err or err2 or parts[3])
  end
  return { start = start, duration = duration, refuse = parts[3] == "refuse" }
end

--- "600,60000" -> {rpm=, tpm=}; 0 or nothing: no limit of that kind
function M.quota(text)
  local parts = split(text, ",")
  local rpm = tonumber(parts[1] ~= "" and parts[1] or 0)
  local tpm = tonumber(parts[2] ~= "" and parts[2] or 0)
  if not rpm or not tpm or rpm < 0 or tpm < 0 then
    return nil, "quota is RPM,TPM"
  end
  return { rpm = rpm, tpm = tpm }
end

--- "8" or "8:503" -> {limit=, status=}
function M.concurrency(text)
  local parts = split(text, ":")
  local limit, err = count(parts[1])
  local code, err2 = status(parts[2] or 429)
  if not limit or limit == 0 or not code then
    return nil, "concurrency is N[:STATUS]: " .. (err or err2 or "N must be positive")
  end
  return { limit = limit, status = code }
end

--- "5:503" -> {count=, status=}
function M.fail_first(text)
  local parts = split(text, ":")
  local n, err = count(parts[1])
  local code, err2 = status(parts[2] or "")
  if not n or not code then
    return nil, "fail-first is N:STATUS: " .. (err or err2)
  end
  return { count = n, status = code }
end

--- "5:3s" -> {count=, duration=}
function M.stall_first(text)
  local parts = split(text, ":")
  local n, err = count(parts[1])
  local duration, err2 = M.duration(parts[2] or "")
  if not n or not duration then
    return nil, "stall-first is N:DURATION: " .. (err or err2)
  end
  return { count = n, duration = duration }
end

return M
