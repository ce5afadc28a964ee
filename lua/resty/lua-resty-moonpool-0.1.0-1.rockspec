-- The Lua side only: libmoonpool.so.0 comes from `make install`. `luarocks make` in build/opm, after `make opm`.
package = "lua-resty-moonpool"
version = "0.1.0-1"
source = { url = "file://." }
description = {
  summary = "Embeddings inside nginx and OpenResty: batched, retried, hedged by libmoonpool's engine",
  license = "MIT",
}
dependencies = { "lua == 5.1" }
build = {
  type = "builtin",
  modules = {
    ["resty.moonpool"] = "lib/resty/moonpool.lua",
    ["resty.moonpool.abi"] = "lib/resty/moonpool/abi.lua",
    ["resty.moonpool.cdef"] = "lib/resty/moonpool/cdef.lua",
  },
}
