-- moonpool.provider.common: small things that several adapters need.
local M = {}

--- A text as a part of a URL.
function M.escape(text)
  return (text:gsub("[^%w%-._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

--- An input that is a list of token ids.
function M.tokens(value)
  if #value == 0 then
    return "a list of token ids must not be empty"
  end
  for _, id in ipairs(value) do
    if math.type(id) ~= "integer" or id < 0 then
      return "a list of token ids expected"
    end
  end
end

--- An input that is an object of texts: objects("text", "image") takes {text = "..."}.
function M.objects(...)
  local names = { ... }
  local known = {}
  for _, name in ipairs(names) do known[name] = true end
  local expected = "an object with " .. table.concat(names, " or ") .. " expected"
  return function(value)
    if next(value) == nil then
      return expected
    end
    for name, text in pairs(value) do
      if not known[name] or type(text) ~= "string" then
        return expected
      end
    end
  end
end

-- How vectors of each type come: numbers of that type, or bits eight at a time ("binary" is less 128).
M.dtypes = {
  float = "f32", base64 = "f32", int8 = "i8", uint8 = "u8", ubinary = "bits", binary = "bits_i8",
}

return M
