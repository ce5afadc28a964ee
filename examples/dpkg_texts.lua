-- moonpool run examples/dpkg_texts.lua [STATUS] > texts.jsonl
--
-- One line of JSON for each package that Debian knows here: {"id": name, "text": name and description}.
local moonpool = require "moonpool"

local path = arg[1] or "/var/lib/dpkg/status"

local function emit(package)
  if package.Package and package.Description then
    local text = (package.Package .. ": " .. package.Description):gsub("%s+", " "):gsub(" $", "")
    print(moonpool.json.encode({ id = package.Package, text = text }, { sort_keys = true }))
  end
end

-- Fields stand at the start of a line; what begins with a space goes on with the field above, and " ."
-- is an empty line. An empty line ends the package.
local package, field = {}, nil
for line in io.lines(path) do
  local name, value = line:match "^([%w-]+): ?(.*)$"
  if line == "" then
    emit(package)
    package, field = {}, nil
  elseif name then
    field = name:gsub("%-en$", "")
    package[field] = value
  elseif field and line ~= " ." then
    package[field] = package[field] .. line
  end
end
emit(package)
