-- moonpool.cli.endpoint: the options with which every command names its endpoint, and the client
-- they make.
local options = require "moonpool.options"
local parser = require "moonpool.cli.parser"
local provider = require "moonpool.provider"

local endpoint = {}

local function hedge(text)
  if text:match "^%s*[%d.]+%s*%*%s*p%d+%s*$" then
    return { after = text }
  end
  local seconds, err = parser.positive(text)
  if not seconds then
    return nil, err .. " (seconds, or for example 2*p95)"
  end
  return { delay = seconds }
end

local function first_line(path)
  local file, why = io.open(path, "rb")
  if not file then
    return nil, "cannot read " .. why
  end
  local line = file:read "l"
  file:close()
  if not line then
    return nil, path .. " is empty"
  end
  return (line:gsub("\r$", ""))
end

-- The value stays out of the message: it may be a key. It may also come from elsewhere, so that it
-- shows neither in `ps` nor in the shell's history.
local function header(text)
  local name, value = text:match "^([^:%s]+):%s*(.-)%s*$"
  if not name then
    return nil, "a header is written 'Name: value'"
  end
  local variable, path = value:match "^env:([%a_][%w_]*)$", value:match "^file:(.+)$"
  if variable then
    value = options.env(variable)
    if not value then
      return nil, ("%s: the variable %s is not set"):format(name, variable)
    end
  elseif path then
    local why
    value, why = first_line(path)
    if not value then
      return nil, ("%s: %s"):format(name, why)
    end
  end
  return { name = name, value = value ~= "" and value or false }
end

local presets = { "job", "gateway", "interactive", "none" }

-- The names of the services that have the call; reading what each can do takes their modules, so it is
-- asked for only by the help and the completion.
local function dialects(call)
  local names = {}
  for _, name in ipairs(provider.names) do
    if not call or provider.get(name)[call] then
      names[#names + 1] = name
    end
  end
  return names
end

local function describe(call)
  return function(option)
    option._offered, option._brief = dialects(call), "Dialect (default openai)."
    option:description("Dialect (default openai): " .. table.concat(option._offered, " ") .. ".")
  end
end

--- Options for where to send and with which key. how: call = what the service must offer, model = false
--- for calls that name none.
function endpoint.configure(p, how)
  how = how or {}
  p:option("--url", "Base URL of the endpoint, with or without /v1."):argname "URL"
  if how.model ~= false then
    p:option("--model", "Name of the model."):argname "NAME"
  end
  parser.late(p:option("--provider"):argname "NAME":choices(provider.names), describe(how.call))
  p:option("--api-key-env", "Environment variable that holds the API key."):argname "VARIABLE"
  p:option("--header", "Header of every request, 'Name: value', 'Name: env:VARIABLE' or 'Name: file:PATH'; "
    .. "may be repeated.")
    :argname "HEADER":count "*":convert(header)
  p:option("--timeout", "Seconds that one attempt may take."):argname "SECONDS":convert(parser.positive)
  p:option("--retries", "Attempts after the first one (default 5)."):argname "N":convert(parser.whole)
  p:option("--preset", "Set of policies to begin with: job (default), gateway, interactive or none.")
    :argname "NAME":choices(presets)
end

--- How many texts to send at once, for calls that take lists of them.
function endpoint.configure_batch(p)
  p:option("--batch-size", "Texts in one request (default 128, or what the service takes).")
    :argname "N":convert(parser.count)
end

--- Options for how to send much.
function endpoint.configure_bulk(p)
  p:option("--max-concurrent", "Requests at once (default 128)."):argname "N":convert(parser.count)
  p:option("--hedge", "Send a second copy of a request after so many seconds, or after for example 2*p95.")
    :argname "SECONDS":convert(hedge)
  p:option("--rpm", "Requests a minute at most."):argname "N":convert(parser.positive)
  p:option("--tpm", "Tokens a minute at most."):argname "N":convert(parser.positive)
end

local function key_from(name, args)
  if not args.api_key_env then
    return nil
  end
  -- What is no name of a variable may be the key itself: it is not repeated.
  if not args.api_key_env:find "^[%u_][%u%d_]*$" and not options.env(args.api_key_env) then
    parser.usage_error(name, "--api-key-env: the name of a variable expected, not the key itself")
  end
  local key = options.env(args.api_key_env)
  if not key then
    parser.usage_error(name, ("--api-key-env: the variable %s is not set"):format(args.api_key_env))
  end
  return key
end

local function headers_from(args)
  local headers
  for _, one in ipairs(args.header or {}) do
    headers = headers or {}
    headers[one.name] = one.value
  end
  return headers
end

local POOL = 256 -- connections of a client unless told otherwise

-- Each request at once needs its own connection.
local function pool_for(concurrent)
  return concurrent and concurrent > POOL and { max_connections = concurrent } or nil
end

--- The table for moonpool.client; `name` is the command's, for messages.
function endpoint.options(name, args)
  local rate = (args.rpm or args.tpm) and { rpm = args.rpm, tpm = args.tpm } or nil
  return {
    base_url = args.url,
    provider = args.provider,
    model = args.model,
    api_key = key_from(name, args),
    headers = headers_from(args),
    timeout = args.timeout and { attempt = args.timeout } or nil,
    max_retries = args.retries,
    preset = args.preset,
    hedge = args.hedge,
    rate = rate,
    pool = pool_for(args.max_concurrent),
  }
end

-- Said here, where it is a wrong use of the command and not of a function.
local function check_call(name, args, call)
  local chosen = call and provider.get(args.provider)
  if chosen and not chosen[call] then
    parser.usage_error(name, ("--provider: '%s' has no %s call"):format(chosen.name, call))
  end
end

--- A client, or a usage error that says what is wrong with the options; call: what it must have.
function endpoint.connect(name, args, call)
  local moonpool = require "moonpool"
  check_call(name, args, call)
  local ok, client = pcall(moonpool.client, endpoint.options(name, args))
  if not ok then
    local reason = tostring(client):gsub("^[^\n:]+:%d+: ", "")
    parser.usage_error(name, reason)
  end
  return client
end

return endpoint
