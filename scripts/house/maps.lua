-- maps: the READMEs that are maps show the plan's tables as they are, and every link in the
-- documentation leads somewhere.
local rooms = require "rooms"
local source = require "source"

local maps = {}

local function check_tables(report)
  for path, text in pairs(rooms.tables()) do
    if not source.text(path):find(text, 1, true) then
      report("maps", path, nil, "its table is not the plan's; scripts/lint --plan prints it")
    end
  end
end

local function documents()
  local list = {}
  for _, path in ipairs(source.find(".", "%.md$")) do
    path = path:gsub("^%./", "")
    if not path:match "^build" then
      list[#list + 1] = path
    end
  end
  return list
end

local function exists(path)
  local f = io.open(source.root .. "/" .. path, "rb")
  if f then
    f:close()
  end
  return f ~= nil
end

local function anchors(path)
  local set = {}
  for _, text in source.each_line(source.text(path)) do
    local title = text:match "^#+%s+(.*)"
    if title then
      set[title:lower():gsub("[^%w _-]", ""):gsub(" ", "-")] = true
    end
  end
  return set
end

local function check_link(report, path, line, target)
  local file, anchor = target:match "^([^#]*)#?(.*)$"
  local folder = path:match "^(.*/)" or ""
  local full = file == "" and path or folder .. file
  while full:find "[^/]+/%.%./" do
    full = full:gsub("[^/]+/%.%./", "", 1)
  end
  if not exists(full) then
    report("links", path, line, target .. " leads nowhere")
  elseif anchor ~= "" and not anchors(full)[anchor] then
    report("links", path, line, target .. ": no heading of that name")
  end
end

local function check_links(report)
  for _, path in ipairs(documents()) do
    local fence
    for line, text in source.each_line(source.text(path)) do
      if text:match "^%s*```" then
        fence = not fence
      end
      for target in (fence and "" or text):gmatch "%]%(([^%)%s]+)%)" do
        if not target:match "^%a+:" then
          check_link(report, path, line, target)
        end
      end
      if not fence and utf8.len(text) and utf8.len(text) > 120 then
        report("links", path, line, ("%d columns, at most 120"):format(utf8.len(text)))
      end
    end
  end
end

function maps.check(report)
  check_tables(report)
  check_links(report)
end

return maps
