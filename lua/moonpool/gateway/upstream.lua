-- moonpool.gateway.upstream: a service behind the gateway, and a job sent to it.
local core = require "moonpool.core"
local batcher = require "moonpool.client.batcher"
local client = require "moonpool.client.client"
local json = require "moonpool.json"
local moonpool_client = require "moonpool.client"

local M = {}

local upstream = {}
upstream.__index = upstream

-- ---- options in the words of the provider -----------------------------------------------------

local input_types = {
  search_query = { query = "query", ["retrieval.query"] = true, RETRIEVAL_QUERY = true },
  search_document = { document = "document", passage = "passage", ["retrieval.passage"] = true,
    RETRIEVAL_DOCUMENT = true },
  classification = { classification = true, CLASSIFICATION = true },
  clustering = { separation = true, CLUSTERING = true },
}

-- A Cohere input type as one that the provider's option takes; nil: it knows none of that meaning.
local function type_for(kind, wanted)
  if type(kind) ~= "table" then
    return wanted
  end
  local synonyms = input_types[wanted] or {}
  for _, value in ipairs(kind) do
    if value == wanted or synonyms[value] then
      return value
    end
  end
end

-- truncate is a boolean at TEI and Ollama, NONE, START or END at Cohere and its kin.
local function truncate_for(kind, wanted)
  if type(kind) == "table" then
    if type(wanted) == "string" then
      return wanted
    end
    return wanted and "END" or "NONE"
  elseif kind == "boolean" then
    if type(wanted) == "string" then
      return wanted ~= "NONE"
    end
    return wanted
  end
end

-- The options of embed that this job asks for and the provider can take.
local function embed_options(desc, job, model)
  local o = { model = model }
  local fields, own = desc.fields or {}, desc.options or {}
  local of_rows = desc.wrap and desc.wrap.fields or {}
  if job.dimensions and (fields.dimensions or of_rows.dimensions) then
    o.dimensions = job.dimensions
  end
  if job.user and fields.user then
    o.user = job.user
  end
  if job.input_type then
    if own.input_type then
      o.input_type = type_for(own.input_type, job.input_type)
    end
    if own.task then
      o.task = type_for(own.task, job.input_type)
    end
  end
  if job.truncate ~= nil and own.truncate then
    o.truncate = truncate_for(own.truncate, job.truncate)
  end
  for _, name in ipairs { "normalize", "prompt_name", "truncation_direction" } do
    if job[name] ~= nil and own[name] then
      o[name] = job[name]
    end
  end
  if job.extra and desc.encoding == "encoding_format" then
    o.extra_body = job.extra
  end
  return o
end

-- Attempts and the longest time of a result's requests.
local function exchanges(res)
  local attempts, longest = 0, 0
  for _, one in ipairs(res.requests) do
    attempts = attempts + one.attempts
    longest = math.max(longest, one.time)
  end
  return attempts, longest
end

-- ---- embed ------------------------------------------------------------------------------------

local function refused(message, param)
  return nil, core.error("invalid", message, { status = 400, param = param })
end

-- Token ids are rows of JSON.
local function rows_of(self, desc, job)
  if not job.ids then
    return job.rows
  end
  if not desc.items or desc.items(job.rows[1]) then
    return refused(("the service behind takes no token ids (%s)"):format(self.provider.name), "input")
  end
  return job.rows
end

-- What the provider could not do: fewer dimensions, unit length. A copy: the matrix may be shared.
local function finish(out, desc, job)
  local wanted = job.dimensions
  local have = out.matrix:cols()
  if wanted and wanted > have then
    return refused(("'dimensions' is %d, the model's vectors have %d"):format(wanted, have), "dimensions")
  end
  local cut = wanted and wanted < have
  local normalize = cut or (job.normalize and not (desc.options or {}).normalize)
  if normalize then
    out.matrix = core.matrix_cut(out.matrix, out.first, out.count, wanted or have, true)
    out.first = 1
  end
  return out
end


-- A name for what the requests of equal jobs share.
local function plan_name(job, model, call)
  local name = (job.ids and "ids\0" or "\0") .. (model or "")
  local first = next(call)
  if first == nil or first == "model" and next(call, first) == nil then
    return name
  end
  local names = {}
  for k, v in pairs(call) do
    names[#names + 1] = k .. "\0" .. (type(v) == "table" and json.encode(v) or tostring(v))
  end
  table.sort(names)
  return name .. "\0" .. table.concat(names, "\0")
end

-- A call whose inputs must stay together goes by itself.
local function embed_alone(self, job, call, rows, o)
  call.input, call.total_timeout, call.headers = rows, o.timeout, o.headers
  local res, err = self.client:embed(call)
  if not res then
    return nil, err
  end
  if not res.ok then
    return nil, res.errors[1].error
  end
  local usage = res.usage or {}
  local attempts, longest = exchanges(res)
  return finish({
    matrix = res.matrix, first = 1, count = #res, model = res.model, batch = #res,
    prompt_tokens = usage.prompt_tokens, total_tokens = usage.total_tokens,
    attempts = attempts, upstream_time = longest,
  }, self.provider.embed, job)
end

--- Sends a job's rows to the model: {matrix=, first=, count=, model=, prompt_tokens=, total_tokens=,
--- attempts=, upstream_time=, batch=}, or nil, err. o: {key=, priority=, timeout=}.
function upstream:embed(job, model, o)
  local desc = self.provider.embed
  if not desc then
    return refused(("the service behind has no embed call (%s)"):format(self.provider.name))
  end
  if o.failed then
    return nil, batcher.error_of(self.batcher, o.failed)
  end
  local rows, err = rows_of(self, desc, job)
  if not rows then
    return nil, err
  end
  local call = embed_options(desc, job, model)
  local plan
  plan, err = batcher.plan(self.batcher, plan_name(job, model, call), call, rows[1], 1)
  if not plan then
    return nil, err
  end
  -- A request of several callers belongs to no single trace.
  if plan.alone or o.headers and self.single then
    return embed_alone(self, job, call, rows, o)
  end
  local matrix, first, prompt, total, said, attempts, time, batch =
    batcher.submit(self.batcher, plan, rows, o)
  if not matrix then
    return nil, batcher.error_of(self.batcher, first)
  end
  return finish({
    matrix = matrix, first = first, count = #rows, model = said, batch = batch,
    prompt_tokens = prompt >= 0 and prompt or nil, total_tokens = total >= 0 and total or nil,
    attempts = attempts, upstream_time = time, plan = plan,
    cached = self.caches and (attempts == 0 and #rows or 0) or nil,
  }, desc, job)
end

-- ---- the other calls --------------------------------------------------------------------------

local function ranked(self, name, call, o)
  local desc = self.provider[name]
  if not desc then
    return refused(("the service behind has no %s call (%s)"):format(name, self.provider.name))
  end
  call.total_timeout, call.headers = o.timeout, o.headers
  local res, err = self.client[name](self.client, call)
  if not res then
    return nil, err
  end
  if not res.ok then
    return nil, res.errors[1].error
  end
  local attempts, longest = exchanges(res)
  return {
    results = res.results, usage = res.usage, attempts = attempts, upstream_time = longest,
    total_tokens = res.usage and (res.usage.total_tokens or res.usage.prompt_tokens),
  }
end

function upstream:rerank(job, model, o)
  local desc = self.provider.rerank or {}
  local fields = desc.fields or {}
  return ranked(self, "rerank", {
    model = model, query = job.query, texts = job.texts, top_n = job.top_n,
    return_text = job.return_text, raw_scores = fields.raw_scores and job.raw_scores or nil,
    truncate = fields.truncate and job.truncate or nil,
  }, o)
end

function upstream:classify(job, model, o)
  local desc = self.provider.classify or {}
  local fields = desc.fields or {}
  return ranked(self, "classify", {
    model = model, inputs = job.inputs, raw_scores = fields.raw_scores and job.raw_scores or nil,
    truncate = fields.truncate and job.truncate or nil,
  }, o)
end

-- ---- passing through --------------------------------------------------------------------------

local passed = { ["content-type"] = true, ["cache-control"] = true, ["openai-processing-ms"] = true }

--- A request passed on as it is, its reply streamed back: status, headers, iterator, closer; or nil, err.
function upstream:pass(method, path, body, headers, o)
  local chunks, closer = self.client:stream {
    method = method, path = path, body = body, headers = headers, sse = false, retry = false,
    timeout = { total = o.timeout or false },
  }
  if not chunks then
    return nil, closer
  end
  local out = {}
  for name, value in pairs(closer.headers) do
    if passed[name] then
      out[name] = value
    end
  end
  return closer.status, out, chunks, closer
end

--- The models that the service lists: names, or nil, err.
function upstream:list(timeout)
  local res, err = self.client:request { method = "GET", path = "/v1/models", timeout = { total = timeout } }
  if not res then
    return nil, err
  end
  local data = type(res.data) == "table" and res.data.data
  if type(data) ~= "table" then
    return nil, core.error("decode", "the service's list of models is none")
  end
  local names = {}
  for _, one in ipairs(data) do
    if type(one) == "table" and type(one.id) == "string" then
      names[#names + 1] = one.id
    end
  end
  return names
end

-- ---- life -------------------------------------------------------------------------------------

--- new(name, options): options of moonpool.client, and batch = {max_batch=, max_wait=, slots=,
--- cache_bytes=} of its batcher.
function M.new(name, o)
  local own = {}
  for k, v in pairs(o) do own[k] = v end
  local batch = own.batch
  own.batch, own.price = nil, nil
  if own.preset == nil then
    own.preset = "gateway"
  end
  local made = moonpool_client.client(own)
  local state = client.state(made)
  local self = setmetatable({
    name = name, client = made, state = state, provider = state.provider, price = o.price,
  }, upstream)
  if state.provider.embed then
    local ok, b = pcall(made.batcher, made, batch or {})
    if not ok then
      made:close()
      error(b, 0)
    end
    self.single = (batch or {}).max_batch == 1
    self.caches = (batch and batch.cache_bytes or 0) > 0
    self.batcher = b
  end
  return self
end

function upstream:collect(add)
  if not self.batcher then
    return
  end
  local stats = self.batcher:stats()
  local labels = { upstream = self.name }
  local function one(name, kind, help, value)
    add("moonpool_gateway_upstream_" .. name, kind, help, labels, value or 0)
  end
  one("requests_total", "counter", "Requests sent upstream.", stats.requests)
  one("rows_total", "counter", "Rows sent upstream.", stats.request_rows)
  one("waiting", "gauge", "Rows that wait for a slot.", stats.waiting)
  one("busy", "gauge", "Slots that are busy.", stats.busy)
end

function upstream:close()
  if self.batcher then
    self.batcher:close()
  end
  self.client:close()
end

return M
