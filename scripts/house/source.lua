-- source: the files that the checks read, and their text with comments and strings blanked out.
local source = {}

source.root = "."

--- Lines that a shell command prints.
function source.lines_of(command)
  local pipe = assert(io.popen(command, "r"))
  local list = {}
  for line in pipe:lines() do
    list[#list + 1] = line
  end
  pipe:close()
  return list
end

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end
source.quoted = quoted

--- Paths under a folder of the root, sorted, whose names end so ("%.c$").
function source.find(folder, ending)
  local list = {}
  local command = ("cd %s && find %s -type f 2>/dev/null | LC_ALL=C sort"):format(
    quoted(source.root), quoted(folder))
  for _, path in ipairs(source.lines_of(command)) do
    if path:find(ending) then
      list[#list + 1] = path
    end
  end
  return list
end

local texts = {}

--- The file's text, "" when it is not there.
function source.text(path)
  if not texts[path] then
    local f = io.open(source.root .. "/" .. path, "rb")
    texts[path] = f and f:read "a" or ""
    if f then
      f:close()
    end
  end
  return texts[path]
end

-- Keeps lines and columns, so that a finding has its place.
local function blank(text)
  return (text:gsub("[^\n]", " "))
end

local blanked = {}

--- A C file's text without comments, strings and character constants.
function source.c_code(path)
  if blanked[path] then
    return blanked[path]
  end
  local text, out, at = source.text(path), {}, 1
  while true do
    local from = text:find("[\"'/]", at)
    if not from then
      break
    end
    local two, last = text:sub(from, from + 1), nil
    if two == "/*" then
      last = select(2, text:find("*/", from + 2, true))
    elseif two == "//" then
      last = (text:find("\n", from, true) or #text + 1) - 1
    elseif two:sub(1, 1) ~= "/" then
      local mark, i = two:sub(1, 1), from + 1
      while i <= #text and text:sub(i, i) ~= mark do
        i = i + (text:sub(i, i) == "\\" and 2 or 1)
      end
      last = i
    end
    out[#out + 1] = text:sub(at, from - 1)
    last = last or (two:sub(1, 1) == "/" and from) or #text
    out[#out + 1] = last == from and text:sub(from, from) or blank(text:sub(from, last))
    at = last + 1
  end
  out[#out + 1] = text:sub(at)
  blanked[path] = table.concat(out)
  return blanked[path]
end

--- Iterates over the lines of a text: number, line.
function source.each_line(text)
  local n = 0
  local next_line = text:gmatch "([^\n]*)\n?"
  return function()
    n = n + 1
    local line = next_line()
    if line then
      return n, line
    end
  end
end

return source
