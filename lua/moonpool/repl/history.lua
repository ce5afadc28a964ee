-- moonpool.repl.history: the lines of earlier sessions, in a file that only its owner reads and that no
-- line with a key in it gets into.
local options = require "moonpool.options"

local history = {}

local MOST = 1000

local function path()
  local given = os.getenv "MOONPOOL_HISTORY"
  if given then
    return given ~= "" and given or nil
  end
  local home = options.env "HOME"
  return home and home .. "/.moonpool_history"
end

local function holds_secret(line)
  local lower = line:lower()
  return options.masked(line) ~= line or lower:find "api_?key%s*=%s*[\"'%[]" or lower:find "authorization"
    or lower:find "bearer" or lower:find "secret" or lower:find "password%s*="
    or lower:find "token%s*=%s*[\"'%[]"
end

--- Opens the history: {lines =, add = function(line)}. private(path) makes a file for its owner alone.
function history.open(private)
  local file_path = path()
  local lines = {}
  local self = { lines = lines }
  local file = file_path and io.open(file_path, "rb")
  if file then
    for line in file:lines() do
      lines[#lines + 1] = line
      if #lines > 2 * MOST then
        table.move(lines, MOST + 1, #lines + MOST, 1)
      end
    end
    file:close()
  end
  -- Cut now and then, so that it does not grow for ever.
  if #lines > MOST and private(file_path) then
    table.move(lines, #lines - MOST + 1, #lines + MOST, 1)
    local out <close> = io.open(file_path, "wb")
    if out then
      out:write(table.concat(lines, "\n"), "\n")
    end
  end
  local kept = file_path and private(file_path)

  function self.add(line)
    if line == lines[#lines] or not line:find "%S" then
      return false
    end
    if holds_secret(line) then
      return false
    end
    lines[#lines + 1] = line
    local out <close> = kept and io.open(file_path, "ab") or nil
    if out then
      out:write(line, "\n")
    end
    return true
  end
  return self
end

return history
