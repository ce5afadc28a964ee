-- moonpool.cli.endpoint: the options with which every command names its endpoint, and the client
-- they make.
local parser = require "moonpool.cli.parser"

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

--- Options for where to send and with which key.
function endpoint.configure(p)
  p:option("--url", "Base URL of the endpoint, with or without /v1."):argname "URL"
  p:option("--model", "Name of the model."):argname "NAME"
  p:option("--provider", "Dialect: openai (default), azure, tei, cohere, voyage, jina, ..."):argname "NAME"
  p:option("--api-key-env", "Environment variable that holds the API key."):argname "VARIABLE"
  p:option("--timeout", "Seconds that one attempt may take."):argname "SECONDS":convert(parser.positive)
end

--- Options for how to send much.
function endpoint.configure_bulk(p)
  p:option("--batch-size", "Texts in one request (default 128)."):argname "N":convert(parser.count)
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
  local key = os.getenv(args.api_key_env)
  if not key or key == "" then
    parser.usage_error(name, ("--api-key-env: the variable %s is not set"):format(args.api_key_env))
  end
  return key
end

--- The table for moonpool.client; `name` is the command's, for messages.
function endpoint.options(name, args)
  local rate = (args.rpm or args.tpm) and { rpm = args.rpm, tpm = args.tpm } or nil
  return {
    base_url = args.url,
    provider = args.provider,
    api_key = key_from(name, args),
    timeout = args.timeout and { attempt = args.timeout } or nil,
    hedge = args.hedge,
    rate = rate,
  }
end

--- A client, or a usage error that says what is wrong with the options.
function endpoint.connect(name, args)
  local moonpool = require "moonpool"
  local ok, client = pcall(moonpool.client, endpoint.options(name, args))
  if not ok then
    local reason = tostring(client):gsub("^[^\n:]+:%d+: ", "")
    parser.usage_error(name, reason)
  end
  return client
end

return endpoint
