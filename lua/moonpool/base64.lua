-- moonpool.base64: RFC 4648, strict.
--
--   base64.encode(bytes)  -> text, with padding
--   base64.decode(text)   -> bytes, or nil and the reason
local core = require "moonpool.core"

return { encode = core.base64_encode, decode = core.base64_decode }
