-- moonpool.job.batch: the provider's batch API as the way to ask: a file of requests is handed in,
-- worked on some time within a day, and read again. Half the price, and the same directory.
--
-- What was handed in is noted in .job/batches.json before it is waited for, so a job that was killed
-- meanwhile goes on waiting for the same batch. Requests that expired are asked in the usual way.
local core = require "moonpool.core"
local json = require "moonpool.json"
local layout = require "moonpool.job.layout"
local matrix = require "moonpool.matrix"

local batch = {}

local GROUP = 2000 -- rows a batch: its replies are read whole
local PIECE = 256 -- rows given on at once
local POLL_FIRST, POLL_MOST = 0.5, 30 -- s

local boundary = "moonpool-4f1d9a"

local Api = {}
Api.__index = Api

-- ---- requests -----------------------------------------------------------------------------------

local function ask(self, o)
  local res, err = self.client:request(o)
  if not res then
    error(err, 0)
  end
  return res.data
end

local function line_of(self, item)
  local body = { input = item.text, encoding_format = "float" }
  for name, value in pairs(self.call) do
    if name == "model" or name == "dimensions" or name == "user" then
      body[name] = value
    end
  end
  return json.encode({
    custom_id = "row-" .. item.row, method = "POST", url = "/v1/embeddings", body = body,
  }, { sort_keys = true })
end

local function upload(self, items)
  local list = {}
  for i, item in ipairs(items) do
    list[i] = line_of(self, item)
  end
  local body = table.concat {
    "--", boundary, '\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--', boundary,
    '\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n',
    "Content-Type: application/octet-stream\r\n\r\n", table.concat(list, "\n"), "\n\r\n--", boundary,
    "--\r\n",
  }
  return ask(self, {
    method = "POST", path = "/v1/files", body = body,
    headers = { ["Content-Type"] = "multipart/form-data; boundary=" .. boundary },
  }).id
end

local ended = { completed = true, expired = true, cancelled = true, failed = true }

local function wait_for(self, id)
  local delay = POLL_FIRST
  while true do
    local found = ask(self, { method = "GET", path = "/v1/batches/" .. id })
    if ended[found.status] then
      return found
    end
    core.sleep(delay)
    delay = math.min(POLL_MOST, 1.5 * delay)
  end
end

local function read_file(self, id, take)
  if type(id) ~= "string" then
    return
  end
  local data = ask(self, { method = "GET", path = ("/v1/files/%s/content"):format(id) })
  if type(data) ~= "string" then
    take(data) -- one line, which the client took for JSON
    return
  end
  for text in data:gmatch "[^\n]+" do
    take(json.decode(text))
  end
end

-- ---- what is handed in --------------------------------------------------------------------------

local function state_path(self)
  return self.writer.work .. "/batches.json"
end

local function note(self, state)
  if not state then
    os.remove(state_path(self))
    return
  end
  layout.check(core.replace_file(state_path(self), json.encode(state)))
end

-- The batch that an earlier run waits for: {id=, rows = set}, or nil.
local function handed_in(self)
  local file = io.open(state_path(self), "rb")
  if not file then
    return nil
  end
  local state = json.decode(file:read "a")
  file:close()
  if type(state) ~= "table" or not state.id then
    return nil
  end
  local rows = {}
  for _, row in ipairs(state.rows) do
    rows[row] = true
  end
  return { id = state.id, rows = rows, count = #state.rows }
end

local function hand_in(self, items)
  local rows = {}
  for i, item in ipairs(items) do
    rows[i] = item.row
  end
  local id = ask(self, {
    method = "POST", path = "/v1/batches",
    json = { input_file_id = upload(self, items), endpoint = "/v1/embeddings", completion_window = "24h" },
  }).id
  note(self, { id = id, rows = rows })
  return id
end

-- ---- replies ------------------------------------------------------------------------------------

local function error_of(reply)
  local response, err = reply.response, reply.error
  if err and err ~= json.null then
    return core.error("http", tostring(err.message or err.code)), err.code == "batch_expired"
  end
  local body = type(response) == "table" and response.body
  local inner = type(body) == "table" and body.error
  return core.error("http", ("status %s: %s"):format(response and response.status_code or "unknown",
    type(inner) == "table" and tostring(inner.message) or "refused"),
    { status = response and response.status_code }), false
end

local function vector_of(reply)
  local response = reply.response
  local data = type(response) == "table" and response.status_code == 200 and response.body
    and response.body.data
  local vector = type(data) == "table" and data[1] and data[1].embedding
  return type(vector) == "table" and #vector > 0 and vector or nil
end

-- custom_id -> vector or error; the rows to ask in the usual way.
local function replies_of(self, found)
  local replies, tokens = {}, 0
  local function take(reply)
    if type(reply) ~= "table" then
      return
    end
    local vector = vector_of(reply)
    local err, expired
    if vector then
      local usage = reply.response.body.usage
      tokens = tokens + (type(usage) == "table" and usage.total_tokens or 0)
    else
      err, expired = error_of(reply)
    end
    replies[reply.custom_id] = { vector = vector, error = err, expired = expired }
  end
  read_file(self, found.output_file_id, take)
  read_file(self, found.error_file_id, take)
  return replies, tokens
end

-- Pieces of a batch as client:embed_each gives them.
local function piece_of(items, replies, tokens)
  local rows, errors, dim = {}, {}, nil
  for i, item in ipairs(items) do
    local reply = replies["row-" .. item.row]
    dim = dim or reply.vector and #reply.vector
    if reply.error then
      errors[#errors + 1] = { index = i, error = reply.error }
    end
  end
  for i, item in ipairs(items) do
    rows[i] = replies["row-" .. item.row].vector
    if dim and not rows[i] then
      rows[i] = {}
      for k = 1, dim do
        rows[i][k] = 0 / 0
      end
    end
  end
  return {
    items = items, matrix = dim and matrix.from(rows) or nil, errors = errors, requests = {},
    usage = { total_tokens = tokens },
  }
end

-- ---- the iterator -------------------------------------------------------------------------------

local function online(self, items)
  local texts = {}
  for i, item in ipairs(items) do
    texts[i] = item.text
  end
  local call = { input = texts }
  for name, value in pairs(self.call) do
    call[name] = value
  end
  call.text, call.ordered = nil, nil
  local res, err = self.client:embed(call)
  local errors = res and res.errors or err.errors or {}
  if not res and #errors == 0 then
    error(err, 0)
  end
  coroutine.yield { items = items, matrix = res and res.matrix, errors = errors, requests = {},
    usage = res and res.usage }
end

local function settle(self, id, items)
  local replies, tokens = replies_of(self, wait_for(self, id))
  local again, kept = {}, {}
  for _, item in ipairs(items) do
    local reply = replies["row-" .. item.row]
    if not reply or reply.expired then
      again[#again + 1] = item
    else
      kept[#kept + 1] = item
    end
  end
  for from = 1, #kept, PIECE do
    local piece = table.move(kept, from, math.min(#kept, from + PIECE - 1), 1, {})
    coroutine.yield(piece_of(piece, replies, tokens))
    tokens = 0
  end
  for from = 1, #again, PIECE do
    online(self, table.move(again, from, math.min(#again, from + PIECE - 1), 1, {}))
  end
  while self.writer:pending() > 0 do -- its rows must be on the disk before it is forgotten
    self.writer.work_there:wake()
    core.sleep(0.05)
  end
  note(self, nil)
end

local function all(self, source)
  local before, held, mine = handed_in(self), {}, {}
  while before and #mine < before.count do
    local item = source()
    if not item then
      break
    end
    table.insert(before.rows[item.row] and mine or held, item)
  end
  if before and #mine > 0 then
    settle(self, before.id, mine)
  end
  local at = 0
  local function next_item()
    at = at + 1
    if held[at] then
      return held[at]
    end
    return source()
  end
  repeat
    local items = {}
    repeat
      local item = next_item()
      items[#items + 1] = item
    until not item or #items == GROUP
    if #items > 0 then
      settle(self, hand_in(self, items), items)
    end
  until #items < GROUP
end

--- What run.go takes for the way to ask: each(client, source, call), into that writer.
function batch.each(writer)
  return function(client, source, call)
    local self = setmetatable({ client = client, call = call, writer = writer }, Api)
    return coroutine.wrap(function()
      all(self, source)
    end)
  end
end

return batch
