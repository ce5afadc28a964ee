-- moonpool.json: compact strict JSON.
--
--   json.encode(value [, {sort_keys=, root=, max=}])  -> text, or nil and "value.a[3]: the reason"
--   json.decode(text)                                 -> value, or nil and "line 1, column 5 ..."
--   json.null           JSON's null, in both directions
--   json.array(t)       marks t as a list, so that an empty one is written []
--   json.object(t)      marks t as an object
local core = require "moonpool.core"

return {
  encode = core.json_encode,
  decode = core.json_decode,
  null = core.json_null,
  array = core.json_array,
  object = core.json_object,
}
