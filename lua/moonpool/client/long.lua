-- moonpool.client.long: texts that are longer than a model takes: cut, refused, or embedded in pieces
-- whose mean stands for the whole; said by row, and counted.
local call = require "moonpool.client.call"
local matrix = require "moonpool.matrix"
local options = require "moonpool.options"
local R = options.rule

local M = {}

local BYTES_A_TOKEN = 4 -- of ordinary text; what a model counts is its own affair

M.rules = {
  long = R.one_of("truncate", "refuse", "chunk"),
  max_input = R.either(R.count, R.table),
}
local limit_rules = { chars = R.count, tokens = R.count }

-- {chars =} or {bytes =}: what one text may have.
local function limit_of(opts, limits, where, level)
  local given = opts.max_input or limits.text
  if type(given) == "number" then
    given = { tokens = given }
  end
  if not given then
    error(where .. ": long: max_input is needed: the provider does not say what its model takes", level + 1)
  end
  options.check(where .. ": max_input", given, limit_rules, level + 1)
  if given.chars then
    return { n = given.chars, chars = true, unit = "characters" }
  end
  return { n = (given.tokens or 0) * BYTES_A_TOKEN, unit = "bytes" }
end

local function size_of(text, limit)
  return limit.chars and (utf8.len(text) or #text) or #text
end

-- Byte position behind the longest beginning of text[from..] that the limit takes, at a character.
local function stop_at(text, from, limit)
  if limit.chars then
    return (utf8.offset(text, limit.n + 1, from) or #text + 1) - 1
  end
  local stop = math.min(from + limit.n - 1, #text)
  if stop < #text then
    while stop > from and text:byte(stop + 1) >= 0x80 and text:byte(stop + 1) < 0xC0 do
      stop = stop - 1
    end
  end
  return stop
end

-- Pieces that end between words where there is a space in their last quarter.
local function pieces_of(text, limit)
  local pieces, from = {}, 1
  while from <= #text do
    local stop = stop_at(text, from, limit)
    if stop < #text then
      local least = from + (stop - from) * 3 // 4
      local space = text:sub(least, stop):match "^.*()%s"
      if space then
        stop = least + space - 1
      end
    end
    local piece = text:sub(from, stop)
    if piece:find "%S" then
      pieces[#pieces + 1] = piece
    end
    from = stop + 1
  end
  return pieces
end

-- What is sent for the texts: pieces, each with its row; and what was done to whom.
local function plan(texts, mode, limit, where)
  local p = { pieces = {}, row = {}, cut = {}, chunked = {}, errors = {} }
  local function add(piece, row)
    p.pieces[#p.pieces + 1], p.row[#p.row + 1] = piece, row
  end
  for i, text in ipairs(texts) do
    local size = type(text) == "string" and utf8.len(text) and size_of(text, limit)
    if not size or size <= limit.n then
      add(text, i)
    elseif mode == "truncate" then
      p.cut[#p.cut + 1] = i
      add(text:sub(1, stop_at(text, 1, limit)), i)
    elseif mode == "chunk" then
      p.chunked[#p.chunked + 1] = i
      for _, piece in ipairs(pieces_of(text, limit)) do add(piece, i) end
    else
      p.errors[#p.errors + 1] = { index = i, error = call.error("too_large",
        ("%s: input %d has %d %s, the model takes %d"):format(where, i, size, limit.unit, limit.n),
        { row = i, retryable = false }) }
    end
  end
  return p
end

-- The mean of pieces, by their lengths, of length 1.
local function mean(vectors, pieces)
  local sum = {}
  for k = 1, #vectors[1] do sum[k] = 0 end
  for v, vector in ipairs(vectors) do
    local weight = #pieces[v]
    for k = 1, #sum do sum[k] = sum[k] + weight * vector[k] end
  end
  local m = matrix.from { sum }
  m:normalize()
  return m:row(1)
end

local function errors_by_row(p, list)
  local failed = {}
  for _, e in ipairs(list) do failed[p.row[e.index]] = failed[p.row[e.index]] or e.error end
  for row, err in pairs(failed) do p.errors[#p.errors + 1] = { index = row, error = err } end
  table.sort(p.errors, function(a, b) return a.index < b.index end)
  return failed
end

-- The rows of the pieces as rows of the texts.
local function assemble(p, res, n, failed)
  local of_row, nothing = {}, {}
  for k = 1, res.matrix:cols() do nothing[k] = 0 / 0 end
  for i, row in ipairs(p.row) do
    of_row[row] = of_row[row] or { vectors = {}, pieces = {} }
    table.insert(of_row[row].vectors, res[i])
    table.insert(of_row[row].pieces, p.pieces[i])
  end
  local rows = {}
  for i = 1, n do
    local all = of_row[i]
    if not all or failed[i] then
      rows[i] = nothing
    else
      rows[i] = all.vectors[2] and mean(all.vectors, all.pieces) or all.vectors[1]
    end
  end
  return matrix.from(rows)
end

--- embed with opts.long: embed(options) is the plain call.
function M.embed(embed, texts, opts, limits, where, level)
  local limit = limit_of(opts, limits, where, level + 1)
  local p = plan(texts, opts.long, limit, where)
  if #p.pieces == 0 then
    local err = p.errors[1].error
    err.errors = p.errors
    return nil, err
  end
  local o = {}
  for name, value in pairs(opts) do o[name] = value end
  o.long, o.max_input, o.input = nil, nil, p.pieces
  local res, err = embed(o)
  if not res then
    if err.errors then
      errors_by_row(p, err.errors)
      err.errors = p.errors
    end
    return nil, err
  end
  local failed = errors_by_row(p, res.errors)
  rawset(res, "matrix", assemble(p, res, #texts, failed))
  res._info.rows = #texts
  res.errors, res.ok = p.errors, #p.errors == 0
  res.cut, res.chunked = p.cut, p.chunked
  if #p.cut > 0 then
    res.rows_cut = (res.rows_cut or 0) + #p.cut
  end
  return res
end

return M
