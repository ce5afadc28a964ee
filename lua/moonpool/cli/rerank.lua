-- moonpool.cli.rerank: texts in the order of their relevance to a query.
local core = require "moonpool.core"
local endpoint = require "moonpool.cli.endpoint"
local filter = require "moonpool.cli.filter"
local json = require "moonpool.json"
local parser = require "moonpool.cli.parser"
local rowjob = require "moonpool.job.rows"
local task = require "moonpool.task"

local rerank = {
  name = "rerank",
  call = "rerank",
  summary = "Order texts by relevance to a query; JSON lines out.",
  done = "ranked",
  epilog = [[
Each line of the input is a query with its texts, and gets one line of output, in order:

  {"id":...,"query":"...","texts":["...","..."]}
  {"row":0,"id":...,"results":[{"index":1,"score":0.93},{"index":0,"score":0.02}]}

With --query the input is one text a line (or JSONL with --field) and the output one line a text,
best first; lines that failed come last:

  {"index":17,"score":0.93}

Rows and indexes count from 0. Exit status: 0, 1 error, 2 wrong use, 3 done but with failed rows,
130 interrupted.

Examples:
  moonpool rerank -i queries.jsonl -o ranked.jsonl --url http://127.0.0.1:8080 --provider tei
  moonpool rerank --query 'how to compress files' -i manuals.txt --top-n 5 --return-text --provider cohere]],
}

function rerank.configure(p)
  filter.configure_files(p, "Queries with texts, as JSON lines, or texts with --query;")
  p:option("--query", "Rank all lines of the input, each a text, by this query."):argname "TEXT"
  p:option("--field", "With --query: read JSONL; field that holds the text (default text).")
    :argname "NAME"
  p:option("--top-n", "Results of a query, the best ones (default all)."):argname "N":convert(parser.count)
  p:flag("--return-text", "Put the texts into the results.")
  p:flag("--raw-scores", "Ask for the model's scores as they are, not made into probabilities.")
  p:flag("--truncate", "Ask for texts that are too long to be cut instead of refused.")
  endpoint.configure(p, { call = "rerank" })
  endpoint.configure_batch(p)
  endpoint.configure_bulk(p)
  filter.configure_report(p)
end

-- ---- queries with texts -------------------------------------------------------------------------

local function wrong_text(texts)
  for i = 1, #texts do
    if type(texts[i]) ~= "string" then
      return ("texts[%d] is a %s, not a string"):format(i - 1, type(texts[i]))
    end
  end
end

local function query_line(entry, value)
  if type(value) ~= "table" then
    return "the line is not a JSON object"
  end
  local texts = value.texts or value.documents
  entry.id = type(value.id) ~= "table" and value.id or nil
  if type(value.query) ~= "string" then
    return "the record has no field 'query', a string"
  elseif type(texts) ~= "table" or #texts == 0 then
    return "the record has no field 'texts', a list of strings"
  end
  entry.query, entry.texts = value.query, texts
  return wrong_text(texts)
end

local function options(args, query, texts, concurrent)
  return {
    query = query, texts = texts, model = args.model, top_n = args.top_n,
    return_text = args.return_text, raw_scores = args.raw_scores, truncate = args.truncate,
    batch_size = args.batch_size, max_concurrent_requests = concurrent,
  }
end

local function from_zero(results)
  local list = {}
  for i, r in ipairs(results) do
    list[i] = { index = r.index - 1, score = r.score, text = r.text }
  end
  return list
end

-- All the requests of all queries together are at most `most`: each query waits for as many places as
-- it has requests.
local function places(most)
  local free, turn = task.semaphore(most), task.semaphore(1)
  return function(n, fn)
    turn:with(function()
      for _ = 1, n do
        free:acquire()
      end
    end)
    local _ <close> = setmetatable({}, { __close = function()
      for _ = 1, n do
        free:release()
      end
    end })
    return fn()
  end
end

-- A ranking from which texts are missing would be wrong: then the line is an error.
local function ranked(entry, res, err)
  local first = res and res.errors[1]
  if first then
    err = first.error
    entry.error = core.error(err.kind, ("texts[%d]: %s"):format(first.index - 1, err.message),
      { status = err.status })
  elseif not res then
    rowjob.mark({ entry }, nil, core.error(err.kind, err.message, { status = err.status }))
  else
    entry.line = { row = entry.row, id = entry.id, results = from_zero(res.results) }
  end
end

local function query_caller(args, client, window)
  local with_places = places(window)
  local size = args.batch_size or 128
  return function(entries)
    local entry = entries[1]
    local n = math.min(window, (#entry.texts + size - 1) // size)
    ranked(entry, with_places(n, function()
      return client:rerank(options(args, entry.query, entry.texts, n))
    end))
    entry.texts = nil
  end
end

-- ---- one query, texts line by line --------------------------------------------------------------

local function text_record(field)
  return function(entry, value)
    local text = type(value) == "table" and value[field] or nil
    if type(text) ~= "string" then
      return ("the record has no field '%s', a string"):format(field)
    end
    return rowjob.text(entry, text)
  end
end

local function text_caller(args, client)
  return function(entries)
    local texts = {}
    for i, entry in ipairs(entries) do
      texts[i] = entry.text
    end
    local res, err = client:rerank(options(args, args.query, texts, 1))
    rowjob.mark(entries, res, err)
    for _, r in ipairs(res and res.results or {}) do
      local entry = entries[r.index]
      entry.line = { index = entry.row, score = r.score, text = r.text }
    end
    for _, entry in ipairs(entries) do
      entry.text = nil
    end
  end
end

local function better(a, b)
  if a.score ~= b.score then
    return a.score > b.score
  end
  return a.index < b.index
end

-- The best `top` lines, or all; sorted and cut whenever there are twice as many.
local function collector(top)
  local list = {}
  local function settle()
    table.sort(list, better)
    for i = #list, (top or #list) + 1, -1 do
      list[i] = nil
    end
    return list
  end
  return function(line)
    list[#list + 1] = line
    if top and #list >= 2 * top + 1000 then
      settle()
    end
  end, settle
end

local function rank_lines(args, job)
  local add, settle = collector(args.top_n)
  local failed = {}
  for entries in rowjob.batches(job) do
    for _, entry in ipairs(entries) do
      if entry.error then
        failed[#failed + 1] = { index = entry.row, error = rowjob.public_error(entry.error) }
      elseif entry.line then
        add(entry.line)
      end
    end
    rowjob.count(job.tally, entries)
    job.on_batch()
  end
  rowjob.write_all(job.out, settle())
  rowjob.write_all(job.out, failed)
end

-- ---- the command --------------------------------------------------------------------------------

function rerank.source(args)
  local records = not args.query or args.field ~= nil or rowjob.is_jsonl(args.input)
  return {
    input = args.input, records = records,
    parse = not args.query and query_line or records and text_record(args.field or "text") or rowjob.text,
  }
end

function rerank.durable(args, client)
  local window = args.max_concurrent or filter.MAX_CONCURRENT
  return {
    identity = {
      call = "rerank", model = args.model, provider = args.provider or "openai",
      options = json.encode({ top_n = args.top_n, return_text = args.return_text,
        raw_scores = args.raw_scores, truncate = args.truncate }, { sort_keys = true }),
    },
    content = function(item) return { item.query, item.texts } end,
    call = query_caller(args, client, window), error_line = rowjob.error_line, size = 1, window = window,
  }
end

function rerank.job(args, job)
  job.window = args.max_concurrent or filter.MAX_CONCURRENT
  if args.query then
    job.size, job.call = args.batch_size or 128, text_caller(args, job.client)
    return rank_lines(args, job)
  end
  job.size, job.call = 1, query_caller(args, job.client, job.window)
  rowjob.run(job)
end

function rerank.run(args, client)
  if args.field and not args.query then
    parser.usage_error("moonpool rerank", "--field goes with --query")
  end
  return filter.run(rerank, args, client)
end

return rerank
