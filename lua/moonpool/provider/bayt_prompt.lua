-- moonpool.provider.bayt_prompt: a prompt of Bayt: its fields under the wire's names and under those of
-- Bayt's client, its variables, its context.
local json = require "moonpool.json"

local M = {}

-- Bayt's client calls some fields otherwise than the wire does.
local aliases = {
  generator = "content", system = "systemPrompt", system_prompt = "systemPrompt",
  critique = "critiquePrompt", critique_prompt = "critiquePrompt", namespace = "workspaceSlug",
  slug = "packageName", version_content = "versionContent",
}
local blank = { -- what an absent field reads as
  id = "", title = "", content = "", systemPrompt = "", critiquePrompt = "", category = "",
  workspaceSlug = "", packageName = "", version = "v0",
}

-- The raw fields stand apart, so that no field of a reply can take a method's place.
local raw = setmetatable({}, { __mode = "k" })

local function field(data, name)
  local value = data[name]
  if value == nil or value == json.null then
    return blank[name]
  end
  return value
end

-- ---- context ------------------------------------------------------------------------------------------

local item = {}
local item_aliases = { file_name = "fileName", mime_type = "mimeType", file_size = "fileSize" }

function item.is_file(self) return raw[self].type == "file" end
function item.is_url(self) return raw[self].type == "url" end

local function copy(data)
  local out = {}
  for name, value in pairs(data) do out[name] = value end
  return out
end

function item.to_dict(self) return copy(raw[self]) end

local item_meta = {
  __name = "moonpool.bayt.context",
  __index = function(self, name)
    if item[name] then
      return item[name]
    end
    local value = raw[self][name]
    if value == nil and item_aliases[name] then
      value = raw[self][item_aliases[name]]
    end
    if value ~= json.null then
      return value
    end
  end,
  __pairs = function(self) return next, raw[self] end,
}

local function context(data)
  local list = {}
  if type(data.context) ~= "table" then
    return list
  end
  for i, one in ipairs(data.context) do
    local it = setmetatable({}, item_meta)
    raw[it] = type(one) == "table" and one or {}
    list[i] = it
  end
  return list
end

-- ---- variables ----------------------------------------------------------------------------------------

local function trim(text)
  return text:match "^%s*(.-)%s*$"
end

-- "name", "name:type", "name:type // description"
local function parse_variable(inside)
  local head, description = inside:match "^(.-)//(.*)$"
  head = head or inside
  local name, kind = head:match "^([^:]*):(.*)$"
  name = trim(name or head)
  kind = trim(kind or "")
  description = trim(description or "")
  if name == "" then
    return nil
  end
  return {
    name = name, type = kind ~= "" and kind or nil, description = description ~= "" and description or nil,
  }
end

local VARIABLE = "{{([^{}]*)}}"

--- The variables of some texts, each once, in the order they come: {name, type, description}.
function M.extract(texts)
  local list, seen = {}, {}
  for _, text in ipairs(texts) do
    for inside in text:gmatch(VARIABLE) do
      local variable = parse_variable(inside)
      if variable and not seen[variable.name] then
        seen[variable.name] = true
        list[#list + 1] = variable
      end
    end
  end
  return list
end

local function as_text(value)
  if type(value) == "table" then
    return json.encode(value) or tostring(value)
  end
  return tostring(value)
end

--- text with the variables' values in it. A value is literal text: what looks like a variable in it
--- stays as it is; so do variables that have no value.
function M.interpolate(text, values)
  return (text:gsub(VARIABLE, function(inside)
    local variable = parse_variable(inside)
    local value = variable and values[variable.name]
    if value == nil or value == json.null then
      return nil
    end
    return as_text(value)
  end))
end

local function is_list(v)
  return type(v) == "table" and (v[1] ~= nil or next(v) == nil)
end

local checks = {
  string = function(v) return type(v) == "string" end,
  number = function(v) return type(v) == "number" end,
  boolean = function(v) return type(v) == "boolean" end,
  array = is_list,
  object = function(v) return type(v) == "table" and v[1] == nil end,
}
local type_names = {
  string = "string", str = "string", text = "string", number = "number", int = "number", integer = "number",
  float = "number", boolean = "boolean", bool = "boolean", array = "array", list = "array", object = "object",
  dict = "object",
}

--- What is wrong with the values: {[name] = message}, empty when nothing is. Types nobody knows pass.
function M.validate(variables, values)
  local errors, known = {}, {}
  for _, variable in ipairs(variables) do
    known[variable.name] = true
    local value = values[variable.name]
    local kind = variable.type and type_names[variable.type:lower()]
    if value == nil then
      errors[variable.name] = "Missing required variable: " .. variable.name
    elseif kind and not checks[kind](value) then
      errors[variable.name] = ("Expected %s, got %s"):format(kind, type(value))
    end
  end
  for name in pairs(values) do
    if not known[name] then
      errors[name] = "Unexpected variable: " .. tostring(name)
    end
  end
  return errors
end

-- ---- prompt -------------------------------------------------------------------------------------------

local prompt = {}

function prompt.to_dict(self) return copy(raw[self]) end
function prompt.get(self, name, default)
  local value = raw[self][name]
  if value == nil then
    return default
  end
  return value
end
function prompt.has_system_prompt(self) return self.system ~= "" end
function prompt.has_critique_prompt(self) return self.critique ~= "" end
function prompt.has_context(self) return #self.context > 0 end

local function pick(list, test)
  local out = {}
  for _, one in ipairs(list) do
    if test(one) then
      out[#out + 1] = one
    end
  end
  return out
end
function prompt.get_file_contexts(self) return pick(self.context, item.is_file) end
function prompt.get_url_contexts(self) return pick(self.context, item.is_url) end

local function texts_of(self)
  local data = raw[self]
  local from = type(data.versionContent) == "table" and data.versionContent or data
  local texts = {}
  for _, name in ipairs { "content", "systemPrompt", "critiquePrompt" } do
    if type(from[name]) == "string" then
      texts[#texts + 1] = from[name]
    end
  end
  return texts
end

function prompt.extract_variables(self) return M.extract(texts_of(self)) end
function prompt.validate_variables(self, values) return M.validate(self:extract_variables(), values) end

--- {generator, system, critique} with the values in them; or nil, err: err.variables is what is wrong.
function prompt.render(self, values)
  local wrong = self:validate_variables(values)
  local first
  for name in pairs(wrong) do
    if not first or tostring(name) < tostring(first) then
      first = name
    end
  end
  if first then
    return nil, require("moonpool.core").error("invalid", ("variables: %s"):format(wrong[first]),
      { variables = wrong, code = "validation_error", exception = "BaytValidationError" })
  end
  return {
    generator = M.interpolate(self.generator, values), system = M.interpolate(self.system, values),
    critique = M.interpolate(self.critique, values),
  }
end

local derived = {
  context = function(data) return context(data) end,
  is_draft = function(data) return field(data, "version") == "v0" or data.is_draft == true end,
  package_name = function(data)
    return ("@%s/%s:%s"):format(field(data, "workspaceSlug"), field(data, "packageName"),
      field(data, "version"))
  end,
}

local prompt_meta = {
  __name = "moonpool.bayt.prompt",
  __index = function(self, name)
    if prompt[name] then
      return prompt[name]
    end
    local data = raw[self]
    if derived[name] then
      return derived[name](data)
    end
    return field(data, aliases[name] or name)
  end,
  __pairs = function(self) return next, raw[self] end,
  __tostring = function(self) return self.title end,
}

--- A prompt from the reply's object.
function M.new(data)
  local self = setmetatable({}, prompt_meta)
  raw[self] = type(data) == "table" and data or {}
  return self
end

return M
