-- moonpool.mock.recorder: the last requests, for tests that look at what reached the wire.

local recorder = {}
recorder.__index = recorder

local secret = { authorization = true, ["api-key"] = true, ["x-api-key"] = true,
  ["proxy-authorization"] = true }

local function new(capacity, with_auth, with_body)
  return setmetatable({
    capacity = capacity, with_auth = with_auth, with_body = with_body, first = 1, count = 0, list = {},
  }, recorder)
end

local function mask(headers)
  for name in pairs(headers) do
    if secret[name] then
      headers[name] = (headers[name]:match "^(%a+ )" or "") .. "***"
    end
  end
  return headers
end

function recorder:add(req)
  if self.capacity == 0 then
    return
  end
  local headers = req.headers
  local entry = {
    method = req.method, path = req.path, query = req.query,
    headers = self.with_auth and headers or mask(headers),
    body = self.with_body and req.body or nil,
  }
  self.list[self.count % self.capacity] = entry
  self.count = self.count + 1
end

--- The last n, oldest of them first.
function recorder:last(n)
  local have = math.min(self.count, self.capacity)
  n = math.min(n or have, have)
  local out = {}
  for i = self.count - n, self.count - 1 do
    out[#out + 1] = self.list[i % self.capacity]
  end
  return out
end

function recorder:clear()
  self.list, self.count = {}, 0
end

return { new = new }
