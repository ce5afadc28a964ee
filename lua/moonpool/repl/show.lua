-- moonpool.repl.show: values for people: a matrix as its shape and first rows, a result as what came
-- and what it cost, an error as its facts, a table cut where it gets long.
local core = require "moonpool.core"
local thousands = require "moonpool.progress".thousands

local show = {}

local LIST = 12 -- entries of a table, rows of a matrix, unless more are asked for
local TEXT = 300 -- bytes of a string
local DEPTH = 3

--- Seconds as people read them.
function show.seconds(s)
  if s < 1e-3 then
    return ("%.0f us"):format(s * 1e6)
  end
  if s < 1 then
    return ("%.1f ms"):format(s * 1e3)
  end
  return ("%.2f s"):format(s)
end

local function kind_of(v)
  local meta = getmetatable(v)
  return type(meta) == "table" and rawget(meta, "__name") or type(v)
end

local function text_of(v, limit)
  if #v <= limit then
    return ("%q"):format(v):gsub("\\\n", "\\n")
  end
  local cut = v:sub(1, limit)
  while #cut > 0 and not utf8.len(cut) and #cut > limit - 4 do cut = cut:sub(1, -2) end
  return ("%q.. (%s bytes)"):format(cut, thousands(#v)):gsub("\\\n", "\\n")
end

-- ---- numbers ---------------------------------------------------------------------------------------------

local BLOCKS = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" }
local ASCII = { ".", ":", "-", "=", "+", "*", "#", "@" }

local function unicode()
  local locale = os.getenv "LC_ALL" or os.getenv "LC_CTYPE" or os.getenv "LANG" or "UTF-8"
  return locale == "" or locale:lower():find "utf" ~= nil
end

--- A list of numbers as one row of blocks, `cells` wide, with what its ends are.
function show.histogram(list, cells, unit)
  unit = unit or function(v) return ("%.4g"):format(v) end
  local low, high = math.huge, -math.huge
  for _, v in ipairs(list) do
    if v == v then
      low, high = math.min(low, v), math.max(high, v)
    end
  end
  if low > high then
    return "no numbers"
  end
  if low == high then
    return ("all %d are %s"):format(#list, unit(low))
  end
  local counts, most = {}, 0
  for i = 1, cells do counts[i] = 0 end
  for _, v in ipairs(list) do
    if v == v then
      local i = math.min(cells, 1 + math.floor((v - low) / (high - low) * cells))
      counts[i] = counts[i] + 1
      most = math.max(most, counts[i])
    end
  end
  local marks = unicode() and BLOCKS or ASCII
  for i, n in ipairs(counts) do
    counts[i] = n == 0 and " " or marks[math.max(1, math.ceil(n / most * #marks))]
  end
  return ("%s |%s| %s"):format(unit(low), table.concat(counts), unit(high))
end

--- The q-quantile of a list of numbers.
function show.quantile(list, q)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted)
  return sorted[math.max(1, math.ceil(q * #sorted))]
end

-- ---- what the library gives ------------------------------------------------------------------------------

local function row_text(row, width)
  local parts, n, sum = {}, #row, 0
  for i = 1, n do sum = sum + row[i] * row[i] end
  for i = 1, math.min(n, math.max(3, (width - 24) // 9)) do parts[i] = ("%8.4f"):format(row[i]) end
  return ("%s%s  |v| %.4f"):format(table.concat(parts, " "), n > #parts and " .." or "", math.sqrt(sum))
end

local function matrix_text(m, more, width)
  local rows, cols = m:rows(), m:cols()
  local lines = { ("matrix %s x %s, float32, %s bytes"):format(thousands(rows), thousands(cols),
    thousands(rows * cols * 4)) }
  local most = more or 3
  for i = 1, math.min(rows, most) do
    lines[#lines + 1] = ("  [%d] %s"):format(i, row_text(m:row(i), width))
  end
  if rows > most then
    lines[#lines + 1] = ("  .. %s more rows: show(_, N)"):format(thousands(rows - most))
  end
  return table.concat(lines, "\n")
end

local facts = { "status", "code", "attempts", "retry_after", "retryable", "request_id", "endpoint" }

local function error_text(err)
  local lines = { tostring(err) }
  for _, name in ipairs(facts) do
    if err[name] ~= nil then
      lines[#lines + 1] = ("  %-11s %s"):format(name, tostring(err[name]))
    end
  end
  if type(err.errors) == "table" and #err.errors > 0 then
    lines[#lines + 1] = ("  %-11s %s, the first: row %s: %s"):format("errors", thousands(#err.errors),
      tostring(err.errors[1].index), tostring(err.errors[1].error))
  end
  return table.concat(lines, "\n")
end

local function requests_lines(lines, res, width)
  local times, attempts, hedges = {}, 0, 0
  for i, r in ipairs(res.requests) do
    times[i] = r.time
    attempts = attempts + (r.attempts or 1)
    hedges = hedges + (r.hedges or 0)
  end
  if #times == 0 then
    return
  end
  lines[#lines + 1] = ("  requests    %s, %s attempts%s, median %s, slowest %s"):format(thousands(#times),
    thousands(attempts), hedges > 0 and (", %d hedges"):format(hedges) or "",
    show.seconds(show.quantile(times, 0.5)), show.seconds(show.quantile(times, 1)))
  if #times >= 8 then
    lines[#lines + 1] = "  latency     " .. show.histogram(times, math.min(40, width - 40), show.seconds)
  end
end

local function result_text(res, more, width)
  local lines = {}
  local n = res.matrix and res.matrix:rows() or res.results and #res.results or #res
  lines[1] = ("result: %s rows, %s, %s"):format(thousands(n),
    res.ok and "all well" or thousands(#res.errors) .. " failed", show.seconds(res.total_time or 0))
  if res.model then
    lines[#lines + 1] = "  model       " .. tostring(res.model)
  end
  if type(res.usage) == "table" then
    local tokens = res.usage.total_tokens or res.usage.prompt_tokens
    if tokens then
      lines[#lines + 1] = "  tokens      " .. thousands(tokens)
    end
  end
  requests_lines(lines, res, width)
  for i = 1, math.min(#(res.errors or {}), more or 5) do
    local e = res.errors[i]
    lines[#lines + 1] = ("  row %d: %s"):format(e.index, tostring(e.error))
  end
  if res.matrix then
    lines[#lines + 1] = matrix_text(res.matrix, more, width):gsub("^", "  "):gsub("\n", "\n  ")
  elseif res.results then
    local text = show.text(res.results, { more = more, width = width })
    lines[#lines + 1] = "  results     " .. text:gsub("\n", "\n  ")
  end
  return table.concat(lines, "\n")
end

local function is_result(v)
  return type(v) == "table" and type(v.requests) == "table" and v.total_time ~= nil and v.ok ~= nil
end

-- ---- tables ----------------------------------------------------------------------------------------------

local function key_text(k)
  if type(k) == "string" and k:find "^[%a_][%w_]*$" then
    return k
  end
  return "[" .. (type(k) == "string" and text_of(k, 40) or tostring(k)) .. "]"
end

local function by_key(a, b)
  if type(a) == type(b) and (type(a) == "string" or type(a) == "number") then
    return a < b
  end
  return type(a) < type(b) or (type(a) == type(b) and tostring(a) < tostring(b))
end

local function function_text(f)
  local info = debug.getinfo(f, "Su")
  if info.what == "C" then
    return "function in C"
  end
  local names = {}
  for i = 1, info.nparams do names[i] = debug.getlocal(f, i) end
  if info.isvararg then
    names[#names + 1] = "..."
  end
  return ("function(%s) %s:%d"):format(table.concat(names, ", "), info.short_src, info.linedefined)
end

local function entries(t, limit)
  local list, keys, n = {}, {}, 0
  local length = #t
  for i = 1, math.min(length, limit) do list[i] = { nil, t[i] } end
  for k in next, t do
    if not (math.type(k) == "integer" and k >= 1 and k <= length) then
      n = n + 1
      keys[n] = k
    end
  end
  table.sort(keys, by_key)
  for i = 1, math.min(n, limit - #list) do list[#list + 1] = { key_text(keys[i]), t[keys[i]] } end
  return list, length + n - #list
end

local write

local function table_text(t, state, depth)
  if state.seen[t] then
    return "(shown above)"
  end
  if depth > DEPTH then
    return next(t) == nil and "{}" or "{..}"
  end
  state.seen[t] = true
  local list, rest = entries(t, state.limit)
  local parts, length, lines = {}, 0, false
  for i, e in ipairs(list) do
    parts[i] = (e[1] and e[1] .. " = " or "") .. write(e[2], state, depth + 1)
    length = length + #parts[i] + 2
    lines = lines or parts[i]:find("\n", 1, true)
  end
  if rest > 0 then
    parts[#parts + 1] = (".. %s more: show(_, N)"):format(thousands(rest))
  end
  if #parts == 0 then
    return "{}"
  end
  if not lines and length + 2 * depth < state.width - 8 then
    return "{ " .. table.concat(parts, ", ") .. " }"
  end
  local pad = ("  "):rep(depth)
  return "{\n" .. pad .. "  " .. table.concat(parts, ",\n" .. pad .. "  ") .. "\n" .. pad .. "}"
end

function write(v, state, depth)
  local kind, t = kind_of(v), type(v)
  if t == "string" then
    return (text_of(v, depth == 0 and state.text or 60))
  end
  if t == "function" then
    return function_text(v)
  end
  if kind == "moonpool.matrix" then
    if depth == 0 then
      return matrix_text(v, state.more, state.width)
    end
    return ("matrix %d x %d"):format(v:rows(), v:cols())
  end
  if kind == "moonpool.row" then
    return ("row of %d: %s"):format(#v, row_text(v, state.width))
  end
  if t ~= "table" then
    return tostring(v)
  end
  if kind == "moonpool.error" then
    return depth == 0 and error_text(v) or tostring(v)
  end
  if depth == 0 and is_result(v) then
    return result_text(v, state.more, state.width)
  end
  local meta = getmetatable(v)
  if type(meta) == "table" and meta.__tostring then
    return tostring(v)
  end
  return table_text(v, state, depth)
end

--- A value as text. opts: more, how many entries or rows (12 and 3); width of the terminal.
function show.text(v, opts)
  opts = opts or {}
  local state = {
    seen = {}, more = opts.more, limit = opts.more or LIST, text = opts.more and math.huge or TEXT,
    width = opts.width or core.terminal_width(1) or 80,
  }
  return (write(v, state, 0))
end

return show
