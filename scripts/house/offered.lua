-- offered: every C function that Lua is offered is used by the library or told to its users.
--
-- The names are those of the luaL_Reg tables and of functions that are set as fields. One counts as
-- used where a Lua file or the documentation has `.name`, `:name` or "name".
local source = require "source"

local offered = {}

-- { name, path, line, target } of what a C file offers; metamethods are Lua's own names.
local function of_file(path, list)
  local pushed, inside
  for line, text in source.each_line(source.text(path)) do
    inside = inside or text:find "luaL_Reg [%w_]+%[%]"
    for name, target in (inside and text or ""):gmatch '{%s*"([%w_]+)"%s*,%s*([%w_]+)%s*}' do
      list[#list + 1] = { name = name, path = path, line = line, target = target }
    end
    inside = inside and not text:find ";"
    local field = text:match 'lua_setfield%([^,]+,[^,]+,%s*"([%w_]+)"'
    if field and pushed then
      list[#list + 1] = { name = field, path = path, line = line, target = pushed }
    end
    pushed = text:match "lua_pushc%a+%([^,]+,%s*([%w_]+)"
  end
end

local function words_of(folder, ending, used)
  for _, path in ipairs(source.find(folder, ending)) do
    local text = source.text(path)
    for name in text:gmatch "[%.:]([%a_][%w_]*)" do
      used[name] = true
    end
    for name in text:gmatch "\"([%a_][%w_]*)\"" do -- { "read", "tail" } with core[name]
      used[name] = true
    end
  end
end

function offered.check(report)
  local list, used = {}, {}
  for _, path in ipairs(source.find("runtime", "%.c$")) do
    of_file(path, list)
  end
  words_of("lua", "%.lua$", used)
  words_of("lua", "%.md$", used)
  words_of("tests", "%.lua$", used)
  for _, one in ipairs(list) do
    if not one.name:match "^__" and not used[one.name] then
      report("offered", one.path, one.line,
        ("%s is offered to Lua and nothing there uses it"):format(one.name))
    end
    local here = source.c_code(one.path):find("%f[%w_]int " .. one.target .. "%(lua_State")
    if here and not one.target:match "^l_" and not one.target:match "^mp__l_" then
      report("offered", one.path, one.line, ("%s(): what Lua calls is named l_..."):format(one.target))
    end
  end
end

return offered
