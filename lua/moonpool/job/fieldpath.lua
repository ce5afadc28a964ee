-- moonpool.job.fieldpath: a field of a record by its path: a.b[0].c; places in lists count from 0, as
-- in JSON Pointer and jq. A record that has a field of that very name wins: data has dots in names.
local core = require "moonpool.core"

local fieldpath = {}

local function steps_of(path)
  local steps, at = {}, 1
  while at <= #path do
    local index, stop = path:match("^%[(%d+)%]()", at)
    if index then
      steps[#steps + 1] = math.tointeger(tonumber(index)) + 1
      at = stop
    else
      local name
      name, stop = path:match("^%.?([^%.%[]+)()", at)
      if not name then
        return nil
      end
      steps[#steps + 1] = name
      at = stop
    end
  end
  return #steps > 0 and steps or nil
end

--- A function of a record that gives the field, nil where it is not there.
function fieldpath.compile(path)
  local steps = steps_of(path)
  local function plain(record)
    return record[path]
  end
  if not steps or #steps == 1 and steps[1] == path then
    return plain
  end
  return function(record)
    local value = record[path]
    if value ~= nil then
      return value
    end
    value = record
    for i = 1, #steps do
      if type(value) ~= "table" or value == core.json_null then
        return nil
      end
      value = value[steps[i]]
    end
    return value
  end
end

return fieldpath
