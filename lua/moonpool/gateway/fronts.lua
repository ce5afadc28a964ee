-- moonpool.gateway.fronts: the requests that callers may send, read into one form.
--
-- A reader gets the body (a table) and returns a job, or nil, message, name of the field at fault:
--   { op = "embed", rows = texts or lists of token ids, ids = whether they are, style = of the reply,
--     format = "float" | "base64" | "bytes", model =, dimensions =, user =, input_type =, truncate =,
--     normalize =, extra = fields that we do not know, single = one vector without a list }
--   { op = "rerank", query =, texts =, top_n =, return_text =, raw_scores =, truncate =, model = }
--   { op = "classify", inputs =, raw_scores =, truncate =, model =, single = }
local json = require "moonpool.json"

local M = {}

local null = json.null
local list_marker = getmetatable(json.array {}) -- of a list that was decoded empty

local function bad(message, param)
  return nil, message, param
end

-- The field, with null as absent; a wrong type is an error(table) caught in M.read.
local function field(body, name, kind)
  local v = body[name]
  if v == nil or v == null then
    return nil
  end
  if kind == "integer" then
    if math.type(v) == "integer" then
      return v
    end
    if type(v) == "number" and v == math.floor(v) and v < 2^53 then
      return math.tointeger(v)
    end
    error({ front = true, message = ("'%s' must be a whole number"):format(name), param = name }, 0)
  end
  if type(v) ~= kind then
    error({ front = true, message = ("'%s' must be a %s"):format(name, kind), param = name }, 0)
  end
  return v
end

local function count(body, name, most)
  local v = field(body, name, "integer")
  if v and (v < 1 or v > most) then
    error({ front = true, message = ("'%s' must be from 1 to %d"):format(name, most), param = name }, 0)
  end
  return v
end

-- An object decodes to a table without a list part.
local function is_list(v)
  return type(v) == "table" and (#v > 0 or next(v) == nil)
end

local function check_ids(list)
  for i = 1, #list do
    local id = list[i]
    if math.type(id) ~= "integer" or id < 0 then
      return false
    end
  end
  return #list > 0
end

-- rows, whether they are token ids, whether it was one alone; or nil, message
local function read_input(v, name)
  if type(v) == "string" then
    return { v }, false, true
  end
  if v == nil or v == null then
    return bad(("'%s' is missing"):format(name), name)
  end
  if not is_list(v) then
    return bad(("'%s' must be a text or a list of texts"):format(name), name)
  end
  local n = #v
  if n == 0 then
    return bad(("'%s' must not be empty"):format(name), name)
  end
  local first = type(v[1])
  if first == "string" then
    for i = 2, n do
      if type(v[i]) ~= "string" then
        return bad(("'%s[%d]' must be a text"):format(name, i - 1), name)
      end
    end
    return v, false, false
  elseif first == "number" then
    if not check_ids(v) then
      return bad(("'%s' must be a list of token ids"):format(name), name)
    end
    return { v }, true, true
  elseif first == "table" then
    for i = 1, n do
      if type(v[i]) ~= "table" or not check_ids(v[i]) then
        return bad(("'%s[%d]' must be a list of token ids"):format(name, i - 1), name)
      end
    end
    return v, true, false
  end
  return bad(("'%s[0]' must be a text or a list of token ids"):format(name), name)
end

-- ---- OpenAI -----------------------------------------------------------------------------------

local formats = { float = "float", base64 = "base64", bytes = "bytes" }
local known_openai = {
  input = true, model = true, encoding_format = true, dimensions = true, user = true,
}

-- What only the service behind may know goes on to it.
local function extra_of(body, known)
  local extra
  for name, value in pairs(body) do
    if not known[name] and type(name) == "string" then
      extra = extra or {}
      extra[name] = value
    end
  end
  return extra
end

function M.openai_embed(body)
  local rows, ids, param = read_input(body.input, "input")
  if not rows then
    return nil, ids, param
  end
  local format = field(body, "encoding_format", "string")
  if format and not formats[format] then
    return bad("'encoding_format' must be float or base64", "encoding_format")
  end
  return {
    op = "embed", rows = rows, ids = ids, style = "openai", format = format or "float",
    model = field(body, "model", "string"), dimensions = count(body, "dimensions", 1000000),
    user = field(body, "user", "string"), extra = extra_of(body, known_openai),
  }
end

-- ---- Cohere -----------------------------------------------------------------------------------

local function embedding_type(body)
  local types = field(body, "embedding_types", "table")
  if not types then
    return "float"
  end
  if #types ~= 1 or not formats[types[1]] or types[1] == "bytes" then
    error({ front = true, param = "embedding_types",
      message = "'embedding_types' must be one of float and base64, and one a request" }, 0)
  end
  return types[1]
end

-- [{content = [{type = "text", text =}]}] as texts
local function texts_of_inputs(inputs)
  local texts = {}
  for i = 1, #inputs do
    local content = type(inputs[i]) == "table" and inputs[i].content
    local part = type(content) == "table" and #content == 1 and content[1]
    if type(part) ~= "table" or type(part.text) ~= "string" then
      return bad(("'inputs[%d]' must be one text"):format(i - 1), "inputs")
    end
    texts[i] = part.text
  end
  return texts
end

function M.cohere_embed(body)
  if field(body, "images", "table") then
    return bad("'images' are not taken here", "images")
  end
  local texts = field(body, "texts", "table")
  if not texts and field(body, "inputs", "table") then
    local why, param
    texts, why, param = texts_of_inputs(body.inputs)
    if not texts then
      return nil, why, param
    end
  end
  local rows, ids, param = read_input(texts, "texts")
  if not rows then
    return nil, ids, param
  end
  if ids then
    return bad("'texts' must be a list of texts", "texts")
  end
  return {
    op = "embed", rows = rows, ids = false, style = "cohere", format = embedding_type(body),
    model = field(body, "model", "string"), dimensions = count(body, "output_dimension", 1000000),
    input_type = field(body, "input_type", "string"), truncate = field(body, "truncate", "string"),
  }
end

local function read_documents(list, name)
  if not is_list(list) or #list == 0 then
    return bad(("'%s' must be a list of texts, and not empty"):format(name), name)
  end
  local texts = {}
  for i = 1, #list do
    local v = list[i]
    if type(v) == "table" then
      v = v.text
    end
    if type(v) ~= "string" then
      return bad(("'%s[%d]' must be a text"):format(name, i - 1), name)
    end
    texts[i] = v
  end
  return texts
end

local function rerank(body, list_name)
  local query = field(body, "query", "string")
  if not query then
    return bad("'query' is missing", "query")
  end
  local texts, why, param = read_documents(body[list_name], list_name)
  if not texts then
    return nil, why, param
  end
  return { op = "rerank", query = query, texts = texts, model = field(body, "model", "string") }
end

function M.cohere_rerank(body)
  local job, why, param = rerank(body, "documents")
  if not job then
    return nil, why, param
  end
  job.style, job.top_n = "cohere", count(body, "top_n", 1000000)
  job.return_text = field(body, "return_documents", "boolean")
  return job
end

-- ---- TEI --------------------------------------------------------------------------------------

-- TEI's truncate is a boolean, also written "true".
local function flag(body, name)
  local v = body[name]
  if v == nil or v == null then
    return nil
  end
  if type(v) == "boolean" then
    return v
  end
  error({ front = true, message = ("'%s' must be true or false"):format(name), param = name }, 0)
end

function M.tei_embed(body)
  local rows, ids, one = read_input(body.inputs, "inputs")
  if not rows then
    return nil, ids, one
  end
  return {
    op = "embed", rows = rows, ids = ids, style = "tei", format = "float",
    dimensions = count(body, "dimensions", 1000000), truncate = flag(body, "truncate"),
    normalize = flag(body, "normalize"), prompt_name = field(body, "prompt_name", "string"),
    truncation_direction = field(body, "truncation_direction", "string"),
    model = field(body, "model", "string"),
  }
end

--- POST /rerank: TEI's body has texts, Jina's and Cohere's documents.
function M.tei_rerank(body)
  if body.texts == nil and body.documents ~= nil then
    return M.cohere_rerank(body)
  end
  local job, why, param = rerank(body, "texts")
  if not job then
    return nil, why, param
  end
  job.style, job.return_text = "tei", flag(body, "return_text")
  job.raw_scores, job.truncate = flag(body, "raw_scores"), flag(body, "truncate")
  return job
end

-- "a" is one input, {"a"} too, {"a", "b"} a pair; a list of such lists is several.
function M.tei_predict(body)
  local v = body.inputs
  local job = {
    op = "classify", style = "tei", raw_scores = flag(body, "raw_scores"), truncate = flag(body, "truncate"),
    model = field(body, "model", "string"),
  }
  local function fits(list)
    if not is_list(list) or #list < 1 or #list > 2 then
      return false
    end
    return type(list[1]) == "string" and (list[2] == nil or type(list[2]) == "string")
  end
  if type(v) == "string" then
    job.inputs, job.single = { v }, true
  elseif fits(v) then
    job.inputs, job.single = { #v == 1 and v[1] or v }, true
  elseif is_list(v) and #v > 0 then
    job.inputs = {}
    for i = 1, #v do
      local one = v[i]
      if not fits(one) then
        return bad(("'inputs[%d]' must be a list of one text or two"):format(i - 1), "inputs")
      end
      job.inputs[i] = #one == 1 and one[1] or one
    end
  else
    return bad("'inputs' must be a text or a list of lists of texts", "inputs")
  end
  return job
end

-- ---- Ollama -----------------------------------------------------------------------------------

function M.ollama_embed(body)
  local rows, ids, param = read_input(body.input, "input")
  if not rows then
    return nil, ids, param
  end
  if ids then
    return bad("'input' must be a text or a list of texts", "input")
  end
  return {
    op = "embed", rows = rows, ids = false, style = "ollama", format = "float",
    model = field(body, "model", "string"), dimensions = count(body, "dimensions", 1000000),
    truncate = flag(body, "truncate"),
  }
end

--- The older /api/embeddings: {prompt} -> {embedding}.
function M.ollama_single(body)
  local prompt = field(body, "prompt", "string")
  if not prompt then
    return bad("'prompt' is missing", "prompt")
  end
  return {
    op = "embed", rows = { prompt }, ids = false, style = "ollama", format = "float", single = true,
    model = field(body, "model", "string"),
  }
end

-- ---- reading ----------------------------------------------------------------------------------

--- reader(body as it came) -> job; or nil, an error with kind, message and param.
function M.read(reader, req)
  local body, err = req:json()
  if body == nil then
    return nil, { kind = "invalid", message = "the body is not JSON: " .. tostring(err.message or err) }
  elseif type(body) ~= "table" or #body > 0 or getmetatable(body) == list_marker then
    return nil, { kind = "invalid", message = "the body must be a JSON object" }
  end
  local ok, job, message, param = pcall(reader, body)
  if not ok then
    if type(job) == "table" and job.front then
      return nil, { kind = "invalid", message = job.message, param = job.param }
    end
    error(job, 0)
  elseif not job then
    return nil, { kind = "invalid", message = message, param = param }
  end
  return job
end

return M
