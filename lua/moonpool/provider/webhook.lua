-- moonpool.provider.webhook: is this request to our webhook from Baseten, and is it fresh?
local core = require "moonpool.core"
local json = require "moonpool.json"

local M = {}

local MAX_SIGNATURES = 16
local DEFAULT_TOLERANCE = 300

-- Days since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
local function days(y, m, d)
  y = m <= 2 and y - 1 or y
  local era = y // 400
  local yoe = y - era * 400
  local doy = (153 * (m + (m > 2 and -3 or 9)) + 2) // 5 + d - 1
  return era * 146097 + yoe * 365 + yoe // 4 - yoe // 100 + doy - 719468
end

--- RFC 3339 as unix time, or nil; without a zone it is taken for UTC.
function M.unix_time(text)
  if type(text) ~= "string" then
    return nil
  end
  local y, mo, d, h, mi, s, rest = text:match "^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d):(%d%d%.?%d*)(.*)$"
  if not y then
    return nil
  end
  local sign, zh, zm = rest:match "^([+-])(%d%d):?(%d%d)$"
  if not sign and rest ~= "" and rest:upper() ~= "Z" then
    return nil
  end
  local zone = sign and (zh * 3600 + zm * 60) * (sign == "-" and -1 or 1) or 0
  local day = days(math.tointeger(y), math.tointeger(mo), math.tointeger(d))
  return day * 86400 + h * 3600 + mi * 60 + tonumber(s) - zone
end

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

-- The v1 signatures of a header "v1=hex,v1=hex".
local function signatures(header)
  local list = {}
  for version, value in header:gmatch "%s*(%w+)=([^,]*)" do
    if version == "v1" and #list < MAX_SIGNATURES then
      list[#list + 1] = value:match("^%s*(.-)%s*$"):lower()
    end
  end
  return list
end

local function signed(body, given, secrets)
  local good = false
  for _, secret in ipairs(secrets) do
    local want = hex(core.hmac_sha256(secret, body))
    for _, value in ipairs(given) do
      good = core.same_bytes(want, value) or good
    end
  end
  return good
end

local function bad(message, code)
  return nil, core.error("invalid", "webhook: " .. message, { code = code })
end

local function check_arguments(body, secrets)
  if type(body) ~= "string" then
    error("verify_webhook: body: the bytes of the request are needed", 3)
  end
  if type(secrets) == "string" then
    secrets = { secrets }
  end
  if type(secrets) ~= "table" or #secrets == 0 then
    error("verify_webhook: secrets: a secret or a list of secrets is needed", 3)
  end
  for i, secret in ipairs(secrets) do
    if type(secret) ~= "string" or secret == "" then
      error(("verify_webhook: secrets[%d]: a string that is not empty is needed"):format(i), 3)
    end
  end
  return secrets
end

--- verify(body, header, secrets, {tolerance = 300 s or false, now = unix time}): true and the payload;
--- or nil and an error of kind "invalid" whose code is signature, time or body. header is the value of
--- X-BASETEN-SIGNATURE, body the request's bytes as they came.
function M.verify(body, header, secrets, opts)
  secrets = check_arguments(body, secrets)
  opts = opts or {}
  if type(header) ~= "string" then
    return bad("no signature", "signature")
  end
  if not signed(body, signatures(header), secrets) then
    return bad("the signature is wrong", "signature")
  end
  local payload, why = json.decode(body)
  if payload == nil then
    return bad("the body is not JSON: " .. tostring(why), "body")
  end
  local tolerance = opts.tolerance == nil and DEFAULT_TOLERANCE or opts.tolerance
  if tolerance then
    local sent = type(payload) == "table" and M.unix_time(payload.time)
    if not sent then
      return bad("the payload has no time", "time")
    end
    local age = (opts.now or core.wall()) - sent
    if math.abs(age) > tolerance then
      return bad(("the payload is %d s old, %d are allowed"):format(math.floor(age), tolerance), "time")
    end
  end
  return true, payload
end

return M
