-- each.lua URL ROWS - the rows of 128-row replies of tests/bench/replay.c through embed_each, checked.
local moonpool = require "moonpool"

local url, rows = arg[1], tonumber(arg[2])
local client <close> = moonpool.client {
  base_url = url, model = "m", pool = { max_connections = 4 }, max_concurrent_requests = 4,
}

local given, seen = 0, 0
local function texts()
  if given < rows then
    given = given + 1
    return "The quick brown fox"
  end
end

for batch in client:embed_each(texts, { batch_size = 128, encoding_format = "base64" }) do
  assert(not next(batch.errors or {}) and batch.matrix:rows() == batch.count, "a batch failed")
  seen = seen + batch.count
end
assert(seen == rows, "rows are missing")
