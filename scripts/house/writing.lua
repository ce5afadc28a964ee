-- writing: one handwriting.
--   includes    a C file's own header first, system headers last
--   null        a pointer is compared with NULL
--   heads       a Lua file begins with its module's name
--   guards      nothing stands behind `then` on its line
--   banned      functions that nobody should call
--   conditions  no assignment in a condition
--   statements  no comma or ?: that is used as a statement
--   sizes       files, functions and their branches
--   unfinished  words that say that something is missing
local plan = require "plan"
local source = require "source"

local writing = {}

local function c_files()
  local list = {}
  for _, folder in ipairs { "runtime", "tests", "examples" } do
    table.move(source.find(folder, "%.[ch]$"), 1, 1 << 20, #list + 1, list)
  end
  return list
end

local function lua_files()
  local list = {}
  for _, folder in ipairs { "lua", "scripts", "tests", "examples" } do
    table.move(source.find(folder, "%.lua$"), 1, 1 << 20, #list + 1, list)
  end
  return list
end

-- ---- C ------------------------------------------------------------------------------------------

-- "engine/url" for runtime/engine/url.c; its own header is named so or after its room's file.
local function own_header(path)
  local own = path:gsub("^runtime/", ""):gsub("%.c$", ".h")
  return source.text("runtime/" .. own) ~= "" and own or nil
end

local function check_includes(report, path)
  local own = path:match "%.c$" and own_header(path)
  local first, system
  for line, text in source.each_line(source.text(path)) do
    if text:match "^#%s*if" and first then -- what a platform or a switch wants has its own order
      break
    end
    local header = text:match '^#%s*include%s+"([^"]+)"'
    local include = text:match "^#%s*include"
    if include and own and not first and header ~= own then
      report("includes", path, line, ("%s comes first, it is this file's own"):format(own))
    elseif header and system then
      report("includes", path, line, ("\"%s\" stands behind a system header"):format(header))
    end
    first = first or include
    system = system or include and not header
  end
end

-- Names that are declared as pointers in this file. A name that is also declared as something else,
-- here or in a header, is left alone: only a compiler could tell.
local function pointers(code)
  local is, other = {}, {}
  for kind, stars, name in code:gmatch "([%w_]+)%s+(%**)([%a_][%w_]*)%s*[=;,%)%[]" do
    if kind ~= "return" and kind ~= "else" and kind ~= "case" and kind ~= "goto" then
      if stars ~= "" then
        is[name] = true
      else
        other[name] = true
      end
    end
  end
  for name in code:gmatch ",%s*([%a_][%w_]*)%s*[,;=]" do -- int a, b;
    other[name] = true
  end
  for name in pairs(other) do
    is[name] = nil
  end
  return is
end

-- What stands before a bare name that is used as a truth, and what behind it.
local truths = {
  { "%f[%w_]if %($", "^%)" }, { "%f[%w_]while %($", "^%)" }, { "[&|][&|] %(*$", "^[%);]" },
  { "[&|][&|] %(*$", "^ [&|][&|?]" }, { "%($", "^ [&|][&|]" }, { "%f[%w_]return $", "^ [&|][&|]" },
  { "[^=!<>]= %(*$", "^ [&|?]" }, { "!%(*$", "^[%);]" }, { "!%(*$", "^ [&|?]" },
}

local function is_truth(before, after)
  for _, one in ipairs(truths) do
    if before:find(one[1]) and after:find(one[2]) then
      return true
    end
  end
end

local function check_null(report, path)
  local code = source.c_code(path)
  local is = pointers(code)
  for line, text in source.each_line(code) do
    for from, name, to in text:gmatch "()%f[%w_]([%a_][%w_]*)()" do
      local before = text:sub(1, from - 1)
      if is[name] and not before:find "[%.>%*]$" and is_truth(before, text:sub(to)) then
        report("null", path, line, ("%s is a pointer: compare it with NULL"):format(name))
        break
      end
    end
  end
end

local banned = { "strcpy", "strcat", "sprintf", "vsprintf", "gets", "strtok", "atoi", "alloca" }

local function check_lines(report, path)
  for line, text in source.each_line(source.c_code(path)) do
    for _, name in ipairs(banned) do
      if text:find("%f[%w_]" .. name .. "%(") then
        report("banned", path, line, name .. "()")
      end
    end
    -- Layout is clang-format's, so a condition with an assignment is one line to look for.
    local condition = text:match "^%s*}? ?e?l?s?e? ?if %(.*" or text:match "^%s*while %(.*"
    if condition and condition:gsub("%.[%w_]+ = ", ""):find "[%w_%)%]>] = " then
      report("conditions", path, line, "an assignment inside a condition")
    end
    if text:find "^    +[%w_%->%.%[%]%(%)]+ [=!<>]= [%w_%->%.]+ %? [%w_]+%(.*%) : [%w_]+%(.*%);$" then
      report("statements", path, line, "a choice of calls is an if")
    elseif text:find "^    +[%w_][%w_%->%.%[%]]* [%-+]?= [^,%(%)]*, [%w_%->%.%[%]]+ [%-+]?= " then
      report("statements", path, line, "two statements joined by a comma")
    end
  end
end

-- ---- sizes ---------------------------------------------------------------------------------------

-- Relies on clang-format's layout: a function's braces stand alone in the first column. Complexity is
-- McCabe's with a switch counted once, however many cases it has: a table of names is not a maze.
local function functions(path)
  local list, head, start, score = {}, "?", nil, 0
  for line, text in source.each_line(source.c_code(path)) do
    if text:match "^[%a_].*[^;]$" and text:find "%(" and not text:match "^[%w_ ]+=" then
      head = text:match "([%w_]+)%(" or head
    end
    if text == "{" then
      start, score = line, 1
    elseif text:match "^}" and start then
      list[#list + 1] = { name = head, line = start, lines = line - start + 1, complexity = score }
      start = nil
    elseif start then
      for word in text:gmatch "%f[%w_]([%a]+) %(" do
        if word == "if" or word == "for" or word == "while" or word == "switch" then
          score = score + 1
        end
      end
      score = score + select(2, text:gsub("&&", "")) + select(2, text:gsub("||", ""))
        + select(2, text:gsub("%?", ""))
    end
  end
  return list
end

local function lines_in(path)
  return select(2, source.text(path):gsub("\n", "\n"))
end

local function check_sizes(report, path)
  local sizes = plan.sizes
  local lines = lines_in(path)
  local most = path:match "^runtime/include/" and sizes.public or sizes.file
  if lines > most then
    report("sizes", path, nil, ("%d lines, at most %d"):format(lines, most))
  end
  for _, f in ipairs(path:match "^runtime/.*%.c$" and functions(path) or {}) do
    if f.lines > sizes["function"] then
      report("sizes", path, f.line,
        ("%s() has %d lines, at most %d"):format(f.name, f.lines, sizes["function"]))
    end
    if f.complexity > sizes.complexity then
      report("sizes", path, f.line, ("%s() has complexity %d, at most %d"):format(f.name, f.complexity,
        sizes.complexity))
    end
  end
end

-- ---- Lua -----------------------------------------------------------------------------------------

local function module_name(path)
  return (path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", "."))
end

local function check_head(report, path)
  local name = module_name(path)
  if source.text(path):sub(1, #name + 5) ~= ("-- %s: "):format(name) then
    report("heads", path, 1, ("the first line says '-- %s: what it is'"):format(name))
  end
end

-- Strings and comments blanked by their simplest forms; enough for one line.
local function lua_line(text)
  return (text:gsub("\\.", "  "):gsub("%b\"\"", '""'):gsub("%-%-.*", ""))
end

local function check_guards(report, path)
  local inside
  for line, text in source.each_line(source.text(path)) do
    if not inside and text:find "%[=*%[" and not text:find "%]=*%]" then
      inside = true
    elseif inside then
      inside = not text:find "%]=*%]"
    elseif lua_line(text):find "%f[%w]then%s+[^%s]" then
      report("guards", path, line, "what follows `then` has a line of its own")
    end
  end
end

local unfinished = { "TODO", "FIXME", "XXX" }

local function check_unfinished(report, path)
  for line, text in source.each_line(source.text(path)) do
    for _, word in ipairs(unfinished) do
      if text:find("%f[%w_]" .. word .. "%f[^%w_]") then
        report("unfinished", path, line, word)
      end
    end
    if text:find("not " .. "implemented", 1, true) then
      report("unfinished", path, line, "something is missing")
    end
  end
end

function writing.check(report)
  for _, path in ipairs(c_files()) do
    check_lines(report, path)
    check_sizes(report, path)
    check_unfinished(report, path)
    if path:match "^runtime/" then
      check_includes(report, path)
      check_null(report, path)
    end
  end
  for _, path in ipairs(lua_files()) do
    check_sizes(report, path)
    if path ~= "scripts/house/writing.lua" then
      check_unfinished(report, path)
    end
    if path:match "^lua/moonpool/" then
      check_head(report, path)
      check_guards(report, path)
    end
  end
end

-- ---- what the house measures ---------------------------------------------------------------------

local function summary(list)
  table.sort(list)
  local n = #list
  return { n = n, median = list[(n + 1) // 2] or 0, tenth = list[math.max(1, math.ceil(n * 0.9))] or 0,
    most = list[n] or 0 }
end

--- Sizes of C files, C functions and Lua files: { n, median, tenth (nine of ten are at most), most }.
function writing.measure()
  local files, bodies, complexity, modules = {}, {}, {}, {}
  for _, path in ipairs(source.find("runtime", "%.c$")) do
    files[#files + 1] = lines_in(path)
    for _, f in ipairs(functions(path)) do
      bodies[#bodies + 1] = f.lines
      complexity[#complexity + 1] = f.complexity
    end
  end
  for _, path in ipairs(source.find("lua/moonpool", "%.lua$")) do
    modules[#modules + 1] = lines_in(path)
  end
  return { { "C files", summary(files) }, { "C functions", summary(bodies) },
    { "their complexity", summary(complexity) }, { "Lua files", summary(modules) } }
end

return writing
