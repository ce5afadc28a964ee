-- moonpool.client.call: what all calls have in common: their options, from the user's names (and the
-- seeds' names) to the spec that the core takes; and errors and results back.
local common_errors = require "moonpool.provider.errors"
local core = require "moonpool.core"
local options = require "moonpool.options"
local policy = require "moonpool.policy"
local task = require "moonpool.task"
local R = options.rule

local M = {}

local function token(v)
  local meta = type(v) == "userdata" and getmetatable(v)
  if not meta or meta.__name ~= "moonpool.cancel_token" then
    return "cancel token expected"
  end
end

local function timeout(v)
  if type(v) == "table" then
    return
  end
  return R.duration(v)
end

local function status_codes(v)
  if type(v) ~= "table" then
    return "list of statuses expected"
  end
  for _, status in ipairs(v) do
    if math.type(status) ~= "integer" or status < 0 or status > 65535 then
      return "holds a value that is no status"
    end
  end
end

-- Options of every call.
local common = {
  model = R.text, timeout = timeout, total_timeout = R.duration, headers = R.table,
  extra_headers = R.table, custom_headers = R.table, cancel_token = token,
  max_concurrent_requests = R.count, batch_size = R.count, max_chars_per_request = R.count,
  max_tokens_per_request = R.count, max_bytes_per_request = R.count, api_key = R.either(R.string, R.func),
  preference = R.table, retry = R.any, hedge = R.any, batch = R.any, concurrency = R.any,
  breaker = R.any, route = R.any, idempotent = R.boolean, extra_body = R.table,
  -- the seeds' names (RequestProcessingPreference)
  timeout_s = R.positive, total_timeout_s = R.positive, hedge_delay = R.positive,
  hedge_budget_pct = R.not_negative, retry_budget_pct = R.not_negative,
  max_retries = R.whole, initial_backoff_ms = R.positive, primary_api_key_override = R.text,
  non_retryable_status_codes = status_codes, pin_initial_endpoint_once = R.boolean,
}
M.common = common
for name, rule in pairs(policy.rules) do common[name] = rule end
common.rate = R.either(R.off, R.func) -- the buckets are the client's
M.token = token

-- Options whose values no message shows.
M.secrets = { api_key = true, primary_api_key_override = true }

--- The rules of a call: the common ones and its own.
function M.rules(own)
  local rules = {}
  for k, v in pairs(common) do rules[k] = v end
  for k, v in pairs(own) do rules[k] = v end
  return rules
end

local preference_names = {
  "max_concurrent_requests", "batch_size", "max_chars_per_request", "timeout_s", "total_timeout_s",
  "hedge_delay", "hedge_budget_pct", "retry_budget_pct", "max_retries", "initial_backoff_ms",
  "cancel_token", "primary_api_key_override", "extra_headers", "non_retryable_status_codes",
  "pin_initial_endpoint_once", "max_tokens_per_request", "hedge", "retry", "timeout", "total_timeout",
}
local preference_rules = {}
for _, name in ipairs(preference_names) do preference_rules[name] = common[name] end

local defaults = {
  max_concurrent_requests = 128, batch_size = 128, hedge_budget_pct = 0.10, retry_budget_pct = 0.05,
  max_retries = 5, initial_backoff_ms = 125, timeout_s = 3600, pin_initial_endpoint_once = false,
}

-- A copy sent after the attempt has been given up is never sent.
local function check_hedge(t, where, level)
  local limit = t.timeout_s or type(t.timeout) == "number" and t.timeout
  if t.hedge_delay and limit and t.hedge_delay >= limit then
    error(("%s: hedge_delay: must be less than %s"):format(where, t.timeout_s and "timeout_s" or "timeout"),
      level + 1)
  end
end

-- What the seeds refuse as well: the whole ends before one attempt may, budgets beyond any sense. Only
-- what the caller said counts: a preference reads as the seeds' defaults where nothing was said.
local function check_limits(t, where, level)
  local given = rawget(t, "timeout")
  local attempt = rawget(t, "timeout_s") or type(given) == "number" and given
    or type(given) == "table" and given.attempt
  local total = rawget(t, "total_timeout") or rawget(t, "total_timeout_s")
    or type(given) == "table" and given.total
  if attempt and total and attempt > total then
    error(("%s: %s: must not be more than the total timeout"):format(where,
      rawget(t, "timeout_s") and "timeout_s" or "timeout"), level + 1)
  end
  for _, name in ipairs { "hedge_budget_pct", "retry_budget_pct" } do
    if t[name] and t[name] > 3 then
      error(("%s: %s: cannot exceed 3.0 (300%%)"):format(where, name), level + 1)
    end
  end
end

local function check_preference(t, where, level)
  options.check(where, t, preference_rules, level + 1, M.secrets)
  check_hedge(t, where, level + 1)
  check_limits(t, where, level + 1)
end

local preference_meta = { __name = "moonpool.preference" }
preference_meta.__index = function(_, name) return defaults[name] end
preference_meta.__tostring = function() return "moonpool.preference" end

--- moonpool.preference {...}: the seeds' RequestProcessingPreference. Fields not given read as the
--- seeds' defaults but do not override the client's; assigned fields count from the next call on.
function M.preference(t)
  t = t or {}
  check_preference(t, "preference", 2)
  local p = {}
  for k, v in pairs(t) do p[k] = v end
  return setmetatable(p, preference_meta)
end

-- ---- options of one call ------------------------------------------------------------------------

-- Preference first, then what the call itself says.
local function merged(opts, where, level)
  if not opts.preference then
    return opts
  end
  check_preference(opts.preference, where .. ": preference", level + 1)
  local all = {}
  for k, v in next, opts.preference do all[k] = v end
  for k, v in next, opts do all[k] = v end
  return all
end

local timeout_rules = {
  connect = R.duration, read = R.duration, write = R.duration, pool = R.duration,
  attempt = R.duration, total = R.duration,
}

--- A timeout option (number: attempt) as the core's table.
function M.timeouts(value, where, level)
  if value == nil then
    return {}
  end
  if type(value) ~= "table" then
    return { attempt = value }
  end
  options.check(where .. ": timeout", value, timeout_rules, level + 1)
  local t = {}
  for k, v in next, value do t[k] = v end
  return t
end

local function timeouts_of(client, o, where, level)
  local t = M.timeouts(o.timeout, where, level + 1)
  if o.timeout_s and t.attempt == nil then
    t.attempt = o.timeout_s
    -- the seeds' timeout knows no shorter silence
    if t.read == nil then
      t.read = o.timeout_s
    end
  end
  local total = o.total_timeout
  if total == nil then
    total = o.total_timeout_s
  end
  if total ~= nil then
    t.total = total
  end
  -- Said here too: the core lets a task's deadline stand in for a total that is not given.
  if t.total == nil then
    t.total = client.total_timeout
  end
  return t
end

-- The places that the call names.
local function put_places(t, o)
  for _, place in ipairs(policy.places) do t[place] = o[place] end
  if o.hedge_delay and o.hedge == nil then
    t.hedge = { delay = o.hedge_delay }
  end
  if o.pin_initial_endpoint_once and t.route == nil then
    t.route = "sticky"
  end
end

local function put_seed_fields(fields, o)
  fields["hedge.budget"] = o.hedge_budget_pct
  fields["retry.budget"] = o.retry_budget_pct
  fields["retry.max_attempts"] = o.max_retries and o.max_retries + 1
  fields["retry.base"] = o.initial_backoff_ms and o.initial_backoff_ms / 1000
  if o.non_retryable_status_codes then
    local set = {}
    for _, s in ipairs(o.non_retryable_status_codes) do set[s] = false end
    fields.statuses = set
  end
end

-- What was asked for, unless the provider allows less.
local function put_batch_fields(fields, o, client, limits)
  local batch = type(o.batch) == "table" and o.batch or {}
  local function smaller(name, given, limit)
    if limit and (not given or limit < given) then
      given = limit
    end
    fields[name] = given
  end
  smaller("batch.size", o.batch_size or batch.size or (type(o.batch) == "number" and o.batch)
    or client.batch_size or 128, limits.inputs)
  smaller("batch.chars", o.max_chars_per_request or batch.chars or client.batch_chars, limits.chars)
  smaller("batch.tokens", o.max_tokens_per_request or batch.tokens or client.batch_tokens, limits.tokens)
  smaller("batch.bytes", o.max_bytes_per_request or batch.bytes or client.batch_bytes, limits.bytes)
end

-- The client's policy with what the call overrides.
local function policy_of(client, o, limits, where, level)
  local t = { fields = {} }
  put_places(t, o)
  put_seed_fields(t.fields, o)
  put_batch_fields(t.fields, o, client, limits)
  return (policy.compile(client.policy, t, where, level + 1)) -- no tail call: levels count frames
end

--- The spec of a call for the core. limits: the provider's.
function M.spec(client, opts, limits, where, level)
  level = (level or 2) + 1
  local o = policy.expand(merged(opts, where, level), where, level)
  check_hedge(o, where, level)
  check_limits(o, where, level)
  local headers = {}
  local key = o.api_key or o.primary_api_key_override
  if key == nil then
    key = client.dynamic_key
  end
  if key then
    client.auth_header(key, headers, where, level)
  end
  -- Later ones replace: an Authorization header that the call names itself wins over the key.
  options.headers(where, o.extra_headers, level, headers)
  options.headers(where, o.custom_headers, level, headers)
  options.headers(where, o.headers, level, headers)
  client.remember(o.extra_headers)
  client.remember(o.custom_headers)
  client.remember(o.headers)
  local hooks = policy.hooks_of_call(client.own_hooks, o)
  if hooks and client.sign then
    hooks = client.sign(hooks)
  end
  return {
    where = where,
    model = o.model or client.options.model, -- limits that are learnt are its own
    headers = headers,
    timeouts = timeouts_of(client, o, where, level),
    policy = policy_of(client, o, limits or {}, where, level),
    max_concurrent = o.max_concurrent_requests or client.max_concurrent_requests,
    cancel_token = o.cancel_token or client.cancel_token,
    idempotent = o.idempotent ~= false,
    hooks = hooks and core.hooks(client.core, hooks), tag = o.tag == nil and client.tag or o.tag,
  }, o
end

-- ---- what the provider says -------------------------------------------------------------------------

--- Rules with the provider's own options added.
function M.with_provider(rules, desc)
  return options.extended(rules, desc.options)
end

local ports = { http = ":80", https = ":443" }

-- Scheme, host and port as one text, and what follows; nil for what is no URL.
local function origin_of(url)
  local scheme, host, rest = url:match "^(%a[%w+.-]*)://([^/?#]*)(.*)$"
  if not scheme then
    return nil
  end
  scheme, host = scheme:lower(), host:lower():gsub("^[^@]*@", "")
  return scheme .. "://" .. (host:find ":%d+$" and host or host .. (ports[scheme] or "")), rest
end

-- A whole URL is cut to its path where it is one of the client's own; another server is refused.
local function cut_url(state, where, url, level)
  local origin, rest = origin_of(url)
  if not origin then
    return url
  end
  for _, base in ipairs(state.urls) do
    local own, prefix = origin_of(base)
    prefix = prefix and prefix:gsub("/+$", "")
    local behind = own == origin and rest:sub(1, #prefix) == prefix and rest:sub(#prefix + 1)
    if behind and (behind == "" or behind:find "^[/?]") then
      return behind:find "^/" and behind or "/" .. behind
    end
  end
  error(("%s: path: %s is not below this client's base_url; make another client for it"):format(where,
    (origin:gsub("[%c\127]", "?"))), level + 1)
end

--- The path that the caller of request, batch_post or stream has named.
function M.own_path(state, where, opts, level)
  local own = state.provider.own_paths
  local path = opts.path or opts.url_path
  if type(path) == "string" then
    path = cut_url(state, where, path, level)
  end
  return options.path(where, path, level, own and own(state.options))
end

function M.path(desc, opts, client)
  if type(desc.path) == "function" then
    return desc.path(opts, client.options)
  end
  return desc.path
end

-- The limits that the server itself tells (TEI's /info), asked for by the first call of a client; a
-- server that cannot be reached is asked again by the next one.
local function discovered(client, self)
  if not client.discovered then
    client.discovering = client.discovering or task.semaphore(1)
    client.discovering:with(function()
      if client.discovered then
        return
      end
      client.discovered = client.provider.discover(function(o)
        o.retry, o.timeout = false, { attempt = 5 }
        return self:request(o)
      end)
    end)
  end
  return client.discovered
end

--- What a call must know of its model and the server tells, by desc.learn: asked once a model, again
--- only where nothing was answered.
function M.learnt(client, self, desc, o)
  local model = o.model or ""
  client.learnt = client.learnt or {}
  if not client.learnt[model] then
    client.learning = client.learning or task.semaphore(1)
    client.learning:with(function()
      if client.learnt[model] then
        return
      end
      local found, err = desc.learn(function(request)
        request.retry, request.timeout = false, { attempt = 5 }
        return self:request(request)
      end, setmetatable({}, { __index = function(_, name) return o[name] or client.options[name] end }))
      client.learnt[model] = found or err and err.status and {} or nil
    end)
  end
  return client.learnt[model] or {}
end

--- What one request of a call may carry: the provider's limits, and what its server says.
function M.limits(client, self, desc, o)
  local limits = desc.limits
  if type(limits) == "function" then
    limits = limits(o, client.options)
  end
  local all = {}
  for k, v in pairs(limits or {}) do all[k] = v end
  for k, v in pairs(limits and limits.models and limits.models[o.model] or {}) do all[k] = v end
  all.models = nil
  if not client.provider.discover then
    return all
  end
  for k, v in pairs(discovered(client, self) or {}) do all[k] = v end
  return all
end

-- ---- running ----------------------------------------------------------------------------------------

--- Starts a spec: an op, or nil, err. What the core refuses is raised at the caller's line.
function M.start(client, spec, level)
  local ok, op, err = pcall(core.call_start, client.core, spec)
  if not ok then
    error(("%s: %s"):format(spec.where, op), (level or 2) + 1)
  end
  return op, err
end

--- Runs a spec: a result userdata, or nil, err.
function M.run(client, spec, level)
  local op, err = M.start(client, spec, (level or 2) + 1)
  if not op then
    return nil, err
  end
  return core.call_wait(op)
end

M.error = core.error

--- An error of this client, completed: what the provider reads from the reply's body, and no key in
--- it even where the server repeats one.
function M.explain(client, err)
  common_errors.complete(err, client.provider)
  common_errors.redact(err, client.keys)
  return err
end

local cut_short = {
  cancelled = "cancelled", total_timeout = "the call's total timeout passed",
  closed = "the client was closed",
}

--- The error of a call that was cut short, or nil. err.hopeless: nothing was ever answered, and the
--- fault is none that a row could cause, so the rest was not sent.
function M.cut(info)
  if not info.kind then
    return nil
  end
  local err = M.error(info.kind, cut_short[info.kind] or info.words or info.kind)
  if not cut_short[info.kind] then
    err.hopeless, err.status = true, info.status
    err.message = err.message .. "; nothing has been answered yet, so no more was sent"
  end
  return err
end

-- Rows of a good reply that have no vector; the first of their errors.
local function faults(client, r, k, list)
  local found = core.result_faults(r, k)
  for _, e in ipairs(found) do
    e.error.endpoint = client.urls[e.error.endpoint_index]
    e.error.endpoint_index = nil
    list[#list + 1] = e
  end
  return found[1] and found[1].error
end

--- The list of {index=, error=} of a result's rows, and the error that stands for all of them.
function M.errors(client, r, info)
  local list, first = {}, nil
  local row = 1
  local shared = M.cut(info)
  local function rest(to)
    for i = row, to do list[#list + 1] = { index = i, error = shared } end
    if shared and to >= row then
      first = first or shared
    end
  end
  for k = 1, info.exchanges do
    local x = core.result_exchange(r, k)
    rest(x.first - 1)
    if x.error then
      x.error.endpoint = client.urls[x.error.endpoint_index]
      x.error.endpoint_index = nil
      M.explain(client, x.error)
      for i = x.first, x.first + x.count - 1 do list[#list + 1] = { index = i, error = x.error } end
      first = first or x.error
    else
      local fault = faults(client, r, k, list)
      first = first or fault
    end
    row = x.first + x.count
  end
  rest(info.rows)
  return list, first
end

--- What a call without a single good row returns: nil and the error, with all of them in it.
function M.failure(info, errors, first, partial)
  local err = M.cut(info) or first
    or M.error("decode", "the reply held nothing")
  err.errors = errors
  err.result = partial
  return nil, err
end

--- core.result_info with what is needed later to read the exchanges.
function M.info(client, r)
  local info = core.result_info(r)
  info.explain = function(err) return M.explain(client, err) end
  return info
end

--- requests[k] of a result, read when asked for.
function M.requests(r, info)
  local list = {}
  for k = 1, info.exchanges do
    local x = core.result_exchange(r, k)
    x.error = x.error and tostring(info.explain(x.error)) or nil
    list[k] = x
  end
  return list
end

return M
