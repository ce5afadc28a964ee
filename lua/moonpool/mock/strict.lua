-- moonpool.mock.strict: what the services' dialects check in the same way, each in its own words.

local core = require "moonpool.core"
local input = require "moonpool.mock.input"

local M = {}

--- The name of a field that is not allowed, or nil.
function M.unknown(body, allowed)
  for name in pairs(body) do
    if not allowed[name] then
      return name
    end
  end
end

--- Names as a set.
function M.set(...)
  local set = {}
  for _, name in ipairs { ... } do
    set[name] = true
  end
  return set
end

--- A list of texts, each by `text_of(value)`, 1 to `max` of them; nil and what is wrong.
function M.texts(list, name, max, text_of)
  if input.is_null(list) or not input.is_list(list) or #list == 0 then
    return nil, ("%s must be a list that is not empty"):format(name)
  elseif max and #list > max then
    return nil, ("at most %d %s are allowed, there are %d"):format(max, name, #list)
  end
  local texts = {}
  for i = 1, #list do
    local text = list[i]
    if text_of then
      text = text_of(text)
    end
    if type(text) ~= "string" or text == "" then
      return nil, ("%s[%d] holds no text"):format(name, i - 1)
    end
    texts[i] = text
  end
  return texts
end

--- An object's field, where it is an object with nothing else in it than `allowed`.
function M.field(name, ...)
  local allowed = M.set(name, ...)
  return function(value)
    if type(value) ~= "table" or M.unknown(value, allowed) then
      return nil
    end
    return value[name]
  end
end

--- How many dimensions are asked for; nil: so many there are not.
function M.dims(mock, value)
  if input.is_null(value) then
    return mock.dim
  elseif math.type(value) == "integer" and value >= 1 and value <= mock.dim then
    return value
  end
end

--- The vectors as JSON, in that order, each between what wrap(i) returns.
function M.vectors(mock, texts, dims, order, wrap)
  if not wrap then
    return core.mock_vectors(texts, mock.dim, dims, "float", false, order)
  end
  local out = {}
  for k = 1, order and #order or #texts do
    local i = order and order[k] or k
    local before, after = wrap(i)
    out[k] = before .. core.mock_vectors(texts, mock.dim, dims, "float", false, { i }) .. after
  end
  return table.concat(out, ",")
end

--- A job: reply(order) makes the body.
function M.job(texts, reply, headers)
  return { texts = texts, rows = #texts, tokens = (input.count_tokens(texts)), reply = reply,
    headers = headers }
end

--- The scores of texts for a query, best first: a list of {i, score}, i 0-based.
function M.ranked(query, texts)
  local list = {}
  for i, score in ipairs(core.mock_scores(query, texts)) do
    list[i] = { i = i - 1, score = score }
  end
  table.sort(list, function(a, b)
    return a.score > b.score or a.score == b.score and a.i < b.i
  end)
  return list
end

--- A rerank job: item(i, score, text) -> a table; the best `top` of them; around(list) -> the body.
function M.rerank(query, texts, top, item, around)
  return M.job(texts, function(order)
    local list = M.ranked(query, texts)
    for k, one in ipairs(list) do
      list[k] = item(one.i, one.score, texts[one.i + 1])
    end
    local n = math.min(top or #list, order and #order or #list)
    return core.json_encode(around(core.json_array(table.move(list, 1, n, 1, {}))))
  end)
end

--- Whether a service takes this for a place in a list: nil, or a whole number from 1.
function M.count(value)
  return input.is_null(value) or math.type(value) == "integer" and value >= 1
end

--- The sentiment of a text as two labels, best first.
function M.labels(text)
  local good = core.mock_sentiment(text)
  local list = { { label = "POSITIVE", score = good }, { label = "NEGATIVE", score = 1 - good } }
  if good < 0.5 then
    list[1], list[2] = list[2], list[1]
  end
  return list
end

--- The words of a text as a sparse vector: indices, ascending, and how often each is there and a half.
function M.weights(text)
  local counts, indices, values = {}, {}, {}
  for word in text:lower():gmatch "%w+" do
    local index = 0
    for i = 1, #word do
      index = (index * 31 + word:byte(i)) % 4294967291
    end
    counts[index] = (counts[index] or 0) + 1
  end
  for index in pairs(counts) do
    indices[#indices + 1] = index
  end
  table.sort(indices)
  for i, index in ipairs(indices) do
    values[i] = counts[index] + 0.5
  end
  return indices, values
end

--- A vector for each word of each text, as JSON: a list of lists of lists, or each text's list between
--- what wrap(i) returns.
function M.words(mock, texts, order, wrap)
  local out = {}
  for k = 1, order and #order or #texts do
    local i = order and order[k] or k
    local list = {}
    for word in texts[i]:gmatch "%S+" do
      list[#list + 1] = word
    end
    local before, after = "", ""
    if wrap then
      before, after = wrap(i)
    end
    out[k] = before .. "[" .. core.mock_vectors(list, mock.dim, mock.dim, "float", false) .. "]" .. after
  end
  return table.concat(out, ",")
end

return M
