-- arrows: which file may include or require which.
--   rooms      an include that the plan's table does not have
--   faces      a header of another room that is not its face, an internal.h that leaves its room
--   libraries  curl, libuv, Lua and the like where they do not belong
--   require    the same table for the rooms of lua/moonpool
local plan = require "plan"
local rooms = require "rooms"
local source = require "source"

local arrows = {}

local function check_include(report, path, line, from, header)
  local to = rooms.of_c(header)
  if header:match "^moonpool[%w_]*%.h$" then
    return
  elseif not to then
    report("rooms", path, line, ("\"%s\" is in no room; headers are named from runtime/ on"):format(header))
  elseif to == from then
    return
  elseif from.of == to.name and rooms.is_face(to, header) then
    return -- a folder's functions are checked against what its room declares
  elseif header:match "internal%.h$" then
    report("faces", path, line, ("%s is %s's own and never leaves its room"):format(header, to.name))
  elseif not rooms.may_use(from, to) then
    report("rooms", path, line, ("%s may not use %s (%s)"):format(from.name, to.name, header))
  elseif not rooms.is_face(to, header) then
    report("faces", path, line, ("%s is not a face of %s"):format(header, to.name))
  end
end

local function check_library(report, path, line, from, header)
  for _, library in ipairs(plan.libraries) do
    if header:find(library.pattern) and not rooms.has(library.rooms, from.name)
      and not rooms.has(library.rooms, from.of or "") then
      report("libraries", path, line, ("%s may not use %s (<%s>)"):format(from.name, library.name, header))
    end
  end
end

--- Every include of runtime/.
function arrows.includes(report)
  for _, path in ipairs(source.find("runtime", "%.[ch]$")) do
    local below = path:gsub("^runtime/", "")
    local from = rooms.of_c(below)
    if not from and not below:find "^include/" then
      report("rooms", path, 1, "this folder is no room of the plan")
    end
    for line, text in source.each_line(from and source.text(path) or "") do
      local own = text:match '^%s*#%s*include%s+"([^"]+)"'
      local library = text:match "^%s*#%s*include%s+<([^>]+)>"
      if own then
        check_include(report, path, line, from, own)
      elseif library then
        check_library(report, path, line, from, library)
      end
    end
  end
end

-- A name that is put together, require("moonpool.provider." .. name), counts as one of that folder.
local function module_path(name)
  name = name:gsub("^moonpool%.?", "")
  if name == "" then
    return "init.lua"
  end
  name = name:gsub("%.$", ".any")
  local path = name:gsub("%.", "/") .. ".lua"
  if not path:find "/" and rooms.of_lua(path .. "/") == nil and not rooms.of_lua(path) then
    return name .. "/init.lua"
  end
  return path
end

--- Every require of lua/moonpool.
function arrows.requires(report)
  for _, path in ipairs(source.find("lua/moonpool", "%.lua$")) do
    local from = rooms.of_lua((path:gsub("^lua/moonpool/", "")))
    if not from then
      report("require", path, 1, "this file stands in no room of the plan")
    end
    for line, text in source.each_line(from and source.text(path) or "") do
      text = text:gsub("%-%-.*", "")
      for name in text:gmatch "require[%s%(]*\"(moonpool[%w_%.]*)\"" do
        local to = rooms.of_lua(module_path(name))
        local free = name == "moonpool.core" or name == "moonpool.argparse" or name == "moonpool.editor"
        if not free and not to then
          report("require", path, line, name .. " stands in no room of the plan")
        elseif not free and not rooms.may_use(from, to) then
          report("require", path, line, ("%s may not use %s (%s)"):format(from.name, to.name, name))
        end
      end
    end
  end
end

return arrows
