-- moonpool.repl.complete: what could stand where the cursor is: globals and locals, fields and methods
-- of values that are there, options of the calls whose braces are open, commands and their files.
local core = require "moonpool.core"
local options = require "moonpool.options"

local complete = {}

local keywords = {
  "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local",
  "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
}

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

-- ---- names of values --------------------------------------------------------------------------------

-- The names of a value that can be read without running anything of it: its own, its class's.
local function add_fields(set, v, only_functions)
  if type(v) == "table" then
    for k, x in next, v do
      if type(k) == "string" and (not only_functions or type(x) == "function") then
        set[k] = true
      end
    end
  end
  local meta = getmetatable(v)
  if type(meta) ~= "table" then
    return
  end
  local index = rawget(meta, "__index")
  if type(index) == "table" and index ~= v then
    add_fields(set, index, only_functions)
  end
  -- A part that loads when it is first used is a name all the same.
  if type(v) == "table" and rawget(meta, "__pairs") then
    for k in pairs(v) do
      if type(k) == "string" then
        set[k] = true
      end
    end
  end
end

-- The value of a path such as `client` or `moonpool.policy`; tables only, so nothing is run.
local function value_of(path, lookup)
  local v
  for name in path:gmatch "[^.:]+" do
    if v == nil then
      v = lookup(name)
    elseif type(v) == "table" or type(v) == "userdata" then
      local ok, field = pcall(function() return v[name] end)
      v = ok and field or nil
    else
      return nil
    end
    if v == nil then
      return nil
    end
  end
  return v
end

-- ---- options ----------------------------------------------------------------------------------------

-- Which call's table of options the cursor is in, by the braces that are open: "client", "embed", or of
-- a table inside one, "client: retry"; nil when it is in none.
local function open_call(text)
  local stack = {}
  for at in text:gmatch "()[{}]" do
    if text:sub(at, at) == "{" then
      local before = text:sub(1, at - 1)
      stack[#stack + 1] = before:match "([%w_]+)%s*=%s*$" or before:match "([%w_]+)%s*%(?%s*$" or "?"
    else
      stack[#stack] = nil
    end
  end
  return stack
end

local function rules_for(stack)
  local outer, inner = stack[#stack - 1], stack[#stack]
  if not inner then
    return nil
  end
  local known = options.known
  return outer and known[outer .. ": " .. inner] or known[inner] or known["policy." .. inner]
end

-- ---- files ------------------------------------------------------------------------------------------

local function files(prefix)
  local dir, base = prefix:match "^(.*/)([^/]*)$"
  local list = core.listdir(dir or ".") or {}
  local set = {}
  for _, name in ipairs(list) do
    if name:sub(1, #(base or prefix)) == (base or prefix) and name:sub(1, 1) ~= "." then
      set[(dir or "") .. name] = true
    end
  end
  return sorted(set)
end

-- ---- the whole --------------------------------------------------------------------------------------

--- at(text, lookup, names, commands): `text` is the input up to the cursor, lookup(name) the value of a
--- global or local, names() the set of all of these, commands the list of the prompt's own. Returns the
--- candidates, sorted, and how many bytes before the cursor they replace.
function complete.at(text, lookup, names, commands)
  local command = text:match "^:(%a*)$"
  local set = {}
  local function keep(candidates, word)
    local list = {}
    for _, name in ipairs(candidates) do
      if name:sub(1, #word) == word then
        list[#list + 1] = name
      end
    end
    return list, #word
  end
  if command then
    return keep(commands, command)
  end
  local path = text:match "^:load%s+(%S*)$" or text:match "^:save%s+(%S*)$"
  if path then
    return files(path), #path
  end

  local owner, dot, word = text:match "([%a_][%w_.]*)([.:])([%w_]*)$"
  if owner then
    add_fields(set, value_of(owner, lookup), dot == ":")
    return keep(sorted(set), word)
  end
  word = text:match "[%a_][%w_]*$" or ""
  local rules = rules_for(open_call(text:gsub('"[^"]*"', ""):gsub("'[^']*'", "")))
  if rules and text:find("[{,]%s*[%w_]*$") then
    local list, n = keep(sorted(rules), word)
    for i, name in ipairs(list) do list[i] = name .. " = " end
    return list, n
  end
  for name in pairs(names()) do set[name] = true end
  for _, name in ipairs(keywords) do set[name] = true end
  if word == "" then
    return {}, 0
  end
  return keep(sorted(set), word)
end

--- The longest beginning that all of a list share.
function complete.common(list)
  local common = list[1] or ""
  for _, name in ipairs(list) do
    while name:sub(1, #common) ~= common do common = common:sub(1, -2) end
  end
  return common
end

return complete
