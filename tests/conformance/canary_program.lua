-- Run by canary_spec.lua: every kind of call with a key that must not be seen, going well and going
-- wrong; every object printed inside out; logging at its loudest; and at the end a crash. What the
-- servers get is checked here, what is printed there.
--
--   lua5.4 canary_program.lua KEY

local moonpool = require "moonpool"
local json = require "moonpool.json"

local KEY = arg[1]
local seen_dump = {}

-- Everything that a script can reach of a value.
local function dump(name, value, depth)
  print(name, type(value), tostring(value))
  if depth > 5 or seen_dump[value] or type(value) == "string" then return end
  if type(value) == "table" or type(value) == "userdata" then
    seen_dump[value] = true
    local meta = getmetatable(value)
    if type(meta) == "table" and meta.__name then print(name, meta.__name) end
  end
  if type(value) == "table" then
    for k, v in pairs(value) do dump(name .. "." .. tostring(k), v, depth + 1) end
    for _, field in ipairs { "requests", "data", "response_headers", "individual_request_times", "usage" } do
      local ok, v = pcall(function() return value[field] end)
      if ok and type(v) == "table" then dump(name .. "." .. field, v, depth + 1) end
    end
  end
end

-- ---- servers: none but the key's own sees it, and there in one header only ---------------------------

local wrong = {}

local function check(where, req, header)
  for name, value in pairs(req.headers) do
    if value:find(KEY, 1, true) and name ~= header then
      wrong[#wrong + 1] = where .. ": header " .. name
    end
  end
  for _, field in ipairs { "path", "query", "body" } do
    if (req[field] or ""):find(KEY, 1, true) then wrong[#wrong + 1] = where .. ": " .. field end
  end
end

local other = moonpool.serve { listen = "127.0.0.1:0", handler = function(req)
  check("another endpoint", req)
  return { status = 500, json = { error = "other" } }
end }

local got = 0

local replies = {}

function replies.status(n) return { status = n, json = { error = { message = "no " .. n } } } end

local function own_handler(header)
  return function(req)
    check("its own", req, header)
    local key = req.headers[header]
    if key and key:find(KEY, 1, true) then got = got + 1 end
    local status = tonumber(req.path:match "/status/(%d+)" or "")
    if status == 302 then
      return { status = 302, headers = { location = other.url .. "/elsewhere" }, body = "" }
    elseif status == 401 then -- as some services do: they repeat the key
      local message = "Incorrect API key provided: " .. tostring(key)
      return { status = 401, json = { error = { message = message, code = key } } }
    elseif status then
      return replies.status(status)
    elseif req.path:find "/slow" then
      moonpool.sleep(30)
    elseif req.path:find "/text" then
      return { body = "not json", headers = { ["content-type"] = "application/json" } }
    elseif req.path:find "/events" then
      return { body = "data: one\n\ndata: [DONE]\n\n", headers = { ["content-type"] = "text/event-stream" } }
    end
    local body = req.body ~= "" and req:json() or {}
    if body.texts then
      local list = {}
      for i in ipairs(body.texts) do list[i] = { index = i - 1, score = i } end
      return { json = list }
    elseif body.inputs then
      local list = {}
      for i in ipairs(body.inputs) do list[i] = { { label = "l", score = 1 } } end
      return { json = list }
    elseif type(body.input) == "table" then
      local data = {}
      for i in ipairs(body.input) do data[i] = { index = i - 1, embedding = { i, 2 } } end
      return { json = { data = data, model = "m", usage = { prompt_tokens = 1, total_tokens = 1 } } }
    end
    return { json = { fine = true } }
  end
end

local own = moonpool.serve { listen = "127.0.0.1:0", handler = own_handler "authorization" }

-- ---- calls ------------------------------------------------------------------------------------------------

local function show(name, ...)
  local n = select("#", ...)
  for i = 1, n do dump(name .. "#" .. i, (select(i, ...)), 0) end
end

local function everything(client, name)
  dump(name, client, 0)
  local quick = { timeout = 0.05 }
  local function call(method, o)
    show(name .. "." .. method, client[method](client, o))
    show(name .. "." .. method .. " raises", pcall(client[method], client, { nonsense = KEY }))
  end
  call("embed", { input = { "a", "b\xff" } })
  call("rerank", { query = "q", texts = { "a", "b" } })
  call("classify", { inputs = { "a", { "b", "c" } } })
  call("batch_post", { path = "/ok", payloads = { {}, { a = 1 }, { f = print } } })
  for _, status in ipairs { 400, 401, 403, 404, 500, 302 } do
    call("request", { path = "/status/" .. status })
    call("batch_post", { path = "/status/" .. status, payloads = { {}, {} } })
  end
  call("request", { path = "/text" })
  call("request", { path = "/slow", timeout = quick.timeout })
  call("request", { path = "/slow", total_timeout = quick.timeout })
  for batch in client:embed_each({ "a", 5, "b" }, { batch_size = 1 }) do dump(name .. ".each", batch, 0) end
  if client.stream then
    show(name .. ".stream", pcall(function()
      for event in client:stream { path = "/events", json = {} } do dump(name .. ".event", event, 0) end
    end))
    show(name .. ".stream fails", pcall(function()
      for event in client:stream { path = "/status/401", json = {} } do dump(name .. ".event", event, 0) end
    end))
  end
  local token = moonpool.cancel_token()
  moonpool.scope(function(s)
    s:spawn(function() moonpool.sleep(0.01) token:cancel() end)
    show(name .. ".cancelled", client:request { path = "/slow", cancel_token = token })
  end)
  show(name .. ".stats", client:stats())
  show(name .. ".strict", pcall(moonpool.strict, client:embed { input = { "\xff", "x" } }))
  client:close()
  show(name .. ".closed", client:embed { input = { "x" } })
  show(name .. ".closed stats", pcall(client.stats, client))
  dump(name .. " closed", client, 0)
end

local base = { retry = { max_attempts = 2, base = 0.001, throttle_base = 0.001 }, breaker = false }

local function client(o)
  for k, v in pairs(base) do if o[k] == nil then o[k] = v end end
  return moonpool.client(o)
end

everything(client { base_url = own.url, api_key = KEY }, "string key")
everything(client { base_url = own.url, api_key = function() return KEY end }, "function key")
local file = os.tmpname()
local f = assert(io.open(file, "w"))
f:write(KEY, "\n")
f:close()
everything(client { base_url = own.url, api_key = { file = file } }, "file key")
os.remove(file)
everything(client { base_url = own.url, api_key = { env = "CANARY" } }, "env key")
everything(client { base_url = own.url }, "provider's env key")
everything(client { endpoints = {
  { base_url = own.url, api_key = KEY }, { base_url = other.url, api_key = "other" },
} }, "two endpoints")
everything(client { base_url = own.url, headers = { Authorization = "Bearer " .. KEY } }, "own header")

local azure = moonpool.serve { listen = "127.0.0.1:0", handler = own_handler "api-key" }
show("azure", pcall(function()
  local c = client { provider = "azure", base_url = azure.url, api_key = KEY, deployment = "d" }
  dump("azure", c, 0)
  show("azure.embed", c:embed { input = { "a" } })
  show("azure.request", c:request { path = "/status/401" })
end))

-- The key of a call, in a preference and alone.
do
  local c = client { base_url = own.url, api_key = "another" }
  local p = moonpool.preference { primary_api_key_override = KEY }
  dump("preference", tostring(p), 0)
  show("override", c:embed { input = { "a" }, preference = p })
  show("override 401", c:request { path = "/status/401", api_key = KEY })
  show("override 500", c:request { path = "/status/500", primary_api_key_override = KEY })
  show("override 429", c:request { path = "/status/429", api_key = KEY })
  show("own row", c:batch_post { path = "/status/401", payloads = { {} },
    payload_headers = { { Authorization = KEY } } })
  show("own header", c:request { path = "/status/401", extra_headers = { authorization = "Bearer " .. KEY } })
  show("bad", pcall(c.request, c, { path = "/", api_key = KEY .. "\r\n" }))
  show("bad", pcall(c.request, c, { path = "/", api_key = { KEY } }))
  show("bad", pcall(c.request, c, { path = "/", headers = { Authorization = KEY .. "\n" } }))
  show("bad", pcall(moonpool.preference, { primary_api_key_override = { KEY } }))
end

-- Nobody there, nobody by that name, a proxy with a password, a URL with one.
for name, o in pairs {
  refused = { base_url = "http://127.0.0.1:1" },
  unknown = { base_url = "http://" .. ("a"):rep(64) .. ".invalid" },
  proxy = { base_url = "http://h.invalid", proxy = "http://user:" .. KEY .. "@127.0.0.1:1" },
  tls = { base_url = own.url:gsub("^http", "https") },
} do
  o.api_key = KEY
  local c = client(o)
  dump(name, c, 0)
  show(name, c:embed { input = { "a", "b" }, batch_size = 1 })
  show(name, c:stats())
end
for _, o in ipairs {
  { base_url = "http://user:" .. KEY .. "@127.0.0.1:1" }, { base_url = "http://h/?key=" .. KEY },
  { base_url = "http://h:99999", api_key = KEY }, { base_url = "x", api_key = KEY },
  { base_url = "http://h", api_key = KEY .. "\n" }, { base_url = "http://h", api_key = { KEY } },
  { base_url = "http://h", api_key = KEY, nonsense = 1 },
  { base_url = "http://h", proxy = "ftp://u:" .. KEY .. "@h" },
  { base_url = "http://h", proxies = { http = "http://u:" .. KEY .. " @h" } },
  { base_url = "http://h", headers = { Authorization = KEY .. "\n" } },
  { base_url = "http://h", webhook_secrets = KEY, provider = "baseten" },
} do
  show("bad client", pcall(moonpool.client, o))
end

if pcall(require, "moonpool.metrics") then show("metrics", moonpool.metrics()) end

for _, text in ipairs(wrong) do print("WRONG", text) end
print("SENT", got)
print("JSON", pcall(json.encode, { moonpool.error("http", "x") }))
io.stdout:flush()

-- The crash: an error that nobody catches, from a client whose key is in its frame.
local doomed = client { base_url = own.url, api_key = KEY }
local key_in_a_local = KEY -- luacheck: ignore
error((select(2, doomed:request { path = "/status/401" })))
