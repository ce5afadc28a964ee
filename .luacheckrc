std = "lua54"
max_line_length = 110
max_cyclomatic_complexity = 25
self = false
files["**/*_spec.lua"] = { std = "+busted" }
files["tests/bench/post.lua"] = { globals = { "wrk" } }
files["lua/resty/**/*.lua"] = { std = "ngx_lua" }
