-- moonpool.cli.mock: `moonpool mock`, the local inference server.

local M = {
  name = "mock",
  summary = "Run a local inference server with chosen faults.",
  epilog = [[
Answers in the dialects of OpenAI, TEI, Cohere and others with deterministic vectors: the same text
always gives the same vector, related texts give near ones. Prints "listening on URL" once it is
ready. GET /stats counts, GET /requests shows what came.

Examples:
  moonpool mock
  moonpool mock --port 0 --latency lognormal:20ms,0.2 --slow 0.01:5s
  moonpool mock --error 429:0.05:retry-after=1 --error 503:0.02 --reset 0.01 --shuffle --seed 7]],
}

-- name, argument, what it is
local texts = {
  { "--host", "ADDRESS", "address to listen on (127.0.0.1)" },
  { "--listen", "WHERE", "instead of host and port: HOST:PORT or unix:/path" },
  { "--model", "NAME", "name of the model in replies" },
  { "--api-key", "KEY", "refuse requests without this bearer key" },
  { "--latency", "TIME", "of every reply: 20ms, lognormal:20ms,0.2, uniform:10ms,30ms, exp:20ms" },
  { "--latency-per-input", "TIME", "added for each input" },
  { "--slow", "SHARE:TIME", "share of requests stalled, for example 0.01:5s" },
  { "--reset", "SHARE", "share of replies reset in the middle" },
  { "--truncate", "SHARE", "share of replies that end in the middle" },
  { "--batch-expired", "SHARE", "share of a batch's requests that expire (/v1/batches)" },
  { "--short", "SHARE", "share of replies with one item too few" },
  { "--chunk", "BYTES", "send bodies in HTTP chunks of so many bytes" },
  { "--dribble", "BYTES", "send replies in writes of so many bytes" },
  { "--concurrency", "N[:STATUS]", "refuse more requests at once than N (429)" },
  { "--quota", "RPM,TPM", "requests and tokens a minute, enforced by the second" },
  { "--outage", "START:TIME[:refuse]", "answer 503, or reset connections, for a while" },
  { "--fail-first", "N:STATUS", "fail the first N requests" },
  { "--stall-first", "N:TIME", "stall the first N requests" },
}

local numbers = {
  { "--port", "N", "port to listen on, 0 for a free one (8089)" },
  { "--dim", "N", "dimensions of the vectors (256)" },
  { "--seed", "N", "of the faults' dice (1)" },
  { "--workers", "N", "requests worked on at once; more queue" },
  { "--max-client-batch", "N", "inputs a request on TEI's routes (32)" },
  { "--batch-status", "N", "status of too many inputs on TEI's routes, 413 or 422 (413)" },
  { "--max-input-tokens", "N", "tokens an input (8192)" },
  { "--max-request-tokens", "N", "tokens a request on OpenAI's routes (300000)" },
  { "--max-connections", "N", "connections at once (4096)" },
  { "--record", "N", "requests kept for GET /requests (256)" },
}

local flags = {
  { "--shuffle", "send OpenAI's items in shuffled order" },
  { "--require-model", "refuse requests that name no model" },
  { "--record-auth", "keep authorization headers in GET /requests" },
  { "--record-body", "keep bodies in GET /requests" },
}

local function integer(text)
  local value = math.tointeger(tonumber(text))
  if not value or value < 0 then
    return nil, ("'%s' is no whole number"):format(text)
  end
  return value
end

function M.configure(parser)
  for _, o in ipairs(texts) do
    parser:option(o[1], o[3]):argname(o[2])
  end
  for _, o in ipairs(numbers) do
    parser:option(o[1], o[3]):argname(o[2]):convert(integer)
  end
  parser:option("--error", "share of requests answered with a status; may be repeated")
    :argname("STATUS:SHARE[:retry-after=SECONDS]"):count("*")
  for _, o in ipairs(flags) do
    parser:flag(o[1], o[2])
  end
end

local function key(option)
  return (option:gsub("^%-%-", ""):gsub("-", "_"))
end

local function collect(args)
  local opts = { port = args.port or 8089 }
  for _, list in ipairs { texts, numbers, flags } do
    for _, o in ipairs(list) do
      local name = key(o[1])
      if args[name] ~= nil then
        opts[name] = args[name]
      end
    end
  end
  if args.error and #args.error > 0 then
    opts.error = args.error
  end
  return opts
end

function M.run(args)
  local mock = require "moonpool.mock"
  local ok, server, err = pcall(mock.new, collect(args))
  if not ok then
    io.stderr:write("moonpool mock: ", (tostring(server):gsub("^.-mock: ", "")), "\n")
    return 2
  elseif not server then
    io.stderr:write("moonpool mock: ", tostring(err), "\n")
    return 1
  end
  io.stdout:write("listening on ", server.url, "\n")
  io.stdout:flush()
  server:wait()
  return 0
end

return M
