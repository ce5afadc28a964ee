-- moonpool.mock.tei: the native routes of Hugging Face text-embeddings-inference.

local core = require "moonpool.core"
local input = require "moonpool.mock.input"
local strict = require "moonpool.mock.strict"

local M = {}

function M.error(_, message, kind)
  return core.json_encode { error = message, error_type = kind or "Validation" }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "Model is overloaded", "Overloaded")
  elseif status == 424 then
    return M.error(424, "Inference failed", "Backend")
  elseif status == 503 then
    return M.error(503, "unhealthy", "Unhealthy")
  end
  return M.error(status, "The mock was asked to answer " .. status, "Backend")
end

function M.bad_body(why)
  return 422, M.error(422, "Failed to parse the request body as JSON: " .. why)
end

local function refuse(message, kind, status)
  status = status or 422
  return nil, status, M.error(status, message, kind)
end

local function too_many(mock, n)
  local limit = mock.max_client_batch
  if n > limit then
    return refuse(("batch size %d > maximum allowed batch size %d"):format(n, limit), "Validation",
      mock.batch_status)
  end
  return true
end

-- Longer inputs are an error unless the client says truncate; true or the refusal.
local function check_length(mock, body, largest)
  if largest > mock.max_input_tokens and body.truncate ~= true then
    return refuse(("`inputs` must have less than %d tokens. Given: %d"):format(mock.max_input_tokens,
      largest))
  end
  return true
end

local function missing(field)
  return refuse(("Failed to deserialize the JSON body into the target type: missing field `%s`")
    :format(field))
end

-- true, or the refusal
local function check_flags(body, ...)
  for _, name in ipairs { ... } do
    if not input.is_null(body[name]) and type(body[name]) ~= "boolean" then
      return refuse(("Failed to deserialize the JSON body into the target type: %s: expected a boolean")
        :format(name))
    end
  end
  return true
end

local function check_strings(list, name)
  local ok, at = input.all_strings(list)
  if not ok then
    return refuse(("Failed to deserialize the JSON body into the target type: %s[%d]: expected a string")
      :format(name, at - 1))
  end
  for i = 1, #list do
    if list[i] == "" then
      return refuse(("`%s` cannot be empty"):format(name))
    end
  end
  return true
end

-- ---- /embed -----------------------------------------------------------------------------------

local function read_texts(mock, body, name)
  local value = body[name]
  if input.is_null(value) then
    return missing(name)
  elseif type(value) == "string" then
    value = { value }
  elseif not input.is_list(value) then
    return refuse("Failed to deserialize the JSON body into the target type: " .. name
      .. ": expected a string or a list of strings")
  elseif #value == 0 then
    return refuse(("`%s` cannot be empty"):format(name), "Empty", 400)
  end
  local ids, n = input.ids_to_text(value)
  if ids then
    return { ids }, n, n
  end
  local ok, status, reply = too_many(mock, #value)
  if ok then
    ok, status, reply = check_strings(value, name)
  end
  if not ok then
    return nil, status, reply
  end
  return value, input.count_tokens(value)
end

local function bare(job)
  return function(order)
    return "[" .. core.mock_vectors(job.texts, job.dim, job.dims, "float", false, order) .. "]"
  end
end

local function embed(mock, body)
  local texts, tokens, largest = read_texts(mock, body, "inputs")
  if not texts then
    return nil, tokens, largest
  end
  local ok, status, reply = check_length(mock, body, largest)
  if ok then
    ok, status, reply = check_flags(body, "normalize", "truncate")
  end
  if not ok then
    return nil, status, reply
  end
  local dims = body.dimensions
  if not input.is_null(dims) and (math.type(dims) ~= "integer" or dims < 1 or dims > mock.dim) then
    return refuse("`dimensions` must be between 1 and " .. mock.dim)
  end
  local job = { texts = texts, rows = #texts, tokens = tokens, dim = mock.dim }
  job.dims = input.is_null(dims) and mock.dim or dims
  job.reply = bare(job)
  return job
end

-- ---- /embed_all, /embed_sparse ------------------------------------------------------------------

local function several(write)
  return function(mock, body)
    local texts, tokens, largest = read_texts(mock, body, "inputs")
    if not texts then
      return nil, tokens, largest
    end
    local ok, status, reply = check_length(mock, body, largest)
    if not ok then
      return nil, status, reply
    end
    return strict.job(texts, function(order)
      return "[" .. write(mock, texts, order) .. "]"
    end)
  end
end

local function pairs_of(_, texts, order)
  local out = {}
  for k = 1, order and #order or #texts do
    local indices, values = strict.weights(texts[order and order[k] or k])
    local row = {}
    for i, index in ipairs(indices) do
      row[i] = { index = index, value = values[i] }
    end
    out[k] = core.json_encode(core.json_array(row))
  end
  return table.concat(out, ",")
end

-- ---- /rerank ----------------------------------------------------------------------------------

local function logit(score)
  local s = math.min(math.max(score, 1e-6), 1 - 1e-6)
  return math.log(s / (1 - s))
end

local function ranked(job, body)
  local scores = core.mock_scores(job.query, job.texts)
  local list = {}
  for i = 1, #scores do
    list[i] = { index = i - 1, score = body.raw_scores == true and logit(scores[i]) or scores[i] }
    if body.return_text == true then
      list[i].text = job.texts[i]
    end
  end
  table.sort(list, function(a, b)
    return a.score > b.score or a.score == b.score and a.index < b.index
  end)
  return list
end

local function rerank(mock, body)
  if type(body.query) ~= "string" then
    return missing "query"
  end
  local texts, tokens, largest = read_texts(mock, body, "texts")
  if not texts then
    return nil, tokens, largest
  end
  local ok, status, reply = check_length(mock, body, largest + input.tokens(body.query))
  if ok then
    ok, status, reply = check_flags(body, "return_text", "raw_scores", "truncate")
  end
  if not ok then
    return nil, status, reply
  end
  local job = { texts = texts, rows = #texts, query = body.query,
    tokens = tokens + #texts * input.tokens(body.query) }
  function job.reply(order)
    local list = ranked(job, body)
    if order and #order < #list then
      list[#list] = nil
    end
    return core.json_encode(core.json_array(list))
  end
  return job
end

-- ---- /predict ---------------------------------------------------------------------------------

local function labels(sequence, raw)
  local pair = type(sequence) == "table" and sequence[2]
  local text = type(sequence) == "table" and sequence[1] or sequence
  local yes = pair and core.mock_scores(text, { pair })[1] or core.mock_sentiment(text)
  local list = pair and { { label = "RELEVANT", score = yes }, { label = "IRRELEVANT", score = 1 - yes } }
    or { { label = "POSITIVE", score = yes }, { label = "NEGATIVE", score = 1 - yes } }
  if list[2].score > list[1].score then
    list[1], list[2] = list[2], list[1]
  end
  for _, item in ipairs(list) do
    item.score = raw and logit(item.score) or item.score
  end
  return list
end

local function is_sequence(value)
  return input.is_list(value) and #value >= 1 and #value <= 2 and input.all_strings(value)
    and value[1] ~= "" and value[2] ~= ""
end

-- "text" and ["a", "b"] are one sequence each, [["a"], ["b", "c"]] a batch.
local function read_sequences(value)
  if type(value) == "string" and value ~= "" then
    return { value }, true
  elseif not input.is_list(value) then
    return nil
  elseif type(value[1]) == "string" then
    return is_sequence(value) and #value == 2 and { value } or nil, true
  end
  for i = 1, #value do
    if not is_sequence(value[i]) then
      return nil
    end
  end
  return value, false
end

local function predict(mock, body)
  if input.is_null(body.inputs) then
    return missing "inputs"
  end
  local sequences, single = read_sequences(body.inputs)
  if not sequences then
    return refuse("Failed to deserialize the JSON body into the target type: inputs: expected a "
      .. "string, a pair or a list of these")
  elseif #sequences == 0 then
    return refuse("`inputs` cannot be empty", "Empty", 400)
  end
  local ok, status, reply = too_many(mock, #sequences)
  if not ok then
    return nil, status, reply
  end
  local tokens, largest = 0, 0
  for _, s in ipairs(sequences) do
    local n = input.tokens(type(s) == "table" and table.concat(s) or s)
    tokens, largest = tokens + n, math.max(largest, n)
  end
  ok, status, reply = check_length(mock, body, largest)
  if not ok then
    return nil, status, reply
  end
  return {
    rows = #sequences, tokens = tokens,
    reply = function(order)
      local list = {}
      for i = 1, order and math.min(#order, #sequences) or #sequences do
        list[i] = labels(sequences[i], body.raw_scores == true)
      end
      return core.json_encode(single and list[1] or core.json_array(list))
    end,
  }
end

-- ---- the small ones ---------------------------------------------------------------------------

local function free(reply)
  return function(mock, body)
    return {
      rows = 0, tokens = 0, free = true,
      reply = function()
        return reply(mock, body)
      end,
    }
  end
end

local info = free(function(mock)
  return core.json_encode {
    model_id = mock.model, model_sha = core.json_null, model_dtype = "float32",
    model_type = { embedding = { pooling = "mean" } }, max_concurrent_requests = 512,
    max_input_length = mock.max_input_tokens, max_batch_tokens = 16384,
    max_batch_requests = core.json_null, max_client_batch_size = mock.max_client_batch,
    auto_truncate = false, tokenization_workers = 1, version = "mock",
  }
end)

local health = free(function()
  return ""
end)

local function words(text)
  local list = core.json_array {}
  for start, word, stop in text:gmatch "()(%S+)()" do
    list[#list + 1] = { id = #word, text = word, special = false, start = start - 1, stop = stop - 1 }
  end
  return list
end

local function tokenize(mock, body)
  local texts, tokens, reply = read_texts(mock, body, "inputs")
  if not texts then
    return nil, tokens, reply
  end
  return {
    rows = #texts, tokens = tokens,
    reply = function()
      local list = {}
      for i = 1, #texts do
        list[i] = words(texts[i])
      end
      return core.json_encode(list)
    end,
  }
end

local function similarity(mock, body)
  local inputs = type(body.inputs) == "table" and body.inputs or {}
  if type(inputs.source_sentence) ~= "string" then
    return missing "source_sentence"
  end
  local texts, tokens, largest = read_texts(mock, inputs, "sentences")
  if not texts then
    return nil, tokens, largest
  end
  return {
    rows = #texts, tokens = tokens,
    reply = function()
      return core.json_encode(core.mock_scores(inputs.source_sentence, texts))
    end,
  }
end

M.routes = {
  ["/"] = { POST = embed }, -- what a model of embeddings answers there
  ["/embed"] = { POST = embed },
  ["/embed_all"] = { POST = several(strict.words) },
  ["/embed_sparse"] = { POST = several(pairs_of) },
  ["/rerank"] = { POST = rerank },
  ["/predict"] = { POST = predict },
  ["/info"] = { GET = info },
  ["/health"] = { GET = health },
  ["/tokenize"] = { POST = tokenize },
  ["/similarity"] = { POST = similarity },
}

return M
