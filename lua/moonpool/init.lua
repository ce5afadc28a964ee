-- moonpool: what `require "moonpool"` gives.
--
-- Tasks are always there. The other parts load when first used: a short script does not pay for what
-- it does not need, and a build may leave a part out. To add a part, add a line to `parts`.

local core = require "moonpool.core"
local task = require "moonpool.task"

local moonpool = { _VERSION = "moonpool " .. core.version, version = core.version }

for name, value in pairs(task) do
  moonpool[name] = value
end

-- name = { module, field of it (nil: the module itself) }
local parts = {
  client = { "moonpool.client", "client" },
  pool = { "moonpool.client", "pool" },
  preference = { "moonpool.client", "preference" },
  timeouts = { "moonpool.client", "timeouts" },
  policy = { "moonpool.policy" },
  provider = { "moonpool.provider" },
  matrix = { "moonpool.matrix" },
  ragged = { "moonpool.ragged" },
  json = { "moonpool.json" },
  jsonl = { "moonpool.jsonl" },
  base64 = { "moonpool.base64" },
  lines = { "moonpool.textio", "lines_or_raise" },
  job = { "moonpool.job", "new" },
  serve = { "moonpool.serve", "serve" },
  mock = { "moonpool.mock", "new" },
  metrics = { "moonpool.metrics", "text" },
  gateway = { "moonpool.gateway", "new" },
  simulate = { "moonpool.simulate", "run" },
}

setmetatable(moonpool, {
  __index = function(self, name)
    local part = parts[name]
    if not part then
      return nil
    end
    local value = require(part[1])
    if part[2] then
      value = value[part[2]]
    end
    rawset(self, name, value)
    return value
  end,
  -- Parts that were not used yet are loaded, so that all that is there shows.
  __pairs = function(self)
    for name in next, parts do
      pcall(function() return self[name] end) -- a build may leave one out
    end
    return next, self, nil
  end,
})

-- An error table: error(kind, message, fields). Library code returns `nil, moonpool.error(...)`.
moonpool.error = core.error
moonpool.is_error = core.is_error

local function summary(res)
  local first = res.errors[1]
  local total = res.rows or #res
  local cause = first.error or first
  return core.error(cause.kind or "invalid",
    string.format("%d of %s rows failed; first, row %s: %s", #res.errors,
      total > 0 and total or "the", first.index, tostring(cause)),
    { errors = res.errors, result = res, status = cause.status, retryable = cause.retryable })
end

-- strict(res, err): res, or a raised error when the call failed or any row of it did.
function moonpool.strict(res, err, ...)
  if res == nil or res == false then
    error(err == nil and "moonpool.strict: no result" or err, 0)
  end
  if type(res) ~= "number" and type(res) ~= "string" and type(res) ~= "boolean" and res.errors
    and #res.errors > 0 then
    error(summary(res), 0)
  end
  return res, err, ...
end

local function exit_code(status, err)
  if type(status) == "number" then
    return math.tointeger(status) or error("exit: the code must be an integer", 3)
  elseif status == true or status == nil and err == nil then
    return 0
  elseif status == false then
    return 1
  elseif status == nil then
    io.stderr:write("moonpool: ", tostring(err), "\n")
    return 1
  end
  return status.ok == false and 3 or 0
end

-- exit(code), exit(true or false), exit(result): 3 when rows of the result failed;
-- exit(nil, err): 1, with the error on standard error. Ends the program from any task.
function moonpool.exit(status, err)
  local code = exit_code(status, err)
  io.stdout:flush()
  core.exit(code)
end

return moonpool
