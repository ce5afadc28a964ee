-- moonpool.job.files: which files an input names, what form they have, and readers of their records.
local core = require "moonpool.core"
local csv = require "moonpool.job.csv"

local files = {}

-- ---- names --------------------------------------------------------------------------------------

-- A glob's pattern for one name as a Lua pattern.
local function pattern_of(glob)
  local out = glob:gsub("[%^%$%(%)%%%.%+%-]", "%%%0"):gsub("%*", "[^/]*"):gsub("%?", "[^/]")
  return "^" .. out:gsub("%[!", "[^") .. "$"
end

local function is_glob(path)
  return path:find "[%*%?%[]" ~= nil
end

-- Names that begin with a dot are for themselves only, as in the shell.
local function matching(dir, glob)
  local names = core.listdir(dir == "" and "." or dir)
  local list, pattern = {}, pattern_of(glob)
  for _, name in ipairs(names or {}) do
    if name:find(pattern) and (name:sub(1, 1) ~= "." or glob:sub(1, 1) == ".") then
      list[#list + 1] = (dir == "" and "" or dir == "/" and "/" or dir .. "/") .. name
    end
  end
  return list
end

local function expand_glob(path)
  local dirs = path:sub(1, 1) == "/" and { "/" } or { "" }
  for step, slash in path:gmatch "([^/]+)(/?)" do
    local list = {}
    for _, dir in ipairs(dirs) do
      local found = is_glob(step) and matching(dir, step)
        or { (dir == "" and "" or dir == "/" and "/" or dir .. "/") .. step }
      for _, name in ipairs(found) do
        local stat = core.stat(name)
        if stat and (slash == "" or stat.type == "directory") then
          list[#list + 1] = name
        end
      end
    end
    dirs = list
  end
  return dirs
end

local function files_in(dir)
  local list = {}
  local names, err = core.listdir(dir)
  if not names then
    return nil, err
  end
  for _, name in ipairs(names) do
    local stat = core.stat(dir .. "/" .. name)
    if name:sub(1, 1) ~= "." and stat and stat.type == "file" then
      list[#list + 1] = dir .. "/" .. name
    end
  end
  table.sort(list)
  return list
end

--- The files that an input names, in the order of their names; nil and the reason.
function files.expand(input)
  local stat = input ~= "-" and core.stat(input)
  if input == "-" or stat and stat.type ~= "directory" then
    return { input }
  elseif stat then
    local list, err = files_in((input:gsub("(.)/+$", "%1")))
    if list and #list == 0 then
      return nil, input .. ": no files in this directory"
    end
    return list, err
  elseif not is_glob(input) then
    return { input } -- its open says what is wrong
  end
  local list = expand_glob(input)
  table.sort(list)
  if #list == 0 then
    return nil, input .. ": no file matches"
  end
  return list
end

--- What changes when one of the files does.
function files.stamp(list)
  local out = {}
  for i, path in ipairs(list) do
    local stat = path ~= "-" and core.stat(path)
    out[i] = stat and ("%d %.9f"):format(stat.size, stat.mtime) or "-"
  end
  return table.concat(out, "\n")
end

-- ---- forms --------------------------------------------------------------------------------------

local suffixes = { jsonl = "jsonl", ndjson = "jsonl", csv = "csv", tsv = "tsv", tab = "tsv" }

--- The form that a name tells, nil for one that tells none.
function files.form(name)
  local plain = name:lower():gsub("%.gz$", ""):gsub("%.zst$", ""):gsub("%.gzip$", "")
  return suffixes[plain:match "%.([^%./]+)$" or ""]
end

local separators = { csv = ",", tsv = "\t" }

--- A reader of a file in that form; nil and the reason.
function files.open(path, form)
  local reader, err = core.open_lines(path, nil, true)
  if not reader then
    return nil, err
  end
  if not separators[form] then
    return reader
  end
  local records, why = csv.reader(reader, separators[form])
  return records, why and ("%s: %s"):format(path, why)
end

--- The function that reads a record.
function files.read_of(reader, form, lines)
  return form == "jsonl" and (lines and reader.record or reader.json) or reader.read
end

return files
