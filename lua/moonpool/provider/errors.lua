-- moonpool.provider.errors: what a reply's body says about an error besides its words, and no keys in
-- it.
local json = require "moonpool.json"

local M = {}

local MAX_BODY = 16384

-- Where services put the name of an error: OpenAI, Azure and Bayt in error.code, TEI in error_type,
-- Baseten in error_code, Google in error.status, Bedrock in __type.
local names = { "code", "error_code", "error_type", "type", "status", "__type" }

local function code_of(doc)
  local e = type(doc.error) == "table" and doc.error or doc
  for _, name in ipairs(names) do
    if type(e[name]) == "string" then
      return e[name]
    end
  end
end

local function document(body)
  if type(body) ~= "string" or #body > MAX_BODY or not body:find "^%s*{" then
    return nil
  end
  local doc = json.decode(body)
  return type(doc) == "table" and doc or nil
end

--- Gives the error of a reply its `code` from its body, and lets the provider complete it.
function M.complete(err, provider)
  if not err.status then
    return
  end
  local doc = document(err.body)
  if doc then
    err.code = code_of(doc)
  end
  if provider.error then
    provider.error(err, doc or {})
  end
end

local SHOWN = 12 -- so much of a key may be read before it counts as the key

-- A message may break off in the middle of a key, so its beginning is looked for.
local function replace(text, secret)
  local head = #secret > SHOWN and secret:sub(1, SHOWN) or secret
  local from = text:find(head, 1, true)
  while from do
    local n = #head
    while n < #secret and text:byte(from + n) == secret:byte(n + 1) do n = n + 1 end
    text = text:sub(1, from - 1) .. "***" .. text:sub(from + n)
    from = text:find(head, from + 3, true)
  end
  return text
end

local base64_letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

-- The base64 of `text` where `skip` other bytes come before it, without the letters at either end that
-- depend on what stands around it.
local function base64_inside(text, skip)
  local bytes, out = ("\0"):rep(skip) .. text, {}
  for i = 1, #bytes - 2, 3 do
    local a, b, c = bytes:byte(i, i + 2)
    local word = a << 16 | b << 8 | c
    for shift = 18, 0, -6 do
      local at = (word >> shift & 63) + 1
      out[#out + 1] = base64_letters:sub(at, at)
    end
  end
  return table.concat(out):sub(skip == 0 and 1 or skip + 2)
end

-- A key as a server may give it back: as it is, in a URL, in JSON, in base64 ("Basic ...").
local function forms(key)
  local list = { key }
  local function add(text)
    if text ~= key and #text >= 8 then
      list[#list + 1] = text
    end
  end
  add((key:gsub("[^%w%-._~]", function(c) return ("%%%02X"):format(c:byte()) end)))
  add((key:gsub("[^%w%-._~]", function(c) return ("%%%02x"):format(c:byte()) end)))
  add((key:gsub("/", "\\/")))
  for skip = 0, 2 do add(base64_inside(key, skip)) end
  return list
end

-- A client's list of keys -> key -> its forms: a job may tell a hundred thousand errors. The keys of a
-- client that are forgotten (they may rotate) go with the next list that grows too long.
local spelled = setmetatable({}, { __mode = "k" })
local MOST_SPELLED = 64

local function forms_of(keys, key)
  local known = spelled[keys]
  if not known or known.n >= MOST_SPELLED then
    known = { n = 0, forms = {} }
    spelled[keys] = known
  end
  if not known.forms[key] then
    known.forms[key], known.n = forms(key), known.n + 1
  end
  return known.forms[key]
end

--- Takes the keys out of an error's texts: some servers repeat the key they refuse.
function M.redact(err, keys)
  for _, key in ipairs(keys) do
    if #key >= 4 then
      for _, form in ipairs(forms_of(keys, key)) do
        for name, value in next, err do
          if type(value) == "string" then
            err[name] = replace(value, form)
          end
        end
      end
    end
  end
end

return M
