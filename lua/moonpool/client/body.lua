-- moonpool.client.body: the body of a call's requests, from a provider's description of it: the rows,
-- what stands around each and around all of them, and the other fields.
local json = require "moonpool.json"

local M = {}

-- Sets the field at a dotted path: set(t, "parameters.dimension", 8).
local function set(t, path, value)
  local names = {}
  for name in path:gmatch "[^.]+" do names[#names + 1] = name end
  for i = 1, #names - 1 do
    local inner = t[names[i]]
    if type(inner) ~= "table" then
      inner = {}
      t[names[i]] = inner
    end
    t = inner
  end
  t[names[#names]] = value
end

--- The JSON fields of a call from its options, by the provider's names; a dotted name is a field of a
--- field.
function M.fields(desc, opts, extra)
  local fields = {}
  for name, value in pairs(desc.fixed or {}) do set(fields, name, value) end
  for name, field in pairs(desc.fields or {}) do
    if opts[name] ~= nil then
      set(fields, field, opts[name])
    end
  end
  for name, value in pairs(opts.extra_body or {}) do fields[name] = value end
  for name, value in pairs(extra or {}) do set(fields, name, value) end
  return fields
end

local SORTED = { sort_keys = true }

-- The members of a JSON object in a fixed order, so that equal calls send equal bytes.
local function members(fields)
  local names, out = {}, {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    local value = fields[name]
    local nested = type(value) == "table" and type(next(value)) == "string"
    out[i] = json.encode(name) .. ":"
      .. (nested and "{" .. members(value) .. "}" or json.encode(value, SORTED))
  end
  return table.concat(out, ",")
end
M.members = members

--- prefix, suffix of a JSON object whose field `rows` is the list of rows (alone: the one row itself).
function M.frame(rows, fields, alone)
  local rest = members(fields)
  if rest ~= "" then
    rest = "," .. rest
  end
  return "{" .. json.encode(rows) .. (alone and ":" or ":["), (alone and "" or "]") .. rest .. "}"
end

--- Where a member with the comma before it begins in the suffix (0-based), and its length; nil: it is
--- not there. In a JSON string its quotes would be escaped.
function M.member(suffix, name, value)
  if value == nil then
    return nil
  end
  local text = "," .. json.encode(name) .. ":" .. json.encode(value)
  local at = suffix:find(text, 1, true)
  if at then
    return at - 1, #text
  end
end

-- What is wrong with an input that is no text; true: it is fine.
local function fits(desc, v)
  if type(v) ~= "table" then
    return "string expected"
  end
  if desc.wrap and desc.wrap.items then
    if type(v.text) ~= "string" then
      return "a text, or an object with text, expected"
    end
    for name, value in pairs(v) do
      if name ~= "text" and not (desc.wrap.items[name] and type(value) == "string") then
        return ("an object with text%s expected"):format(M.item_names(desc.wrap.items))
      end
    end
    return true
  end
  if not desc.items then
    return "string expected"
  end
  return desc.items(v) or true
end

function M.item_names(items)
  local names = {}
  for name in pairs(items) do names[#names + 1] = name end
  table.sort(names)
  return #names > 0 and " and perhaps " .. table.concat(names, ", ") or ""
end

-- An input as the JSON of its row.
local function row_json(desc, shared, v)
  if not desc.wrap then
    return json.encode(v)
  end
  if type(v) == "string" then
    v = { text = v }
  end
  local own = {}
  for name, value in pairs(shared) do own[name] = value end
  for name, field in pairs(desc.wrap.items or {}) do
    if v[name] ~= nil then
      own[field] = v[name]
    end
  end
  local text, why = json.encode(v.text)
  if not text then
    return nil, why
  end
  local rest = members(own)
  if rest ~= "" then
    rest = "," .. rest
  end
  return "{" .. desc.wrap.before .. text .. (desc.wrap.after or "") .. rest .. "}"
end

--- Raises for a row that the provider cannot take; whether all are plain texts.
function M.check_rows(list, desc, where, level)
  local plain = true
  for i = 1, #list do
    local v = list[i]
    if type(v) ~= "string" then
      local why = fits(desc, v)
      if why ~= true then
        error(("%s[%d]: %s, got a %s"):format(where, i, why, type(v)), level + 1)
      end
      plain = false
    end
  end
  return plain
end

--- The rows of a call, into its spec: texts as they are, with what stands around each, or all as JSON
--- where one is no text. shared: the fields that every row has, by desc.wrap.fields.
function M.put_rows(spec, list, desc, shared, where, level)
  local plain = M.check_rows(list, desc, where, level + 1)
  if plain then
    spec.rows, spec.row_style = list, desc.style
    if desc.wrap then
      local rest = members(shared)
      spec.row_prefix = "{" .. desc.wrap.before
      spec.row_suffix = (desc.wrap.after or "") .. (rest ~= "" and "," or "") .. rest .. "}"
    end
    return
  end
  local rows = {}
  spec.row_of = function(v) return row_json(desc, shared, v) end
  for i = 1, #list do
    local text, why = row_json(desc, shared, list[i])
    if not text then
      error(("%s[%d]: %s"):format(where, i, tostring(why)), level + 1)
    end
    rows[i] = text
  end
  spec.rows, spec.row_style = rows, "json"
end

--- The fields that every row has of its own.
function M.row_fields(desc, opts)
  local fields = {}
  for name, field in pairs(desc.wrap and desc.wrap.fields or {}) do
    if opts[name] ~= nil then
      fields[field] = opts[name]
    end
  end
  return fields
end

--- What stands around the rows, into the spec: prefix, suffix and tail.
function M.surround(spec, desc, fields)
  if desc.frame then
    spec.prefix, spec.suffix, spec.tail = desc.frame(fields, members)
  else
    spec.prefix, spec.suffix = M.frame(desc.rows, fields, desc.alone)
  end
end

--- The whole body: rows and what stands around them, into the spec.
function M.fill(spec, desc, list, fields, shared, where, level)
  M.put_rows(spec, list, desc, shared, where, level + 1)
  M.surround(spec, desc, fields)
end

--- The same from a call's options.
function M.make(spec, desc, list, opts, client_options, extra, where, level)
  local fields, shared = M.fields(desc, opts, extra), M.row_fields(desc, opts)
  if desc.prepare then
    desc.prepare(fields, opts, client_options, shared)
  end
  M.fill(spec, desc, list, fields, shared, where, level + 1)
end

return M
