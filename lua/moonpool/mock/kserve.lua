-- moonpool.mock.kserve: the open inference protocol, version 2, with Triton's binary tensors.

local core = require "moonpool.core"
local strict = require "moonpool.mock.strict"

local M = {}

function M.error(_, message)
  return core.json_encode { error = message }
end

function M.fault(status)
  if status == 429 then
    return M.error(429, "Exceeds maximum queue size, retry in 0.02s")
  end
  return M.error(status, "the mock was asked to answer " .. status)
end

function M.bad_body(why)
  return 400, M.error(400, "failed to parse the request JSON buffer: " .. why)
end

local function refuse(message)
  return nil, 400, M.error(400, message)
end

local function metadata(mock, _, x)
  local model = x.req.path:match "/v2/models/([^/]+)"
  return { rows = 0, tokens = 0, free = true, reply = function()
    return core.json_encode {
      name = model, platform = "mock", versions = core.json_array { "1" },
      inputs = core.json_array { { name = "TEXT", datatype = "BYTES", shape = core.json_array { -1, 1 } } },
      outputs = core.json_array {
        { name = "TOKENS", datatype = "INT32", shape = core.json_array { -1, 1 } },
        { name = "EMBEDDING", datatype = "FP32", shape = core.json_array { -1, mock.dim } },
      },
    }
  end }
end

-- The one input tensor, as texts; nil and what is wrong.
local function read(body)
  local tensor = type(body.inputs) == "table" and body.inputs[1]
  if not tensor or body.inputs[2] or tensor.name ~= "TEXT" then
    return nil, "expected 1 input, TEXT"
  elseif tensor.datatype ~= "BYTES" then
    return nil, "unexpected datatype for TEXT, expecting BYTES"
  end
  local texts, err = strict.texts(tensor.data, "data")
  local shape = type(tensor.shape) == "table" and tensor.shape or {}
  if not texts then
    return nil, err
  elseif shape[1] ~= #texts or shape[2] ~= 1 or shape[3] then
    return nil, ("unexpected shape for input 'TEXT': expected [-1,1], %d elements were given"):format(#texts)
  end
  return texts
end

local function infer(mock, body)
  local texts, err = read(body)
  local wanted = type(body.outputs) == "table" and body.outputs[1] or { name = "EMBEDDING" }
  if not texts or wanted.name ~= "EMBEDDING" then
    return refuse(err or "unexpected inference output '" .. tostring(wanted.name) .. "'")
  end
  local binary = wanted.parameters and wanted.parameters.binary_data == true
  local headers = {}
  return strict.job(texts, function(order)
    local n = order and #order or #texts
    local head = ('{"model_name":"mock","model_version":"1","outputs":[{"name":"EMBEDDING","datatype":"FP32",'
      .. '"shape":[%d,%d],'):format(n, mock.dim)
    if binary then
      head = head .. ('"parameters":{"binary_data_size":%d}}]}'):format(n * mock.dim * 4)
      headers["inference-header-content-length"] = tostring(#head)
      headers["content-type"] = "application/octet-stream"
      return head .. core.mock_vectors(texts, mock.dim, mock.dim, "bytes", false, order)
    end
    local numbers = core.mock_vectors(texts, mock.dim, mock.dim, "float", false, order)
    return head .. '"data":[' .. numbers:gsub("[%[%]]", "") .. "]}]}"
  end, headers)
end

M.patterns = {
  { "^/v2/models/[^/]+/infer$", { POST = infer } },
  { "^/v2/models/[^/]+/versions/[^/]+/infer$", { POST = infer } },
  { "^/v2/models/[^/]+$", { GET = metadata } },
  { "^/v2/models/[^/]+/versions/[^/]+$", { GET = metadata } },
}
M.routes = {}

return M
