-- resty/moonpool/abi.lua - libmoonpool as LuaJIT sees it: declarations, the library, JSON for its options.
local ffi = require "ffi"

ffi.cdef(require "resty.moonpool.cdef") -- moonpool.h, as `make` translates it
ffi.cdef "unsigned int geteuid(void);"

local M = { _VERSION = "0.1.0" }

-- The prefix this file was installed under, whose lib/ has the library.
local function own_prefix()
  local file = debug.getinfo(1, "S").source:match "^@(.*)$" or ""
  return file:match "^(.*)/share/lua/[^/]+/resty/moonpool/[^/]+$"
end

local function load_library(given)
  local prefix, problems = own_prefix(), {}
  local names = { "libmoonpool.so.0", "/usr/local/lib/libmoonpool.so.0" }
  if prefix then table.insert(names, 1, prefix .. "/lib/libmoonpool.so.0") end
  given = given or os.getenv "MOONPOOL_LIBRARY"
  if given then names = { given } end
  for _, name in ipairs(names) do
    local ok, lib = pcall(ffi.load, name)
    if ok then return lib end
    problems[#problems + 1] = tostring(lib)
  end
  error("resty.moonpool: libmoonpool.so.0 is not found: " .. table.concat(problems, "; "), 0)
end

local function check_layout(lib)
  for _, name in ipairs {
    "mp_vectors", "mp_timeouts", "mp_exchange", "mp_result", "mp_request", "mp_gather", "mp_completion",
    "mp_reply",
  } do
    if ffi.sizeof("struct " .. name) ~= tonumber(lib.mp_struct_size(name)) then
      error(("resty.moonpool %s and libmoonpool %s are of different versions (struct %s)"):format(
        M._VERSION, ffi.string(lib.mp_version()), name), 0)
    end
  end
end

local lib

--- The library, loaded on first use; raises where it is missing or of another version. `name`: its file.
function M.library(name)
  if not lib then
    local l = load_library(name)
    check_layout(l)
    lib = l
  end
  return lib
end

-- ---- JSON, as much as requests need ----------------------------------------------------------------

local escapes = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
  ["\t"] = "\\t",
}

local function escape(c)
  return escapes[c] or ("\\u%04x"):format(c:byte())
end

local function quote(s)
  return '"' .. s:gsub('[%z\1-\31\\"]', escape) .. '"'
end

local encode

local function encode_list(t, n)
  local out = {}
  for i = 1, n do out[i] = encode(t[i]) end
  return "[" .. table.concat(out, ",") .. "]"
end

function encode(v)
  local kind = type(v)
  if kind == "string" then return quote(v) end
  if kind == "boolean" then return tostring(v) end
  if kind == "number" then
    if v ~= v or v == math.huge or v == -math.huge then error("a number that JSON does not have", 0) end
    return v == math.floor(v) and math.abs(v) < 2 ^ 53 and ("%d"):format(v) or ("%.17g"):format(v)
  end
  if kind ~= "table" then error("a " .. kind .. " has no JSON form", 0) end
  if #v > 0 then return encode_list(v, #v) end
  local out = {}
  for name, value in pairs(v) do
    if type(name) ~= "string" then error("a table with keys that are no texts", 0) end
    out[#out + 1] = quote(name) .. ":" .. encode(value)
  end
  return "{" .. table.concat(out, ",") .. "}"
end

M.encode, M.quote = encode, quote

return M
