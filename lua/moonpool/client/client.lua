-- moonpool.client.client: the client: configuration in, calls as methods.
local core = require "moonpool.core"
local call = require "moonpool.client.call"
local options = require "moonpool.options"
local policy = require "moonpool.policy"
local provider = require "moonpool.provider"
local R = options.rule

local M = {}

local function url(v)
  if type(v) ~= "string" then
    return "string expected"
  end
  if not (v:find("^https?://") or v:find("^unix:/")) then
    return "must begin with http://, https:// or unix:/"
  end
end

local function key(v)
  local t = type(v)
  if t == "string" or t == "function" then
    return
  end
  if t == "table" and (type(v.file) == "string" or type(v.env) == "string") then
    return
  end
  return "string, function, {file=} or {env=} expected"
end

local rules = {
  base_url = url, endpoints = R.table, provider = R.any, api_key = key, headers = R.table,
  user_agent = R.string, http_version = R.one_of("1.1", "2", 1, 2, "1"), pool = R.any,
  timeout = R.either(R.table, R.duration), proxy = R.either(R.off, R.string, R.table),
  tls = R.table, preset = R.one_of("job", "gateway", "interactive", "none"),
  max_concurrent_requests = R.count, batch_size = R.count, cancel_token = call.token,
  accept_encoding = R.either(R.off, R.string), request_id_header = R.either(R.off, R.string),
  request_id_prefix = R.string, idempotency_header = R.string, deadline_headers = R.boolean,
  rate_key = R.string, total_timeout = R.duration,
  model = R.text, auth_scheme = R.text, trust = R.boolean,
  -- the seeds' names
  max_retries = R.whole, retry_delay = R.positive, verify_ssl = R.either(R.boolean, R.string),
  proxies = R.table, client_wrapper = R.any, endpoint_pool = R.table,
}
for _, place in ipairs(policy.places) do rules[place] = R.any end
for name, rule in pairs(policy.rules) do rules[name] = rule end

local endpoint_rules = {
  base_url = url, weight = R.not_negative, api_key = key, headers = R.table, health_path = R.string,
  health_interval = R.positive, health_timeout = R.positive, health_check_interval_s = R.positive,
  health_check_timeout_s = R.positive, deployment_health_path = R.string,
}
local tls_rules = {
  verify = R.boolean, ca_file = R.string, cert_file = R.string, key_file = R.string,
}
local pool_rules = {
  max_connections = R.count, max_idle = R.count, idle_timeout = R.positive, max_age = R.positive,
  lane_size = R.count, max_per_host = R.count,
}

-- ---- keys --------------------------------------------------------------------------------------------

local function read_file(path, where, level)
  local f, why = io.open(path, "r")
  if not f then
    error(("%s: api_key: cannot read %s"):format(where, why), level + 1)
  end
  local text = f:read("a")
  f:close()
  return (text:gsub("%s+$", ""))
end

-- What a key that was pasted can have caught on its way; a server would only say 401 to it.
local function key_fault(k)
  if k:find("[%c\127]") then
    return "the key holds a line break or control character"
  end
  if k:find(" ", 1, true) then
    return "the key holds a space inside: pasted wrongly?"
  end
  if k:find("\u{2013}", 1, true) or k:find("\u{2014}", 1, true) or k:find("\u{2011}", 1, true) then
    return "the key holds a dash as word processors make them, where a plain - belongs"
  end
  if k:find("[\128-\255]") then
    return "the key holds a character that is not ASCII: pasted wrongly?"
  end
end

-- A key's text now, without white space around it; functions are asked at each call, so keys can rotate.
local function key_text(k, where, level)
  if type(k) == "function" then
    k = k()
    if k ~= nil and type(k) ~= "string" then
      error(where .. ": api_key: the function must return a string or nil", level + 1)
    end
  elseif type(k) == "table" then
    k = k.env and options.env(k.env) or k.file and read_file(k.file, where, level + 1)
  end
  if not k then
    return nil
  end
  k = k:match "^%s*(.-)%s*$"
  if k == "" then
    return nil
  end
  local why = key_fault(k)
  if why then
    error(where .. ": api_key: " .. why, level + 1)
  end
  return k
end

local function env_key(prov)
  for _, name in ipairs(prov.key_env or {}) do
    local v = options.env(name)
    if v then
      return v, name
    end
  end
end

-- ---- endpoints -----------------------------------------------------------------------------------------

-- Base URLs with and without a version are both right, also where paths have another one.
local function without_version(base, prov)
  return prov.bare and (base:gsub("/+$", ""):gsub("/v1$", "")) or base
end

local function endpoint_list(o, prov, level)
  local list = o.endpoints or (o.endpoint_pool and o.endpoint_pool.endpoints)
  if list then
    if #list == 0 then
      error("client: endpoints: at least one is needed", level + 1)
    end
    local seen, total = {}, 0
    for i, ep in ipairs(list) do
      options.check(("client: endpoints[%d]"):format(i), ep, endpoint_rules, level + 1, { api_key = true })
      if not ep.base_url then
        error(("client: endpoints[%d]: base_url: missing"):format(i), level + 1)
      end
      local bare = ep.base_url:gsub("/+$", "")
      if seen[bare] then
        error(("client: endpoints[%d]: base_url: the same as endpoint %d"):format(i, seen[bare]), level + 1)
      end
      seen[bare] = i
      total = total + (ep.weight or 1)
    end
    if total <= 0 then
      error("client: endpoints: the weights are all 0", level + 1)
    end
    return list
  end
  local base = o.base_url or (prov.base and prov.base(o)) or (prov.base_env and options.env(prov.base_env))
    or prov.base_url
  if not base then
    error("client: base_url: missing", level + 1)
  end
  return { { base_url = without_version(base, prov) } }
end

local function shown_url(u)
  return (u:gsub("^(%a+://)[^/@]*@", "%1"))
end

-- ---- construction ----------------------------------------------------------------------------------------

local proxy_schemes = {
  http = true, https = true, socks4 = true, socks4a = true, socks5 = true, socks5h = true,
}

local function proxy_url(v)
  if type(v) ~= "string" then
    return "string expected"
  end
  local scheme = v:match("^(%a[%w+.-]*)://")
  if scheme and not proxy_schemes[scheme:lower()] or v:find("[%c%s\127]") then
    return "must be an address, or begin with http://, https:// or socks5://"
  end
end

local function proxies(o, cfg, level)
  local p = o.proxy
  if p == nil then
    p = o.proxies
  end
  if p == nil then
    return
  end
  if p == false then
    p = { http = "", https = "" }
  end
  if type(p) == "string" then
    p = { http = p, https = p }
  end
  options.check("client: proxy", p, { http = proxy_url, https = proxy_url, no_proxy = R.string }, level + 1,
    { http = true, https = true })
  cfg.proxy_http, cfg.proxy_https, cfg.no_proxy = p.http, p.https, p.no_proxy
end

local function tls(o, cfg, level)
  local t = o.tls or {}
  options.check("client: tls", t, tls_rules, level + 1)
  cfg.tls_verify, cfg.tls_ca_file = t.verify, t.ca_file
  cfg.tls_cert_file, cfg.tls_key_file = t.cert_file, t.key_file
  if type(o.verify_ssl) == "boolean" and t.verify == nil then
    cfg.tls_verify = o.verify_ssl
  end
  if type(o.verify_ssl) == "string" then
    cfg.tls_ca_file = cfg.tls_ca_file or o.verify_ssl
  end
  for _, name in ipairs { "tls_ca_file", "tls_cert_file", "tls_key_file" } do
    local path = cfg[name]
    local f = path and io.open(path, "r")
    if path and not f then
      error(("client: tls: %s: cannot read %s"):format(name:sub(5), path), level + 1)
    end
    if f then
      f:close()
    end
  end
end

local pools = setmetatable({}, { __mode = "k" })
local per_host = setmetatable({}, { __mode = "k" }) -- max_per_host of shared pools

local pool_meta = {
  __name = "moonpool.pool",
  __tostring = function() return "moonpool.pool" end,
}
pool_meta.__close = function(p)
  core.pool_close(pools[p])
end
pool_meta.__index = { close = pool_meta.__close }

--- moonpool.pool {...}: connections that several clients share.
function M.pool(t)
  t = t or {}
  options.check("pool", t, pool_rules, 2)
  local p = setmetatable({}, pool_meta)
  pools[p] = core.pool_new(t)
  per_host[p] = t.max_per_host
  return p
end

local function pool_of(o, level)
  local p = o.pool or o.client_wrapper
  if p == nil then
    return nil
  end
  if pools[p] then
    return pools[p]
  end
  options.check("client: pool", p, pool_rules, level + 1)
  return p
end

-- pool.max_per_host: requests of this client at one endpoint at once, whatever the concurrency policy
-- says. Several clients that share a pool each have their own count.
local function limit_per_host(o, t, level)
  local p = o.pool or o.client_wrapper
  if p and not pools[p] then
    options.check("client: pool", p, pool_rules, level + 1)
  end
  local most = p and (per_host[p] or not pools[p] and p.max_per_host)
  if not most then
    return
  end
  local c = t.concurrency
  if c == nil or c == false then
    t.concurrency = most
  elseif type(c) == "number" then
    t.concurrency = math.min(c, most)
  elseif c == "adaptive" or type(c) == "table" and c.mode == "adaptive" then
    t.fields["concurrency.max"] = math.min(most, type(c) == "table" and c.max or most)
  elseif type(c) == "table" then
    t.fields["concurrency.limit"] = math.min(most, c.limit or most)
  end
end

local function client_policy(o, level)
  local t = { fields = {} }
  for _, place in ipairs(policy.places) do t[place] = o[place] end
  if o.max_retries then
    t.fields["retry.max_attempts"] = o.max_retries + 1
  end
  if o.retry_delay then
    t.fields["retry.base"] = o.retry_delay
    t.fields["retry.throttle_base"] = o.retry_delay
  end
  limit_per_host(o, t, level + 1)
  return (policy.compile(o.preset or "job", t, "client", level + 1)) -- no tail call: levels count frames
end

local function prefix_of(o)
  return o.request_id_prefix or options.env "MOONPOOL_REQUEST_ID_PREFIX"
    or options.env "PERFORMANCE_CLIENT_REQUEST_ID_PREFIX"
end

local function auth_of(prov, o, level)
  local auth, scheme = prov.auth, o.auth_scheme
  if not scheme then
    return auth
  end
  local found = auth and auth.schemes and auth.schemes[scheme:lower()]
  if not found then
    error(("client: auth_scheme: provider '%s' has no scheme '%s'"):format(prov.name, scheme), level + 1)
  end
  return found
end

local KEYS_KEPT = 32 -- keys may change; the last ones are remembered to keep them out of messages

local function remember(keys, text)
  for _, known in ipairs(keys) do
    if known == text then
      return
    end
  end
  keys[#keys + 1] = text
  if #keys > KEYS_KEPT then
    table.remove(keys, 1)
  end
end

-- Adds the header of a key to a list of headers.
local function make_auth(prov, auth, keys)
  return function(k, headers, where, level)
    local text = key_text(k, where, level + 1)
    if not auth or not text then
      return
    end
    local why = prov.key_check and prov.key_check(text)
    if why then
      error(where .. ": api_key: " .. why, level + 1)
    end
    remember(keys, text)
    headers[#headers + 1] = auth.header
    headers[#headers + 1] = auth.format:format(text)
  end
end

local secret_headers = { authorization = true, ["api-key"] = true, ["x-api-key"] = true,
  ["proxy-authorization"] = true }

-- Keys that callers put into headers themselves: "Bearer x" hides x.
local function remember_headers(keys, headers)
  if not headers then
    return
  end
  for name, value in pairs(headers) do
    if type(name) == "string" and type(value) == "string" and secret_headers[name:lower()] then
      local text = value:match("(%S+)%s*$")
      if text then
        remember(keys, text)
      end
    end
  end
end

-- Whether the caller's own headers say who they are: then no key is added to them.
local function names_header(headers, name)
  for given in pairs(headers or {}) do
    if type(given) == "string" and given:lower() == name:lower() then
      return true
    end
  end
  return false
end

-- The key of an endpoint, as a header; one that is a function is asked at each call.
local function endpoint_auth(o, ep, prov, self, headers, level)
  if self.auth and names_header(o.headers, self.auth.header) then
    return
  end
  local k = ep.api_key
  if k == nil then
    k = o.api_key
  end
  if k == nil then
    k = env_key(prov)
  end
  if type(k) == "function" and ep.api_key == nil then
    self.dynamic_key = k
  elseif k then
    self.auth_header(k, headers, "client", level + 1)
  end
end

local function endpoints_config(o, prov, self, level)
  local list = {}
  for i, ep in ipairs(endpoint_list(o, prov, level + 1)) do
    local headers = {}
    endpoint_auth(o, ep, prov, self, headers, level + 1)
    options.headers("client", ep.headers, level + 1, headers)
    remember_headers(self.keys, ep.headers)
    list[i] = {
      base_url = without_version(ep.base_url, prov), weight = ep.weight, headers = headers,
      health_path = ep.health_path or ep.deployment_health_path,
      health_interval = ep.health_interval or ep.health_check_interval_s,
      health_timeout = ep.health_timeout or ep.health_check_timeout_s,
    }
    self.urls[i] = shown_url(ep.base_url)
  end
  return list
end

local function set_up(prov, o, level)
  if not prov.setup then
    return prov
  end
  local other, why = prov.setup(o)
  if why then
    error("client: " .. why, level + 1)
  end
  return other or prov
end

-- What the provider presets; policies only where the caller names no preset.
local function with_defaults(o, prov)
  local all = {}
  for name, value in pairs(o) do all[name] = value end
  for name, value in pairs(prov.defaults or {}) do
    local is_policy = type(value) == "table" and o.preset ~= nil
    if o[name] == nil and not is_policy then
      all[name] = value
    end
  end
  return all
end

local secrets = {
  api_key = true, proxy = true, proxies = true, webhook_secrets = true, access_key_id = true,
  secret_access_key = true, session_token = true,
}

-- The state of a client is kept apart from the object, so that printing one shows no key.
local states = setmetatable({}, { __mode = "k" })

--- Calls fn(client, state) for each client there is.
function M.each(fn)
  for object, state in pairs(states) do fn(object, state) end
end

local methods = {}
local meta = { __name = "moonpool.client.client", __index = methods }

function meta.__tostring(self)
  local s = states[self]
  return ("moonpool.client (%s, %s)"):format(s.provider.name, s.urls[1])
end

function M.state(self, level)
  local s = states[self]
  if not s then
    error("a client is expected before the colon: client:embed {...}", (level or 2) + 1)
  end
  return s
end

local function headers_with_agent(o, prov, level)
  local headers = options.headers("client", prov.headers, level + 1)
  if o.user_agent then
    headers[#headers + 1] = "User-Agent"
    headers[#headers + 1] = o.user_agent
  end
  return (options.headers("client", o.headers, level + 1, headers))
end

-- A provider that signs requests: hooks -> the same with its signature as the last word of
-- before_request, over what the user's own has made of the request.
local function signer(prov, o, keys)
  local sign = prov.sign and prov.sign(o, function(secret) remember(keys, secret) end)
  if not sign then
    return nil
  end
  return function(hooks)
    local all = {}
    for name, fn in pairs(hooks or {}) do all[name] = fn end
    all.before_request = function(view)
      local own = hooks and hooks.before_request
      local t = own and own(view) or {}
      local headers = sign(view, t)
      for name, value in pairs(t.headers or {}) do headers[name] = headers[name] or value end
      return { headers = headers, body = t.body, path = t.path }
    end
    return all
  end
end

-- What calls read of the client's options.
local function keep_settings(self, o)
  local batch = type(o.batch) == "table" and o.batch or {}
  self.batch_size = o.batch_size or batch.size or (type(o.batch) == "number" and o.batch) or nil
  self.batch_chars, self.batch_tokens, self.batch_bytes = batch.chars, batch.tokens, batch.bytes
  self.max_concurrent_requests = o.max_concurrent_requests
  self.own_hooks, self.tag = policy.hooks_of(o), o.tag
  self.hooks = self.sign and self.sign(self.own_hooks) or self.own_hooks
  self.cancel_token = o.cancel_token
  self.own_accept = names_header(o.headers, "Accept")
end

local function timeouts_of(self, o, level)
  local timeouts = call.timeouts(o.timeout, "client", level + 1)
  if o.total_timeout ~= nil then
    timeouts.total = o.total_timeout
  end
  self.total_timeout, self.read_timeout = timeouts.total, timeouts.read
  return timeouts
end

local function own_or(value, default)
  if value == false then
    return ""
  end
  return value or default
end

local function core_config(self, o, prov, level)
  local deadlines = o.deadline_headers
  if deadlines == nil then
    deadlines = prov.deadline_headers
  end
  local cfg = {
    endpoints = endpoints_config(o, prov, self, level + 1),
    headers = headers_with_agent(o, prov, level + 1),
    timeouts = timeouts_of(self, o, level + 1), policy = self.policy, pool = pool_of(o, level + 1),
    hooks = self.hooks and core.hooks(nil, self.hooks),
    http_version = (o.http_version == "2" or o.http_version == 2) and 2 or 1,
    accept_encoding = own_or(o.accept_encoding),
    request_id_header = own_or(o.request_id_header, prov.request_id_header),
    request_id_prefix = prefix_of(o), idempotency_header = o.idempotency_header,
    deadline_headers = deadlines,
    rate_key = o.rate_key or (type(o.rate) == "table" and o.rate.key) or nil,
  }
  proxies(o, cfg, level + 1)
  tls(o, cfg, level + 1)
  return cfg
end

--- moonpool.client {...}
function M.new(o)
  if type(o) == "string" then
    o = { base_url = o }
  end
  local prov = provider.get(type(o) == "table" and o.provider or nil, 2)
  options.check("client", o, options.extended(rules, prov.options), 2, secrets)
  o = policy.expand(o, "client", 2)
  prov = set_up(prov, o, 2)
  o = with_defaults(o, prov)
  local self = { provider = prov, urls = {}, options = o, keys = {} }
  self.auth = auth_of(prov, o, 2)
  self.auth_header = make_auth(prov, self.auth, self.keys)
  self.remember = function(headers) remember_headers(self.keys, headers) end
  self.remember(o.headers)
  self.policy = client_policy(o, 2)
  self.sign = signer(prov, o, self.keys)
  keep_settings(self, o)
  local ok, made = pcall(core.client_new, core_config(self, o, prov, 2))
  if not ok then
    error("client: " .. tostring(made):gsub("^.-:%d+: ", ""), 2)
  end
  self.core = made
  local client = setmetatable({}, meta)
  states[client] = self
  for name, method in pairs(prov.methods or {}) do
    if not methods[name] then
      rawset(client, name, method)
    end
  end
  return client
end

-- ---- life -------------------------------------------------------------------------------------------------

--- The client for a call that the provider serves at another address: this one, unless its address was
--- left to the provider.
function M.elsewhere(self, desc)
  local state = M.state(self)
  local o = state.options
  if not desc.elsewhere or o.base_url or o.endpoints or o.endpoint_pool then
    return self
  end
  if not state.sibling then
    local all = {}
    for name, value in pairs(o) do all[name] = value end
    all.base_url = desc.elsewhere(o)
    state.sibling = M.new(all)
  end
  return state.sibling
end

function methods.close(self)
  local state = M.state(self)
  if state.sibling then
    state.sibling:close()
  end
  core.client_close(state.core)
end
meta.__close = methods.close

function methods.stats(self)
  local state = M.state(self)
  local ok, stats = pcall(core.client_stats, state.core)
  if not ok then
    error("stats: the client is closed", 2)
  end
  stats.provider, stats.policy = state.provider.name, state.options.policy_name
  return stats
end

M.methods = methods

return M
