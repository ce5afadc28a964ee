-- moonpool.mock.voyage: Voyage AI's embeddings and rerank, under /voyage (OpenAI has their paths).

local core = require "moonpool.core"
local input = require "moonpool.mock.input"

local M = {}

function M.error(_, message)
  return core.json_encode { detail = message }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "You have exceeded the rate limit of your account.")
  elseif status == 401 then
    return M.error(401, "Provided API key is invalid.")
  end
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.bad_body(why)
  return 400, M.error(400, "The request body is not valid JSON: " .. why)
end

local function refuse(message)
  return nil, 400, M.error(400, message)
end
M.refuse = refuse

--- A list of texts; nil and what is wrong.
function M.read_texts(value, name, max)
  if type(value) == "string" then
    value = { value }
  end
  if input.is_null(value) or not input.is_list(value) or not input.all_strings(value) then
    return nil, ("Value '%s' must be a string or a list of strings."):format(name)
  elseif #value == 0 or #value > max then
    return nil, ("The list '%s' must have 1 to %d items, it has %d."):format(name, max, #value)
  end
  for i = 1, #value do
    if value[i] == "" then
      return nil, ("'%s' has an empty text at index %d."):format(name, i - 1)
    end
  end
  return value
end

local dtypes = { float = true, int8 = true, uint8 = true, binary = true, ubinary = true }

-- {dims, format} of the reply; nil and what is wrong.
local function read_form(mock, body)
  local dims = input.is_null(body.output_dimension) and mock.dim or body.output_dimension
  local dtype = input.is_null(body.output_dtype) and "float" or body.output_dtype
  if math.type(dims) ~= "integer" or dims < 1 or dims > mock.dim then
    return nil, "output_dimension is not supported by this model."
  elseif not dtypes[dtype] then
    return nil, "output_dtype must be float, int8, uint8, binary or ubinary."
  elseif dtype:find "binary" and dims % 8 ~= 0 then
    return nil, "packed bits need a dimension that 8 divides."
  elseif not input.is_null(body.encoding_format) and body.encoding_format ~= "base64" then
    return nil, "encoding_format must be null or base64."
  end
  local base64 = body.encoding_format == "base64"
  return { dims = dims, format = base64 and dtype == "float" and "base64" or dtype,
    packed = base64 and dtype ~= "float" }
end

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(bytes)
  local out = {}
  for at = 1, #bytes, 3 do
    local a, b, c = bytes:byte(at, at + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    for k = 1, 4 do
      local digit = n >> (24 - 6 * k) & 63
      out[#out + 1] = (k == 3 and not b or k == 4 and not c) and "=" or ALPHABET:sub(digit + 1, digit + 1)
    end
  end
  return table.concat(out)
end

-- The integers of a vector's JSON as base64 of their bytes.
local function as_bytes(list)
  return (list:gsub("%[([-%d,]+)%]", function(numbers)
    local bytes = {}
    for n in numbers:gmatch "-?%d+" do
      bytes[#bytes + 1] = string.char(tonumber(n) & 255)
    end
    return '"' .. base64(table.concat(bytes)) .. '"'
  end))
end

local function check(body)
  if type(body.model) ~= "string" then
    return "Argument 'model' is required."
  elseif not input.is_null(body.input_type) and body.input_type ~= "query"
    and body.input_type ~= "document" then
    return "input_type must be null, query or document."
  elseif not input.is_null(body.truncation) and type(body.truncation) ~= "boolean" then
    return "truncation must be a boolean."
  end
end

local function embed(mock, body)
  local wrong = check(body)
  if wrong then
    return refuse(wrong)
  end
  local texts, err = M.read_texts(body.input, "input", 1000)
  local form
  if texts then
    form, err = read_form(mock, body)
  end
  if not form then
    return refuse(err)
  end
  local tokens = input.count_tokens(texts)
  if tokens > mock.max_request_tokens then
    return refuse(("The batch has %d tokens, at most %d are allowed.")
      :format(tokens, mock.max_request_tokens))
  end
  return {
    texts = texts, rows = #texts, tokens = tokens,
    reply = function(order)
      local list = core.mock_vectors(texts, mock.dim, form.dims, form.format, true, order)
      return '{"object":"list","data":[' .. (form.packed and as_bytes(list) or list) .. '],"model":'
        .. input.quote(body.model) .. ',"usage":{"total_tokens":' .. tokens .. "}}"
    end,
  }
end

--- The best n of texts for a query, with their documents if `document` makes them from (text).
function M.best(query, texts, n, document)
  local list = {}
  for i, score in ipairs(core.mock_scores(query, texts)) do
    list[i] = { index = i - 1, relevance_score = score, document = document and document(texts[i]) or nil }
  end
  table.sort(list, function(a, b)
    return a.relevance_score > b.relevance_score
      or a.relevance_score == b.relevance_score and a.index < b.index
  end)
  return table.move(list, 1, math.min(n, #list), 1, {})
end

-- Groups: each text is embedded behind the first words of its group.
local function groups(mock, body)
  if type(body.model) ~= "string" or not input.is_list(body.inputs) or #body.inputs > 1000 then
    return refuse "model and inputs, a list of at most 1000 lists, are required."
  end
  local out, all = {}, {}
  for g, group in ipairs(body.inputs) do
    local texts, err = M.read_texts(group, "inputs", 16000)
    if not texts or type(group) ~= "table" then
      return refuse(err or "inputs must be a list of lists.")
    end
    local head = texts[1]:match "%S*"
    local list = {}
    for i, text in ipairs(texts) do
      list[i] = head .. " " .. text
    end
    out[g] = ('{"object":"list","index":%d,"data":[%s]}'):format(g - 1,
      core.mock_vectors(list, mock.dim, mock.dim, "float", true))
    table.move(texts, 1, #texts, #all + 1, all)
  end
  return {
    texts = all, rows = #out, tokens = (input.count_tokens(all)),
    reply = function(order)
      local list = {}
      for k = 1, order and #order or #out do
        list[k] = out[order and order[k] or k]
      end
      return '{"object":"list","data":[' .. table.concat(list, ",") .. '],"usage":{"total_tokens":9}}'
    end,
  }
end

local function rerank(_, body)
  if type(body.query) ~= "string" or body.query == "" or type(body.model) ~= "string" then
    return refuse "query and model are required."
  end
  local texts, err = M.read_texts(body.documents, "documents", 1000)
  if not texts then
    return refuse(err)
  end
  local top = input.is_null(body.top_k) and #texts or body.top_k
  if math.type(top) ~= "integer" or top < 1 then
    return refuse "top_k must be a positive integer."
  end
  local tokens = input.count_tokens(texts) + #texts * input.tokens(body.query)
  return {
    rows = #texts, tokens = tokens,
    reply = function(order)
      local n = order and math.min(top, #order) or top
      local list = M.best(body.query, texts, n, body.return_documents == true and function(text)
        return text
      end)
      return core.json_encode { object = "list", data = core.json_array(list), model = body.model,
        usage = { total_tokens = tokens } }
    end,
  }
end

-- Served as /voyage/v1/...; the bare paths are OpenAI's and Jina's too.
M.routes = {
  ["/v1/embeddings"] = { POST = embed },
  ["/v1/contextualizedembeddings"] = { POST = groups },
  ["/v1/rerank"] = { POST = rerank },
}

return M
