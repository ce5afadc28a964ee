-- moonpool.mock.chat: POST /v1/chat/completions and /v1/completions as OpenAI answers them: the last
-- message is repeated word by word, whole or as server-sent events, so a client's streaming can be tried.
local core = require "moonpool.core"
local input = require "moonpool.mock.input"

local M = {}

-- The text of a message's content: a string, or a list of parts of which the texts count.
local function text_of(content)
  if type(content) == "string" then
    return content
  end
  if not input.is_list(content) then
    return nil
  end
  local parts = {}
  for _, part in ipairs(content) do
    if type(part) == "table" and type(part.text) == "string" then
      parts[#parts + 1] = part.text
    end
  end
  return table.concat(parts, " ")
end

local function read_chat(body)
  local list = body.messages
  if not input.is_list(list) or #list == 0 then
    return nil, "'messages' is a required property", "messages"
  end
  for i, message in ipairs(list) do
    if type(message) ~= "table" or type(message.role) ~= "string" or not text_of(message.content) then
      return nil, ("Invalid 'messages[%d]': a role and a content expected."):format(i - 1), "messages"
    end
  end
  return text_of(list[#list].content)
end

local function read_prompt(body)
  if type(body.prompt) ~= "string" then
    return nil, "'prompt' is a required property", "prompt"
  end
  return body.prompt
end

local kinds = {
  chat = {
    read = read_chat, object = "chat.completion", chunk = "chat.completion.chunk",
    whole = function(text) return { message = { role = "assistant", content = text } } end,
    piece = function(text) return { delta = text and { content = text } or core.json_object {} } end,
  },
  text = {
    read = read_prompt, object = "text_completion", chunk = "text_completion",
    whole = function(text) return { text = text } end,
    piece = function(text) return { text = text or "" } end,
  },
}

local function choice(fields, finish)
  fields.index, fields.finish_reason = 0, finish or core.json_null
  return core.json_array { fields }
end

-- An iterator of events: a word each, the end with its reason, "[DONE]".
local function events(kind, base, words)
  local at = 0
  return function()
    at = at + 1
    if at > #words + 2 then
      return nil
    end
    if at == #words + 2 then
      return "data: [DONE]\n\n"
    end
    base.choices = choice(kind.piece(words[at]), at > #words and "stop" or nil)
    return "data: " .. core.json_encode(base) .. "\n\n"
  end
end

local function handler(kind, refuse)
  return function(mock, body)
    local text, why, param = kind.read(body)
    if not text then
      return refuse(why, param)
    end
    local words = {}
    for word in text:gmatch "%s*%S+" do words[#words + 1] = word end
    local base = {
      id = "mock-completion", created = 0, model = type(body.model) == "string" and body.model or mock.model,
      object = body.stream == true and kind.chunk or kind.object,
    }
    local job = { rows = 1, tokens = #words }
    if body.stream == true then
      job.stream = function() return events(kind, base, words) end
      return job
    end
    function job.reply()
      base.choices = choice(kind.whole(table.concat(words)), "stop")
      base.usage = { prompt_tokens = #words, completion_tokens = #words, total_tokens = 2 * #words }
      return core.json_encode(base)
    end
    return job
  end
end

--- The routes; refuse(message, param) makes the dialect's 400.
function M.routes(refuse)
  return {
    ["/v1/chat/completions"] = { POST = handler(kinds.chat, refuse) },
    ["/v1/completions"] = { POST = handler(kinds.text, refuse) },
  }
end

return M
