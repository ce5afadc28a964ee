-- check: the house against its plan. lua5.4 scripts/house/check.lua [OPTION...] [RULE...]
--
--   --root DIR      the tree to look at (the current folder)
--   --objects DIR   where its objects are, below it (build/obj)
--   --plan          prints the tables of the maps, --write puts them there
--   --measure       prints what files and functions measure
--
-- Prints `path:line: rule: reason` for each finding and ends with 1 when there was one. With names of
-- rules only those are reported.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. package.path

local source = require "source"

local objects, only, action = "build/obj", {}, "check"
local i = 1
while arg[i] do
  if arg[i] == "--root" or arg[i] == "--objects" then
    assert(arg[i + 1], arg[i] .. " wants a folder")
    if arg[i] == "--root" then
      source.root = arg[i + 1]
    else
      objects = arg[i + 1]
    end
    i = i + 1
  elseif arg[i] == "--plan" or arg[i] == "--write" or arg[i] == "--measure" then
    action = arg[i]:sub(3)
  else
    only[arg[i]] = true
  end
  i = i + 1
end

local actions = {}

function actions.plan()
  for path, text in pairs(require "rooms".tables()) do
    print(path .. ":\n\n" .. text)
  end
  return 0
end

-- A table is found by its first row.
function actions.write()
  for path, text in pairs(require "rooms".tables()) do
    local old = source.text(path)
    local from = old:find(text:match "^[^\n]*\n", 1, true)
    local to = from and old:find("\n[^|]", from) or #old
    if from and old:sub(from, to) ~= text then
      local f <close> = assert(io.open(source.root .. "/" .. path, "wb"))
      f:write(old:sub(1, from - 1), text, old:sub(to + 1))
    end
  end
  return 0
end

function actions.measure()
  for _, row in ipairs(require "writing".measure()) do
    local name, m = row[1], row[2]
    print(("%-18s %4d  median %3d  nine of ten at most %3d  largest %3d"):format(name, m.n, m.median,
      m.tenth, m.most))
  end
  return 0
end

function actions.check()
  local count = 0
  local function report(rule, path, line, reason)
    if next(only) and not only[rule] then
      return
    end
    count = count + 1
    print(("%s:%s %s: %s"):format(path, line and line .. ":" or "", rule, reason))
  end
  local arrows = require "arrows"
  arrows.includes(report)
  arrows.requires(report)
  require "symbols".check(report, objects)
  require "offered".check(report)
  require "writing".check(report)
  require "maps".check(report)
  return count == 0 and 0 or 1
end

os.exit(actions[action]())
