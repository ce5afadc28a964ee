-- The Lua side only: libmoonpool.so.0 comes from `make install`.
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
  modules = { ["resty.moonpool"] = "moonpool.lua", ["resty.moonpool.abi"] = "moonpool/abi.lua" },
}
