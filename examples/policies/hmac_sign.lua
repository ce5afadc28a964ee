-- hmac_sign - every attempt signed as it leaves, with the time of its leaving.
--
--   local sign = require "examples.policies.hmac_sign" { secret = os.getenv "GATEWAY_SECRET" }
--   local client = moonpool.client { base_url = url, policy = sign }
--
-- Sends X-Timestamp (unix seconds) and X-Signature = hex HMAC-SHA256 of "timestamp.method.path.body". A
-- retry is signed anew, so a server may refuse old timestamps. The secret stays inside: no view, error
-- or log shows it.
--
-- Options: secret; signature_header, timestamp_header; clock = os.time.

local core = require "moonpool.core"

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

return function(o)
  local secret = assert(o.secret, "hmac_sign: secret: missing")
  local clock = o.clock or os.time
  local signature_header = o.signature_header or "X-Signature"
  local timestamp_header = o.timestamp_header or "X-Timestamp"
  return {
    name = "hmac_sign",
    before_request = function(view)
      local at = ("%d"):format(clock())
      local text = table.concat({ at, view.method, view.path, view.body or "" }, ".")
      return { headers = {
        [timestamp_header] = at, [signature_header] = hex(core.hmac_sha256(secret, text)),
      } }
    end,
  }
end
