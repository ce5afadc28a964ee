-- moonpool.cli.post: any JSON API, one request a line.
local core = require "moonpool.core"
local endpoint = require "moonpool.cli.endpoint"
local filter = require "moonpool.cli.filter"
local json = require "moonpool.json"
local rowjob = require "moonpool.job.rows"

local methods = { "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS" }

local post = {
  name = "post",
  summary = "Send JSON lines to any JSON API; the replies as JSON lines.",
  done = "sent",
  epilog = [[
Each line of the input is the body of one request, and gets one line of output, in order:

  {"row":0,"custom_id":...,"status":200,"time":0.12,"data":{...}}
  {"row":1,"custom_id":...,"error":{"kind":"http","status":422,"message":"...","body":{...}}}

custom_id is there when the line has that field. With --batch-format lines are requests as
OpenAI's Batch API takes them, {"custom_id","method","url","body"}, and so are the replies:

  {"custom_id":...,"response":{"status_code":200,"request_id":...,"body":{...}},"error":null}

Rows count from 0. Exit status: 0, 1 error, 2 wrong use, 3 done but with failed rows, 130
interrupted.

Examples:
  moonpool post --path /v1/chat/completions -i prompts.jsonl -o replies.jsonl --url https://api.openai.com
  moonpool post --batch-format -i batch.jsonl -o results.jsonl --url http://127.0.0.1:8000
  moonpool post --path /items --method PUT --header 'X-Team: search' --max-concurrent 4 < items.jsonl]],
}

function post.configure(p)
  filter.configure_files(p, "Bodies, as JSON lines;")
  p:option("--path", "Path below the URL (needed unless each line has its own)."):argname "PATH"
  p:option("--method", "Method (default POST)."):argname "METHOD":choices(methods)
  p:flag("--batch-format", "Read and write the lines of OpenAI's Batch API.")
  endpoint.configure(p, { model = false })
  endpoint.configure_bulk(p)
  filter.configure_report(p)
end

-- ---- one line -----------------------------------------------------------------------------------

local function field(value, name)
  local found = type(value) == "table" and value[name] or nil
  return found ~= json.null and found or nil
end

local function custom_id(value)
  local id = field(value, "custom_id")
  return type(id) ~= "table" and id or nil
end

-- Bodies go out as they stand in the file, byte for byte: the order of keys, numbers of any size.
local function plain_line(entry, value, line)
  entry.custom_id = custom_id(value)
  entry.payload = line and line:match "^%s*(.-)%s*$" or json.encode(value)
end

local known = {}
for _, name in ipairs(methods) do
  known[name] = true
end

local function batch_line(args)
  return function(entry, value, line)
    entry.custom_id = custom_id(value)
    local method, url, body = field(value, "method"), field(value, "url"), field(value, "body")
    if type(value) ~= "table" then
      return "the line is not a JSON object"
    elseif method ~= nil and not known[method] then
      return "the field 'method' is no HTTP method"
    elseif url ~= nil and (type(url) ~= "string" or not url:find "^/") then
      return "the field 'url' is no path: it begins with /"
    elseif not url and not args.path then
      return "the line has no field 'url', and there is no --path"
    elseif body == nil then
      return "the line has no field 'body'"
    end
    entry.method, entry.path = method, url
    -- Not where its name is escaped, or the line is none of JSON.
    entry.payload = line and core.json_slice(line, "body") or json.encode(body)
  end
end

-- ---- replies ------------------------------------------------------------------------------------

local function reply_line(entry, reply)
  return {
    row = entry.row, custom_id = entry.custom_id, status = reply.status, time = reply.time,
    data = reply.data == nil and json.null or reply.data,
  }
end

-- The body of an error says what the service did not like.
local function body_of(err)
  local value = err.body and json.decode(err.body)
  return value == nil and err.body or value
end

local function error_line(entry)
  local line = rowjob.error_line(entry)
  line.error.body = body_of(entry.error)
  return line
end

local function batch_reply_line(entry, reply)
  return {
    custom_id = entry.custom_id or json.null, error = json.null,
    response = { status_code = reply.status, request_id = reply.request_id, body = reply.data },
  }
end

-- A refusal is a response there; an error is a request that got none.
local function batch_error_line(entry)
  local err = entry.error
  local line = { custom_id = entry.custom_id or json.null, response = json.null, error = json.null }
  if err.status and err.body then
    line.response = { status_code = err.status, request_id = err.request_id, body = body_of(err) }
  else
    local shown = rowjob.public_error(err)
    line.error = { code = shown.kind, message = shown.message }
  end
  return line
end

-- ---- the command --------------------------------------------------------------------------------

function post.source(args)
  return { input = args.input, records = true, lines = true,
    parse = args.batch_format and batch_line(args) or plain_line }
end

local function caller(args, client)
  local line_of = args.batch_format and batch_reply_line or reply_line
  local json_header = { { ["Content-Type"] = "application/json" } }
  return function(entries)
    local entry = entries[1]
    local res, err = client:batch_post {
      path = entry.path or args.path, method = entry.method or args.method, payloads = { entry.payload },
      payload_headers = type(entry.payload) == "string" and json_header or nil,
    }
    rowjob.mark(entries, res, err)
    if not entry.error then
      entry.line = line_of(entry, res[1])
    end
    entry.payload = nil
  end
end

function post.durable(args, client)
  return {
    identity = {
      call = "post", provider = args.provider or "openai",
      options = json.encode({ path = args.path, method = args.method, batch_format = args.batch_format },
        { sort_keys = true }),
    },
    content = function(item)
      return { item.method or json.null, item.path or json.null, item.custom_id or json.null, item.payload }
    end,
    call = caller(args, client), error_line = args.batch_format and batch_error_line or error_line, size = 1,
    window = args.max_concurrent or filter.MAX_CONCURRENT,
  }
end

function post.job(args, job)
  job.call = caller(args, job.client)
  job.error_line = args.batch_format and batch_error_line or error_line
  job.size, job.window = 1, args.max_concurrent or filter.MAX_CONCURRENT
  rowjob.run(job)
end

function post.run(args, client)
  if not args.path and not args.batch_format then
    require "moonpool.cli.parser".usage_error("moonpool post", "missing option '--path'")
  end
  return filter.run(post, args, client)
end

return post
