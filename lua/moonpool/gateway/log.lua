-- moonpool.gateway.log: the access log, one JSON object a line, appended in blocks.
local core = require "moonpool.core"
local json = require "moonpool.json"

local M = {}

local BLOCK = 65536 -- bytes kept at most before they are written
local PERIOD = 0.2  -- s that a line waits at most

local log = {}
log.__index = log

--- open(path or function): an object with :write(entry), :reopen(), :close(); nil, err.
function M.open(where, scope)
  local self = setmetatable({ where = where, lines = {}, n = 0, bytes = 0, lost = 0 }, log)
  if type(where) == "string" then
    local file, why = io.open(where, "a")
    if not file then
      return nil, why
    end
    self.file = file
    file:setvbuf "no"
    scope:spawn(function()
      while self.file do
        core.sleep(PERIOD)
        self:flush()
      end
    end)
  end
  return self
end

function log:flush()
  if self.n == 0 or not self.file then
    return
  end
  local text = table.concat(self.lines, "", 1, self.n)
  self.n, self.bytes = 0, 0
  if not self.file:write(text) then
    self.lost = self.lost + 1
  end
end

function log:write(entry)
  if not self.file then
    self.where(entry)
    return
  end
  local line = json.encode(entry) .. "\n"
  self.n = self.n + 1
  self.lines[self.n] = line
  self.bytes = self.bytes + #line
  if self.bytes >= BLOCK then
    self:flush()
  end
end

--- After a rotation the path names another file.
function log:reopen()
  if not self.file then
    return
  end
  self:flush()
  local file = io.open(self.where, "a")
  if file then
    self.file:close()
    file:setvbuf "no"
    self.file = file
  end
end

function log:close()
  if not self.file then
    return
  end
  self:flush()
  self.file:close()
  self.file = nil
end

return M
