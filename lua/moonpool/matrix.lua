-- moonpool.matrix: float32 rows in C memory.
--
--   matrix.from{{1, 2}, {3, 4}}   a copy of a table of rows (tables of numbers, or row views)
--   matrix.from(rows, cols)       zeros
--   matrix.from(bytes, cols)      packed little-endian float32, as m:bytes() gives them
--   matrix.concat{m, ...}         the rows of all, one below the other
--   matrix.load_npy(path)         or nil and the reason
--
-- A matrix m: #m, m[i], m:row(i), m:rows(), m:cols(), m:dot(i, vector), m:normalize(),
-- m:topk(vector, k [, "cosine" | "dot"]), m:bytes(), m:totable(), m:save_npy(path), m:free().
-- A row view v: v[1] .. v[#v], v:dot(other), v:totable(), v:bytes(). It keeps the numbers alive.
local core = require "moonpool.core"

return { from = core.matrix_from, concat = core.matrix_concat, load_npy = core.npy_load }
