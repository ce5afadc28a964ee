-- moonpool.mock.batch: OpenAI's /v1/files and /v1/batches: files of requests in, files of replies out,
-- not in their order. A batch is worked on when it is asked for the second time.

local core = require "moonpool.core"
local faults = require "moonpool.mock.faults"
local openai = require "moonpool.mock.openai"

local M = { error = openai.error, fault = openai.fault, bad_body = openai.bad_body }

local MAX_REQUESTS = 50000

local function refuse(status, message)
  return nil, status, openai.error(status, message)
end

local function state_of(mock)
  mock.batch_api = mock.batch_api or { files = {}, batches = {}, serial = 0 }
  return mock.batch_api
end

local function next_id(state, prefix)
  state.serial = state.serial + 1
  return ("%s-%d"):format(prefix, state.serial)
end

-- ---- files --------------------------------------------------------------------------------------

-- The parts of a form: name -> content.
local function form_of(req)
  local boundary = (req:header "content-type" or ""):match 'boundary="?([^";]+)'
  if not boundary then
    return nil
  end
  local parts, mark, at = {}, "--" .. boundary, 1
  while true do
    local _, head = req.body:find(mark .. "\r\n", at, true)
    local _, stop = req.body:find("\r\n\r\n", head or 1, true)
    local finish = stop and req.body:find("\r\n" .. mark, stop, true)
    if not head or not finish then
      return parts
    end
    local name = req.body:sub(head + 1, stop):match 'name="([^"]*)"'
    parts[name or ""] = req.body:sub(stop + 1, finish - 1)
    at = finish + 2
  end
end

local function file_reply(file)
  return core.json_encode {
    id = file.id, object = "file", bytes = #file.content, purpose = file.purpose, status = "processed",
  }
end

local function add_file(state, content, purpose)
  local file = { id = next_id(state, "file"), content = content, purpose = purpose }
  state.files[file.id] = file
  return file
end

local function upload(mock, _, x)
  local form = form_of(x.req)
  if not form or not form.file or form.purpose ~= "batch" then
    return refuse(400, "a form with the fields purpose ('batch') and file is needed")
  end
  return nil, 200, file_reply(add_file(state_of(mock), form.file, "batch"))
end

local function file_of(mock, x)
  return state_of(mock).files[x.req.path:match "/files/([^/]+)"]
end

local function show_file(mock, _, x)
  local file = file_of(mock, x)
  if not file then
    return refuse(404, "No such File object")
  end
  return nil, 200, file_reply(file)
end

local function content(mock, _, x)
  local file = file_of(mock, x)
  if not file then
    return refuse(404, "No such File object")
  end
  return nil, 200, file.content, { ["content-type"] = "application/octet-stream" }
end

-- ---- batches ------------------------------------------------------------------------------------

local function batch_reply(batch)
  return core.json_encode {
    id = batch.id, object = "batch", endpoint = batch.endpoint, input_file_id = batch.input,
    status = batch.status, output_file_id = batch.output or core.json_null,
    error_file_id = batch.errors or core.json_null,
    request_counts = { total = batch.total, completed = batch.completed or 0, failed = batch.failed or 0 },
  }
end

local function create(mock, body)
  local state = state_of(mock)
  local file = state.files[body.input_file_id]
  if not file then
    return refuse(400, "input_file_id names no file")
  elseif not openai.routes[body.endpoint] then
    return refuse(400, "endpoint is not supported")
  end
  local _, total = file.content:gsub("[^\n]+", "")
  if total > MAX_REQUESTS then
    return refuse(400, "too many requests in a batch")
  end
  local batch = {
    id = next_id(state, "batch"), endpoint = body.endpoint, input = file.id, status = "validating",
    total = total,
  }
  state.batches[batch.id] = batch
  return nil, 200, batch_reply(batch)
end

local function answer(mock, request)
  local handler = (openai.routes[request.url] or {}).POST
  if not handler then
    return 404, openai.error(404, "Invalid URL")
  end
  local job, status, reply = handler(mock, request.body, { req = false })
  if not job then
    return status, reply
  end
  mock.stats_.inputs = mock.stats_.inputs + job.rows
  mock.stats_.tokens = mock.stats_.tokens + job.tokens
  return 200, job.reply()
end

local function line(request, status, body, code)
  return core.json_encode {
    id = "batch_req", custom_id = request.custom_id,
    response = body and { status_code = status, request_id = "r", body = core.json_decode(body) }
      or core.json_null,
    error = code and { code = code, message = "This request could not be executed before the batch expired." }
      or core.json_null,
  } .. "\n"
end

local function work(mock, batch)
  local state, good, bad, n = state_of(mock), {}, {}, 0
  for text in state.files[batch.input].content:gmatch "[^\n]+" do
    local request = core.json_decode(text)
    n = n + 1
    if mock.batch_expired and faults.draws(mock.seed, n)() < mock.batch_expired then
      bad[#bad + 1] = line(request, nil, nil, "batch_expired")
    else
      local status, body = answer(mock, request)
      table.insert(status == 200 and good or bad, 1, line(request, status, body))
    end
  end
  batch.completed, batch.failed = #good, #bad
  batch.output = #good > 0 and add_file(state, table.concat(good), "batch_output").id or nil
  batch.errors = #bad > 0 and add_file(state, table.concat(bad), "batch_output").id or nil
  batch.status = mock.batch_expired and #bad > 0 and "expired" or "completed"
end

local function show(mock, _, x)
  local batch = state_of(mock).batches[x.req.path:match "/batches/([^/]+)"]
  if not batch then
    return refuse(404, "No such batch")
  elseif batch.status == "validating" then
    batch.status = "in_progress"
  elseif batch.status == "in_progress" then
    work(mock, batch)
  end
  return nil, 200, batch_reply(batch)
end

M.raw = { ["/v1/files"] = true } -- bodies that are no JSON
M.routes = { ["/v1/files"] = { POST = upload }, ["/v1/batches"] = { POST = create } }
M.patterns = {
  { "^/v1/files/[^/]+$", { GET = show_file } }, { "^/v1/files/[^/]+/content$", { GET = content } },
  { "^/v1/batches/[^/]+$", { GET = show } },
}

return M
