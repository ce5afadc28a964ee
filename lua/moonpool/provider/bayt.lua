-- moonpool.provider.bayt: Bayt claro: prompts by package name, their context files. It serves prompts
-- only; there is nothing to embed or to generate.
local call = require "moonpool.client.call"
local client = require "moonpool.client.client"
local common = require "moonpool.provider.common"
local core = require "moonpool.core"
local options = require "moonpool.options"
local prompt = require "moonpool.provider.bayt_prompt"
local R = options.rule

local MIN_KEY = 9

local function key_check(key)
  if key:sub(1, 3) ~= "sk_" or #key < MIN_KEY then
    return "a key of Bayt begins with sk_ and is longer than that"
  end
end

-- ---- errors ------------------------------------------------------------------------------------------

local codes = {
  [400] = "validation_error", [401] = "unauthorized", [403] = "forbidden", [404] = "not_found",
  [422] = "validation_error", [429] = "rate_limit_exceeded",
}
local exceptions = {
  unauthorized = "BaytAuthError", forbidden = "BaytAuthError", not_found = "BaytNotFoundError",
  rate_limit_exceeded = "BaytRateLimitError", validation_error = "BaytValidationError",
}

-- code: Bayt's word for it; exception: the name it has in Bayt's own client.
local function complete(err, doc)
  local said = type(doc.error) == "table" and doc.error or {}
  err.code = type(said.code) == "string" and said.code or codes[err.status]
    or err.status >= 500 and "internal_error" or nil
  err.exception = exceptions[err.code] or exceptions[codes[err.status]] or "BaytAPIError"
  if said.details ~= core.json_null then
    err.details = said.details
  end
  if err.retry_after == nil and type(said.retry_after) == "number" then
    err.retry_after = said.retry_after
  end
end

local function invalid(message)
  return nil, core.error("invalid", message, { code = "validation_error", exception = "BaytValidationError",
    retryable = false })
end

-- ---- requests ----------------------------------------------------------------------------------------

-- {data: {...}} and the bare object are both in use.
local function unwrap(doc)
  if type(doc) ~= "table" then
    return nil
  end
  local bare = doc.id ~= nil or doc.content ~= nil or doc.prompts ~= nil or doc.url ~= nil
  if not bare and type(doc.data) == "table" then
    return doc.data
  end
  return doc
end

local function fetch(self, opts, request)
  for name, value in pairs(opts) do request[name] = value end
  local res, err = self:request(request)
  if not res then
    return nil, err
  end
  local data = unwrap(res.data)
  if data == nil then
    return nil, core.error("decode", "the reply is not a JSON object", { status = res.status })
  end
  return data, res
end

-- The options of a method besides its own: what client:request takes.
local function request_options(where, opts, own)
  local rules = {}
  for name, rule in pairs(call.common) do rules[name] = rule end
  for name, rule in pairs(own) do rules[name] = rule end
  options.check(where, opts, rules, 3, call.secrets)
  local rest = {}
  for name, value in pairs(opts) do
    if not own[name] then
      rest[name] = value
    end
  end
  return rest
end

-- ---- prompts -----------------------------------------------------------------------------------------

local PACKAGE = "^@([%w_-]+)/([%w_-]+):([%w_-]+)$"

--- "@namespace/slug:version" -> namespace, slug, version; nil when it is no such name.
local function parse_package_name(name)
  return name:match(PACKAGE)
end

local methods = {}

--- get_prompt "@namespace/slug:version" (v0: the draft, latest: the newest that is published), or
--- get_prompt { package_name = ..., timeout = ... } -> prompt and the exchange, or nil, err.
function methods.get_prompt(self, name)
  local opts = type(name) == "table" and name or { package_name = name }
  local rest = request_options("get_prompt", opts, { package_name = R.string })
  if type(opts.package_name) ~= "string" then
    error("get_prompt: package_name: string expected", 2)
  end
  if not parse_package_name(opts.package_name) then
    return invalid("Invalid package name format; expected @namespace/slug:version (letters, digits, - and _)")
  end
  local data, res = fetch(self, rest, {
    method = "POST", path = "/v1/prompts/get", json = { package_name = opts.package_name },
  })
  if not data then
    return nil, res
  end
  return prompt.new(data), res
end

local function limit(v)
  if math.type(v) ~= "integer" or v < 1 or v > 100 then
    return "Limit must be between 1 and 100"
  end
end

local list_rules = { limit = limit, cursor = R.string }

local function text_or_nil(v)
  return type(v) == "string" and v ~= "" and v or nil
end

--- list_prompts { limit = 20, cursor = } -> {prompts, cursor, has_more, ...}, or nil, err.
function methods.list_prompts(self, opts)
  opts = opts or {}
  local rest = request_options("list_prompts", opts, list_rules)
  local path = ("/v1/prompts?limit=%d"):format(opts.limit or 20)
  if text_or_nil(opts.cursor) then
    path = path .. "&cursor=" .. common.escape(opts.cursor)
  end
  local data, res = fetch(self, rest, { method = "GET", path = path })
  if not data then
    return nil, res
  end
  local list = type(data.prompts) == "table" and data.prompts or data
  local page = {
    ok = true, errors = {}, total_time = res.total_time, prompts = {}, requests = { {
      time = res.time, status = res.status, attempts = res.attempts, headers = res.headers,
      request_id = res.request_id, hedges = res.hedges or 0, first = 1, count = 1,
    } },
  }
  for i, item in ipairs(list) do page.prompts[i] = prompt.new(item) end
  page.cursor = text_or_nil(data.cursor) or text_or_nil(data.nextCursor) or text_or_nil(data.next_cursor)
  page.has_more = data.hasMore == true or data.has_more == true
  page.hasMore = page.has_more
  return page
end

--- for prompt in client:prompts { limit = 100 } do: all of them, page by page. Raises what goes wrong.
function methods.prompts(self, opts)
  local o = {}
  for name, value in pairs(opts or {}) do o[name] = value end
  if o.limit == nil then
    o.limit = 100
  end
  request_options("prompts", o, list_rules)
  local page, at, seen = nil, 0, {}
  local function next_page()
    if page and not (page.has_more and page.cursor) then
      return false
    end
    if page then
      if seen[page.cursor] then
        error(core.error("decode", "the list of prompts goes in a circle"), 0)
      end
      seen[page.cursor] = true
      o.cursor = page.cursor
    end
    local err
    page, err = methods.list_prompts(self, o)
    if not page then
      error(err, 0)
    end
    at = 0
    return true
  end
  return function()
    while not page or at >= #page.prompts do
      if not next_page() then
        return nil
      end
    end
    at = at + 1
    return page.prompts[at]
  end
end

-- ---- context files -----------------------------------------------------------------------------------

local id_rules = { context_id = R.text }

local function context_id(where, id)
  local opts = type(id) == "table" and id or { context_id = id }
  local rest = request_options(where, opts, id_rules)
  if opts.context_id == nil then
    error(where .. ": context_id: missing", 3)
  end
  return opts.context_id, rest
end

local function download_url(self, id, rest)
  local data, res = fetch(self, rest, {
    method = "GET", path = "/api/v1/prompts/context/download-url?contextId=" .. common.escape(id),
  })
  if not data then
    return nil, res
  end
  if type(data.url) ~= "string" then
    return nil, core.error("decode", "the reply has no download URL", { status = res.status })
  end
  return { url = data.url, expires_in = data.expiresIn or data.expires_in,
    expiresIn = data.expiresIn or data.expires_in }
end

--- get_context_download_url(id) -> {url, expires_in}, or nil, err.
function methods.get_context_download_url(self, id)
  local text, rest = context_id("get_context_download_url", id)
  return download_url(self, text, rest)
end

-- The storage behind signed URLs is somebody else: it gets neither our key nor our headers.
local storage = { name = "bayt-files" }

local function bytes_of(files, path, rest)
  local state = client.state(files)
  local spec = call.spec(state, rest, nil, "download_context_file", 4)
  spec.method, spec.path, spec.payloads, spec.no_body = "GET", path, { "" }, true
  local r, err = call.run(state, spec)
  if not r then
    return nil, err
  end
  local info = call.info(state, r)
  if info.rows_ok == info.rows then
    return core.result_body(r, 1)
  end
  local _, first = call.errors(state, r, info)
  return nil, first
end

--- download_context_file(id) -> the file's bytes, or nil, err. 60 s, without the key.
function methods.download_context_file(self, id)
  local text, rest = context_id("download_context_file", id)
  local found, err = download_url(self, text, rest)
  if not found then
    return nil, err
  end
  local origin, path = found.url:match "^(https?://[^/?#]+)([^#]*)"
  if not origin then
    return nil, core.error("decode", "the download URL is not http or https")
  end
  if path:sub(1, 1) ~= "/" then
    path = "/" .. path
  end
  path = path:gsub("[%c \127]", common.escape)
  local o = client.state(self, 2).options
  local files <close> = client.new {
    base_url = origin, provider = storage, proxy = o.proxy, proxies = o.proxies, tls = o.tls,
    verify_ssl = o.verify_ssl, user_agent = o.user_agent, timeout = 60, retry = o.retry,
    max_retries = o.max_retries, retry_delay = o.retry_delay, request_id_header = false,
  }
  return bytes_of(files, path, { cancel_token = rest.cancel_token or o.cancel_token })
end

return {
  name = "bayt",
  base_url = "https://api.baytos.ai",
  base_env = "BAYT_BASE_URL",
  key_env = { "BAYT_API_KEY" },
  key_check = key_check,
  auth = { header = "Authorization", format = "Bearer %s" },
  headers = { Accept = "application/json" },
  defaults = { timeout = 30, retry = { max_attempts = 4, base = 1, never = { 408, 409 } } },
  error = complete,
  methods = methods,
}
