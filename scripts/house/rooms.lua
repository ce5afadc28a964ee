-- rooms: which room a file stands in, and what the plan says about it.
local plan = require "plan"

local rooms = {}

local c_by_name, lua_by_name = {}, {}
for _, room in ipairs(plan.c) do
  c_by_name[room.name] = room
end
for _, room in ipairs(plan.lua) do
  lua_by_name[room.name] = room
end

-- A folder inside a room must be in the plan too.
local function longest(path)
  local two = path:match "^([%w_]+/[%w_]+)/"
  if two then
    return c_by_name[two]
  end
  local one = path:match "^([%w_]+)/"
  return one and c_by_name[one]
end

--- The room of a path below runtime/, such as "engine/transport/url.c"; nil: none.
function rooms.of_c(path)
  return longest(path)
end

--- The room of a module's path below lua/moonpool/, such as "client/call.lua"; nil: none.
function rooms.of_lua(path)
  local folder = path:match "^([%w_]+)/"
  if folder then
    return lua_by_name[folder]
  end
  local module = path:gsub("%.lua$", "")
  for _, room in ipairs(plan.lua) do
    for _, name in ipairs(room.modules or {}) do
      if name == module then
        return room
      end
    end
  end
end

local function has(list, name)
  for _, one in ipairs(list) do
    if one == name then
      return true
    end
  end
  return false
end
rooms.has = has

--- Whether a room may use another. A folder of a room may be used by whoever may use the room only
--- through what the plan names, so both are looked up as they are written.
function rooms.may_use(from, to)
  if from.uses == "all but host" then
    return to.name ~= "host"
  end
  return from == to or has(from.uses, to.name)
end

--- Whether others may include this header of a room.
function rooms.is_face(room, header)
  if header:match "internal%.h$" then
    return false
  end
  local name = header:match "[^/]+$"
  if room.faces == "all" then
    return not has(room.hidden or {}, name)
  end
  return has(room.faces, name)
end

local function uses(room)
  if type(room.uses) == "string" then
    return room.uses
  end
  return #room.uses == 0 and "nothing" or table.concat(room.uses, ", ")
end

local function c_table()
  local lines = { "| room | may use | faces |", "| --- | --- | --- |" }
  for _, room in ipairs(plan.c) do
    local faces = room.faces == "all" and "each small header" or table.concat(room.faces, ", ")
    lines[#lines + 1] = ("| %s | %s | %s |"):format(room.name,
      uses(room), faces == "" and "none" or faces)
  end
  return table.concat(lines, "\n") .. "\n"
end

local function lua_table()
  local lines = { "| room | files | may use |", "| --- | --- | --- |" }
  for _, room in ipairs(plan.lua) do
    local files = room.modules and table.concat(room.modules, " ") or room.name .. "/"
    lines[#lines + 1] = ("| %s | %s | %s |"):format(room.name, files,
      uses(room))
  end
  return table.concat(lines, "\n") .. "\n"
end

--- The tables that the maps must show, by file.
function rooms.tables()
  return { ["runtime/README.md"] = c_table(), ["lua/README.md"] = lua_table() }
end

return rooms
