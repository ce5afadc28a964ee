-- moonpool.mock.jina: Jina AI's embeddings and rerank, under /jina.

local core = require "moonpool.core"
local input = require "moonpool.mock.input"
local voyage = require "moonpool.mock.voyage"
local strict = require "moonpool.mock.strict"

local M = { error = voyage.error, fault = voyage.fault, bad_body = voyage.bad_body }

local formats = { float = true, base64 = true, binary = true, ubinary = true }

-- {text=} and {image=} as texts: an image is embedded by its URL.
local function plain(list)
  if not input.is_list(list) then
    return list
  end
  local texts = {}
  for i, value in ipairs(list) do
    texts[i] = type(value) == "table" and (value.text or value.image) or value
  end
  return texts
end

-- With late chunking a text's vector depends on all texts of the request.
local function in_context(texts)
  local all, out = table.concat(texts, " "), {}
  for i, text in ipairs(texts) do
    out[i] = text .. " " .. all
  end
  return out
end

local function read_form(mock, body)
  local dims = input.is_null(body.dimensions) and mock.dim or body.dimensions
  local format = input.is_null(body.embedding_type) and "float" or body.embedding_type
  if math.type(dims) ~= "integer" or dims < 1 or dims > mock.dim then
    return nil, "[dimensions] is out of range"
  elseif not formats[format] then
    return nil, "[embedding_type] must be float, base64, binary or ubinary"
  elseif format:find "binary" and dims % 8 ~= 0 then
    return nil, "[dimensions] must be a multiple of 8 for packed bits"
  end
  for _, name in ipairs { "late_chunking", "truncate", "normalized" } do
    if not input.is_null(body[name]) and type(body[name]) ~= "boolean" then
      return nil, "[" .. name .. "] must be a boolean"
    end
  end
  return { dims = dims, format = format }
end

local function embed(mock, body)
  if type(body.model) ~= "string" then
    return voyage.refuse "[model] field required"
  end
  local texts, err = voyage.read_texts(plain(body.input), "input", 2048)
  local form
  if texts then
    form, err = read_form(mock, body)
  end
  if not form then
    return voyage.refuse(err)
  end
  local tokens = input.count_tokens(texts)
  if body.late_chunking == true then
    if tokens > mock.max_input_tokens then
      return voyage.refuse("[input] is longer than the model's context")
    end
    texts = in_context(texts)
  end
  return {
    texts = texts, rows = #texts, tokens = tokens,
    reply = function(order)
      return '{"model":' .. input.quote(body.model) .. ',"object":"list","usage":{"total_tokens":' .. tokens
        .. ',"prompt_tokens":' .. tokens .. '},"data":['
        .. core.mock_vectors(texts, mock.dim, form.dims, form.format, true, order) .. "]}"
    end,
  }
end

local function rerank(_, body)
  if type(body.query) ~= "string" or body.query == "" or type(body.model) ~= "string" then
    return voyage.refuse "[query] and [model] fields required"
  end
  local texts, err = voyage.read_texts(plain(body.documents), "documents", 2048)
  if not texts then
    return voyage.refuse(err)
  end
  local top = input.is_null(body.top_n) and #texts or body.top_n
  if math.type(top) ~= "integer" or top < 1 then
    return voyage.refuse "[top_n] must be a positive integer"
  end
  local tokens = input.count_tokens(texts)
  return {
    rows = #texts, tokens = tokens,
    reply = function(order)
      local n = order and math.min(top, #order) or top
      local list = voyage.best(body.query, texts, n, body.return_documents ~= false and function(text)
        return { text = text }
      end)
      return core.json_encode { model = body.model, usage = { total_tokens = tokens },
        results = core.json_array(list) }
    end,
  }
end

-- A vector for each word.
local function multi(mock, body)
  local texts, err = strict.texts(body.input, "input", 2048)
  if not texts or type(body.model) ~= "string" then
    return nil, 400, M.error(400, err or "model is required")
  end
  return strict.job(texts, function(order)
    return '{"model":' .. input.quote(body.model) .. ',"object":"list","data":['
      .. strict.words(mock, texts, order, function(i)
        return ('{"object":"embeddings","index":%d,"embeddings":'):format(i - 1), "}"
      end) .. '],"usage":{"total_tokens":7}}'
  end)
end

M.routes = {
  ["/v1/multi-vector"] = { POST = multi },
  ["/v1/embeddings"] = { POST = embed },
  ["/v1/rerank"] = { POST = rerank },
}

return M
