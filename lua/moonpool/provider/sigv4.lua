-- moonpool.provider.sigv4: requests signed as AWS has it (Signature Version 4), once an attempt. Names
-- of models hold colons, which stand escaped in the path and escaped once more in what is signed:
-- curl's own signer of Debian 12 does only one of the two.
local common = require "moonpool.provider.common"
local core = require "moonpool.core"

local M = {}

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function canonical_path(path)
  return (path:gsub("[^/]+", common.escape))
end

local function canonical_query(query)
  local list = {}
  for pair in query:gmatch "[^&]+" do list[#list + 1] = pair:find "=" and pair or pair .. "=" end
  table.sort(list)
  return table.concat(list, "&")
end

-- The names, and the lines, of the headers that are signed.
local function canonical_headers(headers)
  local names, lines = {}, {}
  for name in pairs(headers) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do lines[i] = name .. ":" .. headers[name]:match "^%s*(.-)%s*$" .. "\n" end
  return table.concat(names, ";"), table.concat(lines)
end

--- request = {method, path, query, host, body}, keys = {access_key_id, secret_access_key, session_token},
--- scope = {region, service}, at = unix time -> the headers to add.
function M.headers(request, keys, scope, at)
  local stamp, day = os.date("!%Y%m%dT%H%M%SZ", at), os.date("!%Y%m%d", at)
  local signed = {
    host = request.host, ["x-amz-date"] = stamp, ["x-amz-security-token"] = keys.session_token,
  }
  local names, lines = canonical_headers(signed)
  local text = table.concat({
    request.method, canonical_path(request.path), canonical_query(request.query or ""), lines, names,
    hex(core.sha256(request.body or "")),
  }, "\n")
  local where = ("%s/%s/%s/aws4_request"):format(day, scope.region, scope.service)
  local key = "AWS4" .. keys.secret_access_key
  for _, part in ipairs { day, scope.region, scope.service, "aws4_request" } do
    key = core.hmac_sha256(key, part)
  end
  local signature = core.hmac_sha256(key,
    ("AWS4-HMAC-SHA256\n%s\n%s\n%s"):format(stamp, where, hex(core.sha256(text))))
  return {
    ["X-Amz-Date"] = stamp, ["X-Amz-Security-Token"] = keys.session_token,
    Authorization = ("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s")
      :format(keys.access_key_id, where, names, hex(signature)),
  }
end

--- For a provider's `sign`: the view of an attempt and what hooks have changed -> headers.
function M.signer(keys, scope)
  return function(view, rewrite)
    local origin, target = view.url:match "^%a+://([^/]+)([^#]*)"
    target = rewrite.path or target
    local path, query = target:match "^([^?]*)%??(.*)$"
    return M.headers({
      method = view.method, path = path, query = query, host = origin:gsub("^[^@]*@", ""),
      body = rewrite.body or view.body,
    }, keys, scope, math.floor(core.wall()))
  end
end

return M
