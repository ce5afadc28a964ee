-- moonpool run examples/embed_each.lua IN.txt OUTDIR [URL]
--
-- A file of any length, one text a line, becomes a row of .npy parts. Memory stays small: embed_each
-- reads ahead only as far as its batches in flight reach, and hands out each batch when it is done.
local moonpool = require "moonpool"

local input, outdir, url = arg[1], arg[2], arg[3] or "http://127.0.0.1:8089"
if not outdir then
  io.stderr:write "usage: moonpool run examples/embed_each.lua IN.txt OUTDIR [URL]\n"
  os.exit(2)
end
os.execute("mkdir -p '" .. outdir:gsub("'", "'\\''") .. "'")

local client <close> = moonpool.client { base_url = url }

local rows, failed = 0, 0
for batch in client:embed_each(io.lines(input), { model = "local-demo", batch_size = 64 }) do
  if batch.matrix then -- else no text of the batch came through
    assert(batch.matrix:save_npy(string.format("%s/rows-%09d.npy", outdir, batch.first)))
  end
  rows = rows + batch.count
  failed = failed + #batch.errors
end
print(string.format("%d rows, %d failed, in %s", rows, failed, outdir))
moonpool.exit(failed > 0 and 3 or 0)
