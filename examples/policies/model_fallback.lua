-- model_fallback - a smaller model rather than no answer.
--
--   local fall = require "examples.policies.model_fallback" { from = "big-4", to = "small-4" }
--   local client = moonpool.client { base_url = url, policy = fall }
--   ... for model, n in pairs(fall:used()) do print(model, n) end
--
-- The first `tries` attempts of a request ask for `from`, later ones for `to`. When `failures` requests
-- in a row have failed with `from`, it is left alone for `pause` seconds and everything goes to `to`.
--
-- For answers that stand alone: chat, rerank, classify. Vectors of two models do not compare: requests
-- for embeddings keep their model unless both are known to share one space, or any_space = true.
--
-- Options: any_space; from, to, tries = 2, failures = 5, pause = 30.

local provider = require "moonpool.provider"

local fallback = {}
fallback.__index = fallback

--- {model = good replies}
function fallback:used()
  return self.state.used
end

local function quoted(text)
  return (text:gsub("%p", "%%%0"))
end

return function(o)
  assert(o.from and o.to, "model_fallback: from and to are needed")
  local tries, failures, pause = o.tries or 2, o.failures or 5, o.pause or 30
  local pattern = '("model"%s*:%s*")' .. quoted(o.from) .. '"'
  local replacement = "%1" .. o.to:gsub("%%", "%%%%") .. '"'
  local s = { used = { [o.from] = 0, [o.to] = 0 }, row = 0, shut_until = -math.huge, fallen = {} }

  local mixable = o.any_space or provider.same_space(o.from, o.to)

  local policy = {
    name = "model_fallback",
    before_request = function(view)
      local id = view.id
      s.fallen[id] = nil
      if not mixable and view.path:find "embed" then return end
      if view.attempts <= tries and view.now >= s.shut_until then return end
      local body, n = (view.body or ""):gsub(pattern, replacement, 1)
      if n == 0 then return end
      s.fallen[id] = true
      return { body = body }
    end,
    classify = function(view)
      local id, class = view.id, view.class
      local model = s.fallen[id] and o.to or o.from
      s.fallen[id] = nil
      if class == "ok" then s.used[model] = s.used[model] + 1 end
      if model == o.to then return end
      s.row = class == "ok" and 0 or s.row + 1
      if s.row >= failures then s.shut_until, s.row = view.now + pause, 0 end
    end,
  }
  return setmetatable(policy, { __index = setmetatable({ state = s }, fallback) })
end
