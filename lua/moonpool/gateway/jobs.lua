-- moonpool.gateway.jobs: what becomes of a request that was read: the way to its model,
-- and the reply.
--
-- Each returns a reply for moonpool.serve, or nil, err, and notes in ctx what headers, log and measures say.
local admit = require "moonpool.gateway.callers".admit
local core = require "moonpool.core"
local failure = require "moonpool.gateway.dialect".failure
local json = require "moonpool.json"

local M = {}

local now = core.now

-- Failures of one service that another may not have.
local passing = {
  connect = true, tls = true, decode = true, connect_timeout = true, read_timeout = true,
  write_timeout = true, pool_timeout = true, budget = true, breaker_open = true, rate_limited = true,
}

local function falls_through(err)
  if passing[err.kind] then
    return true
  end
  local status = err.kind == "http" and err.status
  return status and (status >= 500 or status == 429 or status == 408)
end

-- ---- the way to a model -----------------------------------------------------------------------

function M.may_use(key, model)
  if not key or not key.models then
    return true
  end
  for _, name in ipairs(key.models) do
    if name == model or name == "*" then
      return true
    end
  end
  return false
end

local function find_route(setup, ctx, name)
  local config = setup.config
  local route = name and config.routes[name]
  if not route and not name and #config.list == 1 and not config.default then
    name = config.list[1]
    route = config.routes[name]
  end
  route = route or config.default
  if not route then
    if not name then
      return nil, failure("invalid", "'model' is missing", { param = "model" })
    end
    return nil, failure("not_found", ("the model '%s' does not exist here"):format(name),
      { code = "model_not_found", param = "model" })
  end
  if not M.may_use(ctx.key, name) then
    return nil, failure("forbidden", ("this key may not use the model '%s'"):format(tostring(name)))
  end
  ctx.route = route
  return route
end

-- Tries the steps of the route until one answers.
local function along(setup, ctx, route, name, call)
  local err
  for i, step in ipairs(route.steps) do
    local up = setup.upstreams[step.upstream]
    local left = ctx.deadline - now()
    if left <= 0 then
      return nil, err or failure("total_timeout", "the request's time is over")
    end
    local out
    ctx.upstream, ctx.served_by = up.name, up
    out, err = call(up, step.model or name, left)
    if out then
      ctx.attempts = ctx.attempts + (out.attempts or 0)
      ctx.fallbacks = i - 1
      return out
    end
    ctx.attempts = ctx.attempts + (err.attempts or 0)
    if not falls_through(err) then
      break
    end
  end
  return nil, err
end

local function estimate(texts)
  local bytes = 0
  for i = 1, #texts do bytes = bytes + #texts[i] end
  return bytes // 4 + #texts
end

-- ---- embed ------------------------------------------------------------------------------------

-- The next plain requests for this model need no Lua: see binding/server/front.c.
local function teach(setup, route, job, out, ctx)
  local name = job.model or ""
  if setup.learned[name] or #route.steps > 1 or job.style ~= "openai" or job.ids or job.dimensions
    or job.user or job.extra or not out.plan or not out.plan.lasting then
    return
  end
  setup.learned[name] = true
  core.front_learn(setup.front, name, out.plan.handle, out.plan.core, ctx.upstream, out.cached ~= nil)
end

-- An operation's rows: their field in the job, their name to callers, an estimate of their tokens.
local asked = {
  embed = { field = "rows", name = "inputs", tokens = function(job) return estimate(job.rows) end },
  rerank = { field = "texts", name = "texts", tokens = function(job)
    return estimate(job.texts) + #job.query // 4
  end },
  classify = { field = "inputs", name = "inputs", tokens = function(job)
    local tokens = #job.inputs
    for _, one in ipairs(job.inputs) do
      tokens = tokens + (type(one) == "string" and #one // 4 or (#one[1] + #one[2]) // 4)
    end
    return tokens
  end },
}

-- Where the job's rows go, once they may: the route, or nil and the error.
local function enter(setup, ctx, job)
  local op = asked[job.op]
  local n = #job[op.field]
  if n > setup.max_inputs then
    return nil, failure("too_large", ("%d %s, at most %d a request"):format(n, op.name, setup.max_inputs))
  end
  local route, err = find_route(setup, ctx, job.model)
  if not route then
    return nil, err
  end
  err = admit(ctx, op.tokens(job), route.price)
  if err then
    return nil, err
  end
  ctx.rows = n
  return route
end

local function embed(setup, ctx, job)
  local route, err = enter(setup, ctx, job)
  if not route then
    return nil, err
  end
  local out
  out, err = along(setup, ctx, route, job.model, function(up, model, left)
    ctx.price = route.price or up.price or 0
    return up:embed(job, model, {
      timeout = left, key = ctx.flow, priority = ctx.key and ctx.key.priority, failed = ctx.failed,
      headers = ctx.headers,
    })
  end)
  if not out then
    return nil, err
  end
  if setup.front then
    teach(setup, route, job, out, ctx)
  end
  if out.count ~= ctx.rows then -- the engine counts too; a short reply must never leave here
    return nil, failure("decode", ("%d rows were asked for, %d came"):format(ctx.rows, out.count))
  end
  ctx.used = out.total_tokens or out.prompt_tokens or ctx.tokens
  ctx.answered_model, ctx.dimensions = out.model, out.matrix:cols()
  ctx.batch, ctx.cached, ctx.upstream_time = out.batch, out.cached, out.upstream_time
  local reply = {
    vectors = out.matrix, first = out.first, count = ctx.rows, style = job.style,
    encoding_format = job.format, model = out.model or job.model or "", id = ctx.id,
    usage = { prompt_tokens = out.prompt_tokens or ctx.tokens, total_tokens = ctx.used },
  }
  if job.single then
    return { json = { embedding = out.matrix:row(out.first):totable() } }
  end
  return reply
end

-- ---- rerank, classify -------------------------------------------------------------------------

local function cohere_ranking(job, out, ctx)
  local results = {}
  for i, hit in ipairs(out.results) do
    results[i] = {
      index = hit.index - 1, relevance_score = hit.score,
      document = job.return_text and { text = hit.text } or nil,
    }
  end
  return {
    id = ctx.id, results = results, model = job.model,
    meta = { api_version = { version = "2" }, billed_units = { search_units = 1 } },
    usage = out.usage and { total_tokens = out.total_tokens } or nil,
  }
end

local function tei_ranking(_, out)
  local results = {}
  for i, hit in ipairs(out.results) do
    results[i] = { index = hit.index - 1, score = hit.score, text = hit.text }
  end
  return results
end

local function rerank(setup, ctx, job)
  local route, err = enter(setup, ctx, job)
  if not route then
    return nil, err
  end
  local out
  out, err = along(setup, ctx, route, job.model, function(up, model, left)
    return up:rerank(job, model, { timeout = left, headers = ctx.headers })
  end)
  if not out then
    return nil, err
  end
  ctx.used, ctx.upstream_time = out.total_tokens or ctx.tokens, out.upstream_time
  local write = job.style == "tei" and tei_ranking or cohere_ranking
  return { json = write(job, out, ctx) }
end

local function classify(setup, ctx, job)
  local route, err = enter(setup, ctx, job)
  if not route then
    return nil, err
  end
  local out
  out, err = along(setup, ctx, route, job.model, function(up, model, left)
    return up:classify(job, model, { timeout = left, headers = ctx.headers })
  end)
  if not out then
    return nil, err
  end
  ctx.used, ctx.upstream_time = ctx.tokens, out.upstream_time
  return { json = job.single and out.results[1] or out.results }
end

M.operations = { embed = embed, rerank = rerank, classify = classify }

-- ---- passing through --------------------------------------------------------------------------

-- The body with the route's own name of the model in it, every other byte as it was.
local function with_model(body, from, to)
  if to == nil or to == from then
    return body
  end
  local wanted = json.encode(from)
  local at = 1
  while true do
    local s, e = body:find('"model"%s*:%s*', at)
    if not s then
      return body
    end
    if body:sub(e + 1, e + #wanted) == wanted then
      return body:sub(1, e) .. json.encode(to) .. body:sub(e + 1 + #wanted)
    end
    at = e + 1
  end
end

local passed_headers = { "accept", "content-type", "openai-organization", "openai-project", "traceparent" }

function M.pass_through(setup, ctx, req, body)
  local name = type(body.model) == "string" and body.model or nil
  local route, err = find_route(setup, ctx, name)
  if not route then
    return nil, err
  end
  local text = req.body
  err = admit(ctx, #text // 4, route.price)
  if err then
    return nil, err
  end
  local headers = {}
  for _, h in ipairs(passed_headers) do headers[h] = req:header(h) end
  headers.traceparent = ctx.headers and ctx.headers.traceparent or headers.traceparent
  local step = route.steps[1]
  local up = setup.upstreams[step.upstream]
  ctx.upstream, ctx.attempts = up.name, 1
  local status, reply_headers, chunks, closer =
    up:pass("POST", ctx.label, with_model(text, name, step.model), headers, { timeout = ctx.stream_timeout })
  if not status then
    return nil, reply_headers
  end
  return { status = status, headers = reply_headers, stream = chunks, closer = closer }
end

return M
