-- moonpool.mock.input: the checks that all dialects share.

local core = require "moonpool.core"

local M = {}

--- Tokens of a text, about: four bytes each.
function M.tokens(text)
  return (#text + 3) // 4
end

--- Sum of tokens over a list of texts, and the largest.
function M.count_tokens(texts)
  local sum, largest = 0, 0
  for i = 1, #texts do
    local n = (#texts[i] + 3) // 4
    sum = sum + n
    if n > largest then
      largest = n
    end
  end
  return sum, largest
end

function M.is_null(value)
  return value == nil or value == core.json_null
end

--- A JSON array (an empty object is none).
function M.is_list(value)
  return type(value) == "table" and (value[1] ~= nil or next(value) == nil)
end

function M.all_strings(list)
  for i = 1, #list do
    if type(list[i]) ~= "string" then
      return false, i
    end
  end
  return true
end

local function all_integers(list)
  for i = 1, #list do
    if math.type(list[i]) ~= "integer" or list[i] < 0 then
      return false
    end
  end
  return #list > 0
end

--- [int] -> a text of its own, so that equal ids give equal vectors; nil if it is no such list.
function M.ids_to_text(list)
  if not M.is_list(list) or not all_integers(list) then
    return nil
  end
  return table.concat(list, " "), #list
end

local quoted = {}
local quoted_count = 0

--- value as JSON; names of models come again and again, so texts are remembered, up to a bound.
function M.quote(text)
  local json = quoted[text]
  if not json then
    if quoted_count > 1000 then
      quoted, quoted_count = {}, 0
    end
    json = core.json_encode(text)
    quoted[text] = json
    quoted_count = quoted_count + 1
  end
  return json
end

return M
