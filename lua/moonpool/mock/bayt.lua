-- moonpool.mock.bayt: Bayt's prompts, and the storage of their context files. Two hundred prompts:
-- @mock/prompt-1:v1 to @mock/prompt-200:v1, the first with variables and context.

local core = require "moonpool.core"

local M = {}

local COUNT = 200
local FILE = "The file of the first prompt.\n"

local codes = { [400] = "validation_error", [401] = "unauthorized", [403] = "forbidden", [404] = "not_found",
  [429] = "rate_limit_exceeded" }

function M.error(status, message)
  return core.json_encode { error = { code = codes[status] or "internal_error", message = message } }
end

function M.fault(status)
  return M.error(status, "The mock was asked to answer " .. status .. ".")
end

function M.bad_body(why)
  return 400, M.error(400, "Invalid JSON: " .. why)
end

local function answer(status, value)
  return nil, status, core.json_encode(value)
end

local function refuse(status, message)
  return nil, status, M.error(status, message)
end

local function prompt(i)
  local p = {
    id = "prompt_" .. i, title = "Prompt " .. i, content = "Say {{word}} " .. i,
    description = core.json_null, category = "mock", workspaceSlug = "mock", packageName = "prompt-" .. i,
    version = "v1", systemPrompt = i == 1 and "You answer {{name:string // whom}} in {{count:number}} words."
      or core.json_null,
    critiquePrompt = core.json_null, context = core.json_array {},
  }
  if i == 1 then
    p.context[1] = { id = "ctx_1", type = "file", fileName = "first.txt", mimeType = "text/plain" }
    p.context[2] = { id = "ctx_2", type = "url", url = "https://example.org/" }
  end
  return p
end

-- Enveloped by the documentation's word; the list bare, as the service's own client reads it.
local function get(_, body)
  if type(body.package_name) ~= "string" then
    return refuse(400, "package_name is required")
  end
  local i = math.tointeger(tonumber(body.package_name:match "^@mock/prompt%-(%d+):[%w]+$"))
  if not i or i < 1 or i > COUNT then
    return refuse(404, "Prompt not found")
  end
  return answer(200, { data = prompt(i) })
end

local function list(_, _, x)
  local query = x.req.query or ""
  local limit = math.tointeger(tonumber(query:match "limit=(%d+)" or 20))
  if limit < 1 or limit > 100 then
    return refuse(400, "limit must be from 1 to 100")
  end
  local from = math.tointeger(tonumber(query:match "cursor=after%-(%d+)" or 0))
  local to = math.min(COUNT, from + limit)
  local page = core.json_array {}
  for i = from + 1, to do
    page[#page + 1] = prompt(i)
  end
  return answer(200, { prompts = page, hasMore = to < COUNT,
    cursor = to < COUNT and "after-" .. to or core.json_null })
end

local function download_url(mock, _, x)
  local id = (x.req.query or ""):match "contextId=([%w_-]+)"
  if id == "ctx_2" then
    return refuse(400, "Context item is not a file")
  elseif id ~= "ctx_1" then
    return refuse(404, "Context not found")
  end
  return answer(200, { data = { url = mock.url .. "/bayt-files/first.txt?signature=abc", expiresIn = 900 } })
end

-- As a store of signed URLs does: a second way to say who one is, is one too many.
local function file(_, _, x)
  if x.req:header "authorization" then
    return refuse(400, "Only one auth mechanism allowed")
  elseif not (x.req.query or ""):find "signature=abc" then
    return refuse(403, "The signature is wrong")
  end
  return nil, 200, FILE
end

M.open = { ["/bayt-files/first.txt"] = true } -- needs no key
M.routes = {
  ["/v1/prompts/get"] = { POST = get },
  ["/v1/prompts"] = { GET = list },
  ["/api/v1/prompts/context/download-url"] = { GET = download_url },
  ["/bayt-files/first.txt"] = { GET = file },
}

return M
