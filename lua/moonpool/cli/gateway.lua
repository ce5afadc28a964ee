-- moonpool.cli.gateway: `moonpool gateway [CONFIG.lua]`.
local core = require "moonpool.core"
local endpoint = require "moonpool.cli.endpoint"
local parser = require "moonpool.cli.parser"
local serving = require "moonpool.cli.serving"

local M = {
  name = "gateway",
  summary = "Serve embeddings, reranking and labels before model servers.",
  epilog = [[
Answers POST /v1/embeddings (OpenAI), /v2/embed, /v1/rerank and /v2/rerank (Cohere), /embed, /rerank and
/predict (TEI), /api/embed (Ollama), passes chat completions on, and shows /v1/models, /health and
/metrics. Texts of many callers go out in few requests: at once while one of --slots is free, gathered
while all are busy.

Without CONFIG.lua there is one upstream, from --url, --provider and the like. CONFIG.lua returns a table:

  return {
    upstreams = { a = { base_url = "http://gpu:8080", provider = "tei" } },
    models = { ["bge-m3"] = { upstream = "a" } },
    keys = { ["sk-team-1-secret"] = { name = "team-1", rpm = 600 } },
  }

Prints "listening on URL" once it is ready. SIGHUP reads CONFIG.lua again and loses no connection; SIGTERM
and Ctrl+C take no more requests and let those under way finish. Exit status: 0 stopped, 1 error, 2 wrong
use.

Examples:
  moonpool gateway --url http://127.0.0.1:8089 --listen 127.0.0.1:8080
  moonpool gateway --provider cohere --model embed-v4.0 --listen unix:/run/gateway.sock
  moonpool gateway gateway.lua --log access.jsonl]],
}

function M.configure(p)
  p:argument("config", "Upstreams, models, keys and limits."):args "?":argname "CONFIG.lua"
  serving.configure(p)
  endpoint.configure(p)
  p:option("--rpm", "Requests a minute upstream at most."):argname "N":convert(parser.positive)
  p:option("--tpm", "Tokens a minute upstream at most."):argname "N":convert(parser.positive)
  p:option("--max-batch", "Rows of one upstream request (default 128); 1: no gathering.")
    :argname "N":convert(parser.count)
  p:option("--max-wait", "Seconds to wait for company even while a slot is free (default 0).")
    :argname "SECONDS":convert(parser.seconds)
  p:option("--slots", "Upstream requests at once (default 4; with --max-batch 1, 128).")
    :argname "N":convert(parser.count)
  p:option("--cache-bytes", "Memory for vectors of texts seen before (default 0: none).")
    :argname "BYTES":convert(parser.bytes)
  p:option("--request-timeout", "Seconds that a request may take (default 60)."):argname "SECONDS"
    :convert(parser.positive)
  p:option("--log", "Access log, a JSON object a line."):argname "FILE"
  p:option("--cors", "Origin of web pages that may call, or *."):argname "ORIGIN"
  p:option("--max-connections", "Clients connected at once (default 16384).")
    :argname "N":convert(parser.count)
  p:flag("--reuse-port", "Let several gateways listen on the same port.")
end

local NAME = "moonpool gateway"

local function fail(message)
  parser.stop(1, NAME .. ": " .. tostring(message):gsub("^gateway: ", "") .. "\n")
end

local upstream_options = {
  "url", "model", "provider", "api_key_env", "header", "timeout", "retries", "preset", "rpm", "tpm",
}

-- The configuration of a gateway that has no file.
local function from_options(args)
  local options = endpoint.options(NAME, args)
  options.preset = options.preset or "gateway"
  return { upstreams = { default = options } }
end

local function from_file(path)
  local chunk, why = loadfile(path)
  if not chunk then
    error(why, 0)
  end
  local config = chunk()
  if type(config) ~= "table" then
    error(path .. ": must return a table", 0)
  end
  return config
end

-- What the command line says stands above the file.
local function with_options(config, args)
  local c = {}
  for k, v in pairs(config) do
    c[k] = v
  end
  local batch = {}
  for k, v in pairs(c.batch or {}) do
    batch[k] = v
  end
  batch.max_batch = args.max_batch or batch.max_batch
  batch.max_wait = args.max_wait or batch.max_wait
  batch.slots = args.slots or batch.slots
  c.batch = batch
  c.cache_bytes = args.cache_bytes or c.cache_bytes
  c.timeout = args.request_timeout or c.timeout
  c.log = args.log or c.log
  c.cors = args.cors and { origins = args.cors } or c.cors
  c.max_connections = args.max_connections or c.max_connections or 16384
  c.reuse_port = args.reuse_port or c.reuse_port
  return c
end

local function configuration(args)
  if not args.config then
    return with_options(from_options(args), args)
  end
  return with_options(from_file(args.config), args)
end

-- An option for the one upstream means nothing beside a file.
local function check_options(args)
  if not args.config then
    return
  end
  for _, name in ipairs(upstream_options) do
    local given = args[name]
    if given ~= nil and (type(given) ~= "table" or next(given) ~= nil) then
      parser.usage_error(NAME, ("--%s belongs into %s, with the upstreams"):format(
        name:gsub("_", "-"), args.config))
    end
  end
end

local function log(...)
  io.stderr:write(NAME, ": ", ...)
  io.stderr:write "\n"
end

-- Reads the file again at each SIGHUP; a file that is no good changes nothing.
local function watch(args, gateway)
  local hangup = core.hangup()
  while hangup do
    hangup:wait()
    local ok, config = pcall(configuration, args)
    local done, why
    if ok then
      done, why = gateway:reload(config)
    else
      why = parser.is_stop(config) and config.text or config
    end
    log(done and "configuration read again" or "configuration kept: " .. tostring(why))
  end
end

function M.run(args)
  check_options(args)
  local ok, config = pcall(configuration, args)
  if not ok then
    if parser.is_stop(config) then
      error(config, 0)
    end
    fail(config)
  end
  local made, gateway = pcall(require "moonpool.gateway".new, config)
  if not made then
    fail(gateway)
  end
  local options = gateway:options(args.listen or config.listen or serving.listen)
  local server, err = require "moonpool.serve".serve(options)
  if not server then
    fail(err)
  end
  local scope = core.open_scope()
  scope:spawn(watch, args, gateway)
  serving.announce(server)
  serving.run_until_told({ server }, args.grace, function()
    gateway.draining = true
  end)
  gateway:close()
  return 0
end

return M
