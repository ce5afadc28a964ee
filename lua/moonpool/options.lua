-- moonpool.options: tables of options: unknown names, wrong types and senseless values are refused
-- before anything is sent, with the option's name and the nearest one that exists.
local M = {}

local closed_environment = false

--- From now on no variable of the environment is read: for scripts of others.
function M.no_environment()
  closed_environment = true
end

--- A variable of the environment; an empty one is not set, as for curl and in the shell's ${X:-}.
function M.env(name)
  if closed_environment then
    return nil
  end
  local value = os.getenv(name)
  return value ~= "" and value or nil
end

local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local corner = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local best = math.min(row[j] + 1, row[j - 1] + 1, corner + cost)
      corner = row[j]
      row[j] = best
    end
  end
  return row[#b]
end

--- The name of `known` (a set) that is nearest to `name`, or nil when none is near.
function M.nearest(name, known)
  local best, best_distance = nil, math.max(2, #name // 2)
  local names = {}
  for k in pairs(known) do names[#names + 1] = k end
  table.sort(names)
  for _, k in ipairs(names) do
    local d = distance(name, k)
    if d < best_distance then
      best, best_distance = k, d
    end
  end
  return best
end

-- How the keys of services begin.
local key_prefixes = {
  sk = true, pk = true, pa = true, jina = true, hf = true, gsk = true, nvapi = true, pcsk = true,
  nk = true, tok = true, key = true, ABSK = true, Bearer = true,
}

--- `text` without the words in it that look like the key of a service: a key that stands in the wrong
--- place must not go to the screen, a log or a bug report.
function M.masked(text)
  text = text:gsub("(%f[%w]%a+)([-_][%w_%-]+)", function(prefix, rest)
    return key_prefixes[prefix] and #rest >= 8 and rest:find "%d" and "***" or nil
  end)
  return (text:gsub("%f[%w]AIza[%w_%-]+", "***"):gsub("Bearer%s+%S+", "Bearer ***"))
end

-- What is refused may be shown: no control characters into a log, and no key.
local function fail(where, level, fmt, ...)
  error(where .. ": " .. M.masked(fmt:format(...)):gsub("%c", "?"), level + 1)
end

local function is_number(v)
  return type(v) == "number" and v == v
end

-- A rule is a function (value) -> nil when fine, else what was expected.
local R = {}
M.rule = R

function R.string(v)
  if type(v) ~= "string" then
    return "string expected"
  end
end
function R.text(v)
  if type(v) ~= "string" then
    return "string expected"
  end
  if not v:find("%S") then
    return "must not be blank"
  end
end
function R.boolean(v)
  if type(v) ~= "boolean" then
    return "boolean expected"
  end
end
function R.table(v)
  if type(v) ~= "table" then
    return "table expected"
  end
end
function R.any() end
function R.func(v)
  if type(v) ~= "function" then
    return "function expected"
  end
end
function R.positive(v)
  if not is_number(v) then
    return "number expected"
  end
  if v <= 0 then
    return "must be greater than 0"
  end
end
function R.not_negative(v)
  if not is_number(v) then
    return "number expected"
  end
  if v < 0 then
    return "cannot be negative"
  end
end
function R.count(v)
  if not is_number(v) then
    return "number expected"
  end
  if v <= 0 then
    return "must be greater than 0"
  end
  if v % 1 ~= 0 then
    return "must be a whole number greater than 0"
  end
end
function R.whole(v)
  if not is_number(v) then
    return "number expected"
  end
  if v < 0 or v % 1 ~= 0 then
    return "must be a whole number, 0 or more"
  end
end
--- A duration in seconds, or false for none.
function R.duration(v)
  if v == false then
    return
  end
  if not is_number(v) then
    return "number of seconds expected"
  end
  if v <= 0 then
    return "must be greater than 0"
  end
end
function R.one_of(...)
  local list = { ... }
  local set = {}
  for _, v in ipairs(list) do set[v] = true end
  return function(v)
    if not set[v] then
      return "must be one of " .. table.concat(list, ", ")
    end
  end
end
function R.either(...)
  local rules = { ... }
  return function(v)
    local why
    for _, rule in ipairs(rules) do
      why = rule(v)
      if not why then
        return
      end
    end
    return why
  end
end
R.off = function(v)
  if v ~= false then
    return "false expected"
  end
end

local kinds = {
  string = R.string, number = R.not_negative, count = R.count, boolean = R.boolean, table = R.table,
  text = R.text, any = R.any,
}

--- `rules` with `extra` (name -> kind) added. A kind is a name of the list above, a list of allowed
--- values, or a rule.
function M.extended(rules, extra)
  if not extra then
    return rules
  end
  local all = {}
  for name, rule in pairs(rules) do all[name] = rule end
  for name, kind in pairs(extra) do
    if type(kind) == "table" then
      kind = R.one_of(table.unpack(kind))
    end
    all[name] = type(kind) == "function" and kind or kinds[kind] or R.any
  end
  return all
end

local function shown(v)
  local t = type(v)
  if t == "string" then
    return #v > 40 and "a string" or ("'%s'"):format(v)
  end
  if t == "number" or t == "boolean" then
    return tostring(v)
  end
  return "a " .. t
end

--- where -> the rules last used there: what the prompt completes and explains.
M.known = {}

--- Checks `given` against `rules` (name -> rule). Raises at the caller's caller. Secrets are never
--- shown: rules of names in `secret` say only the type.
function M.check(where, given, rules, level, secret)
  level = (level or 2) + 1
  M.known[where] = rules
  if type(given) ~= "table" then
    fail(where, level, "table of options expected, got %s", type(given))
  end
  for name, value in pairs(given) do
    local rule = rules[name]
    if not rule then
      local near = type(name) == "string" and M.nearest(name, rules)
      fail(where, level, "unknown option '%s'%s", tostring(name),
        near and (" (did you mean '%s'?)"):format(near) or "")
    end
    local why = rule(value)
    if why then
      if secret and secret[name] then
        fail(where, level, "%s: %s, got a %s", name, why, type(value))
      end
      fail(where, level, "%s: %s, got %s", name, why, shown(value))
    end
  end
  return given
end

-- Whether ".." segments climb over the path's start.
local function climbs_out(path)
  local depth = 0
  for segment in path:match("^[^?#]*"):gsub("%%2[eE]", "."):gmatch "[^/]+" do
    depth = depth + (segment == ".." and -1 or segment ~= "." and 1 or 0)
    if depth < 0 then
      return true
    end
  end
  return false
end

--- The caller's own path, from "/" on. It stays below the base URL: the URL is normalised before it is
--- sent, and what lies beside the endpoint's prefix may be another tenant's.
--- `own`: prefixes of the provider itself, which may climb.
function M.path(where, path, level, own)
  path = path or "/"
  local rest = path
  for _, prefix in ipairs(own or {}) do
    if #path - #prefix < #rest and path:sub(1, #prefix) == prefix then
      rest = path:sub(#prefix + 1)
    end
  end
  if climbs_out(rest) then
    fail(where, level or 2, "path: its .. leads out of base_url")
  end
  return path:sub(1, 1) == "/" and path or "/" .. path
end

-- As the engine refuses them; here the message names the option.
local framing = {}
for name in ("content-length transfer-encoding connection keep-alive te trailer proxy-connection upgrade")
  :gmatch "%S+" do
  framing[name] = true
end

--- Headers: a table name -> value (false removes), as the flat list the core takes.
function M.headers(where, t, level, into)
  local out = into or {}
  if t == nil then
    return out
  end
  level = (level or 2) + 1
  if type(t) ~= "table" then
    fail(where, level, "headers: table expected, got %s", type(t))
  end
  for name, value in pairs(t) do
    if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+%-.^_`|~]+$") then
      fail(where, level, "headers: '%s' is no header name", tostring(name))
    end
    if value ~= false then
      if framing[name:lower()] then
        fail(where, level, "headers: %s is the transport's to set", name)
      end
      if type(value) == "number" then
        value = ("%s"):format(value)
      end
      if type(value) ~= "string" then
        fail(where, level, "headers: the value of %s must be a string, got a %s", name, type(value))
      end
      if value:find("[%c\127]") and value:find("[^\t%C]") then
        fail(where, level, "headers: the value of %s holds a line break or control character", name)
      end
    end
    out[#out + 1] = name
    out[#out + 1] = value
  end
  return out
end

return M
