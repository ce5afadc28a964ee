-- moonpool.cli.classify: texts in, a line of labels out for each.
local endpoint = require "moonpool.cli.endpoint"
local filter = require "moonpool.cli.filter"
local json = require "moonpool.json"
local parser = require "moonpool.cli.parser"
local rowjob = require "moonpool.job.rows"

local classify = {
  name = "classify",
  call = "classify",
  summary = "Label texts (lines or JSONL); JSON lines out.",
  done = "classified",
  epilog = [[
The input is one text a line; or JSONL where the name ends in .jsonl or a field is named, whose
field may also hold a pair of texts ["a","b"]. Each line gets one line of output, in order:

  {"row":0,"id":...,"labels":[{"label":"joy","score":0.98},...]}
  {"row":1,"id":...,"error":{"kind":"invalid","message":"the line is blank"}}

Rows count from 0. Exit status: 0, 1 error, 2 wrong use, 3 done but with failed rows, 130
interrupted.

Examples:
  moonpool classify -i reviews.txt -o labels.jsonl --url http://127.0.0.1:8080 --provider tei
  moonpool classify -i tickets.jsonl --field body --id-field key --top 1 > labels.jsonl
  tail -f app.log | moonpool classify --url http://127.0.0.1:8080 --batch-size 8]],
}

function classify.configure(p)
  filter.configure_files(p, "Texts: lines, or JSONL if so named;")
  p:option("--field", "Read JSONL; field that holds the text (default text)."):argname "NAME"
  p:option("--id-field", "Read JSONL; field that holds the row's id (default id)."):argname "NAME"
  p:option("--top", "Labels of each text, the best ones (default all)."):argname "N":convert(parser.count)
  p:flag("--raw-scores", "Ask for the model's scores as they are, not made into probabilities.")
  p:flag("--truncate", "Ask for texts that are too long to be cut instead of refused.")
  endpoint.configure(p, { call = "classify" })
  endpoint.configure_batch(p)
  endpoint.configure_bulk(p)
  filter.configure_report(p)
end

local function is_pair(value)
  return type(value) == "table" and #value == 2 and type(value[1]) == "string" and type(value[2]) == "string"
end

local function record_parser(field, id_field)
  return function(entry, value)
    if type(value) ~= "table" then
      return "the line is not a JSON object"
    end
    local id, text = value[id_field], value[field]
    entry.id = type(id) ~= "table" and id or nil
    if text == nil then
      return ("the record has no field '%s'"):format(field)
    elseif type(text) ~= "string" and not is_pair(text) then
      return ("the field '%s' is neither a text nor a pair of texts"):format(field)
    elseif type(text) == "string" and not text:find "%S" then
      return ("the field '%s' is blank"):format(field)
    end
    entry.text = text
  end
end

function classify.source(args)
  local records = args.field ~= nil or args.id_field ~= nil or rowjob.is_jsonl(args.input)
  return {
    input = args.input, records = records,
    parse = records and record_parser(args.field or "text", args.id_field or "id") or rowjob.text,
  }
end

local function best(labels, top)
  if not top or top >= #labels then
    return labels
  end
  table.sort(labels, function(a, b) return a.score > b.score end)
  return table.move(labels, 1, top, 1, {})
end

local function caller(args, client)
  return function(entries)
    local texts = {}
    for i, entry in ipairs(entries) do
      texts[i] = entry.text
    end
    local res, err = client:classify {
      inputs = texts, model = args.model, batch_size = args.batch_size,
      raw_scores = args.raw_scores, truncate = args.truncate, max_concurrent_requests = 1,
    }
    rowjob.mark(entries, res, err)
    for i, entry in ipairs(entries) do
      if not entry.error then
        entry.line = { row = entry.row, id = entry.id, labels = best(res.results[i], args.top) }
      end
    end
  end
end

function classify.durable(args, client)
  return {
    identity = {
      call = "classify", model = args.model, provider = args.provider or "openai", field = args.field,
      options = json.encode({ top = args.top, raw_scores = args.raw_scores, truncate = args.truncate },
        { sort_keys = true }),
    },
    content = function(item) return item.text end,
    call = caller(args, client), error_line = rowjob.error_line, size = args.batch_size or 128,
    window = args.max_concurrent or filter.MAX_CONCURRENT,
  }
end

function classify.job(args, job)
  job.call = caller(args, job.client)
  job.size = args.batch_size or 128
  job.window = args.max_concurrent or filter.MAX_CONCURRENT
  rowjob.run(job)
end

function classify.run(args, client)
  return filter.run(classify, args, client)
end

return classify
