-- symbols: what the linker sees, from nm over the objects of $BUILD.
--   symbols    a use of another room's function that the plan's table does not have
--   circles    objects that need each other and stand in two rooms
--   prefixes   a name between files that does not say whose it is, a static one that pretends to
local plan = require "plan"
local rooms = require "rooms"
local source = require "source"

local symbols = {}

-- Objects without a source any more are left from an earlier state.
local function objects(folder)
  local list = {}
  for _, path in ipairs(source.find(folder, "%.o$")) do
    local unit = path:sub(#folder + 2, -3)
    if source.text("runtime/" .. unit .. ".c") ~= "" then
      list[#list + 1] = { unit = unit, path = path, room = rooms.of_c(unit), needs = {}, has = {}, own = {} }
    end
  end
  return list
end

local function read(list)
  local names, by_path = {}, {}
  for i, object in ipairs(list) do
    names[i] = source.quoted(source.root .. "/" .. object.path)
    by_path[source.root .. "/" .. object.path] = object
  end
  for _, line in ipairs(source.lines_of("nm -A -P " .. table.concat(names, " "))) do
    local path, name, kind = line:match "^(.-): (%S+) (%a)"
    local object = by_path[path]
    if object and kind == "U" then
      table.insert(object.needs, name)
    elseif object and kind:find "[TDBRCVW]" then
      table.insert(object.has, name)
    elseif object and kind:find "[tdbr]" and not name:find("%.") then -- not x.cold, x.part.0
      table.insert(object.own, name)
    end
  end
end

local function owners(list)
  local owner = {}
  for _, object in ipairs(list) do
    for _, name in ipairs(object.has) do
      owner[name] = object
    end
  end
  return owner
end

local function source_of(object)
  return "runtime/" .. object.unit .. ".c"
end

local function check_arrows(report, list, owner)
  for _, object in ipairs(list) do
    for _, name in ipairs(object.needs) do
      local to = owner[name]
      if to and object.room and to.room and not rooms.may_use(object.room, to.room) then
        report("symbols", source_of(object), nil, ("%s may not use %s: %s of %s"):format(
          object.room.name, to.room.name, name, to.unit))
      end
    end
  end
end

-- Tarjan's strongly connected components over the objects.
local function circles(list, owner)
  local order, low, on, stack, found, count = {}, {}, {}, {}, {}, 0
  local function visit(object)
    count = count + 1
    order[object], low[object], on[object] = count, count, true
    stack[#stack + 1] = object
    for _, name in ipairs(object.needs) do
      local to = owner[name]
      if to and not order[to] then
        visit(to)
        low[object] = math.min(low[object], low[to])
      elseif to and on[to] then
        low[object] = math.min(low[object], order[to])
      end
    end
    if low[object] == order[object] then
      local circle = {}
      repeat
        local top = table.remove(stack)
        on[top] = nil
        circle[#circle + 1] = top
      until top == object
      found[#found + 1] = circle
    end
  end
  for _, object in ipairs(list) do
    if not order[object] then
      visit(object)
    end
  end
  return found
end

local function check_circles(report, list, owner)
  for _, circle in ipairs(circles(list, owner)) do
    local names, several = {}, false
    for i, object in ipairs(circle) do
      names[i] = object.unit
      several = several or object.room ~= circle[1].room
    end
    if several then
      table.sort(names)
      report("circles", "runtime/" .. names[1] .. ".c", nil,
        "these need each other and stand in several rooms: " .. table.concat(names, " "))
    end
  end
end

local public

-- What runtime/include declares.
local function is_public(name)
  if not public then
    public = {}
    for _, path in ipairs(source.find("runtime/include", "%.h$")) do
      for word in source.c_code(path):gmatch "[%w_]+" do
        public[word] = true
      end
    end
  end
  return public[name]
end
symbols.is_public = is_public

local function begins(name, prefix)
  return name:sub(1, #prefix) == prefix
end

-- nil, or why this is no name between files.
local function wrong_name(room, name)
  local prefixes = plan.prefixes
  if name == "main" and room.name == "host" or name:match "^luaopen_moonpool" then
    return nil
  elseif begins(name, prefixes.between) then
    return nil
  elseif begins(name, prefixes.policy) then
    return room.name ~= "policy" and prefixes.policy .. " is policy's" or nil
  elseif begins(name, prefixes.public) then
    return not is_public(name) and "runtime/include does not declare it: mp__, not mp_" or nil
  end
  return "a name between files begins with mp__ (static if it need not be one)"
end

local function check_names(report, list)
  for _, object in ipairs(list) do
    for _, name in ipairs(object.room and object.has or {}) do
      local why = wrong_name(object.room, name)
      if why then
        report("prefixes", source_of(object), nil, ("%s: %s"):format(name, why))
      end
    end
    for _, name in ipairs(object.own) do
      if name:match "^mp" and (begins(name, "mp_") or begins(name, "mpp_")) then
        report("prefixes", source_of(object), nil, name .. ": a static name stands bare")
      end
    end
  end
end

-- Tags and macros are names between files too, but no linker sees them. In an internal.h they may
-- stand bare, as statics do; nowhere may they look like the public ones.
local function check_headers(report)
  for _, path in ipairs(source.find("runtime", "%.h$")) do
    local policy = path:match "^runtime/policy/"
    local internal = path:match "internal%.h$"
    for line, text in source.each_line(path:match "^runtime/include/" and "" or source.c_code(path)) do
      local macro = text:match "^%s*#%s*define%s+([%w_]+)"
      local tag = text:match "^[%s%a]*struct%s+([%w_]+)%s*{" or text:match "^[%s%a]*enum%s+([%w_]+)%s*{"
        or text:match "^[%s%a]*union%s+([%w_]+)%s*{"
      local guard = macro and macro:match "_H$"
      local name = not guard and (macro or tag)
      local bare = name and not name:match "^[Mm][Pp][Pp]?_"
      if name and not name:match "^[Mm][Pp]__" and not is_public(name) and not (bare and internal)
        and not (policy and name:match "^[Mm][Pp][Pp]_") then
        report("prefixes", path, line, ("%s: between files it is %s"):format(name,
          macro and "MP__..." or "mp__..."))
      end
    end
  end
end

--- folder: where the objects are, $BUILD/obj.
function symbols.check(report, folder)
  local list = objects(folder)
  if #list == 0 then
    report("symbols", folder, nil, "no objects here: build first")
    return
  end
  read(list)
  local owner = owners(list)
  check_arrows(report, list, owner)
  check_circles(report, list, owner)
  check_names(report, list)
  check_headers(report)
end

return symbols
