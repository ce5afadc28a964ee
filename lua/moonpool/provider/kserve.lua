-- moonpool.provider.kserve: KServe's open inference protocol (Triton, KServe, MLServer): texts as a
-- tensor of BYTES, vectors as a tensor in JSON, or as bytes behind it. The names of the tensors are
-- asked of the model unless given.
local common = require "moonpool.provider.common"

local function model_path(o)
  if not o.model then
    error("embed: kserve: model: missing", 0)
  end
  local version = o.model_version and "/versions/" .. common.escape(o.model_version) or ""
  return "/v2/models/" .. common.escape(o.model) .. version
end

local function named(list, types)
  for _, t in ipairs(type(list) == "table" and list or {}) do
    if type(t) == "table" and types[t.datatype] and type(t.name) == "string" then
      return t
    end
  end
end

local numbers = { FP32 = true, FP16 = true, BF16 = true, FP64 = true }

-- GET of the model: {input =, output =, flat =}: the first tensor of texts, the first of numbers, and
-- whether the texts' has one size only.
local function learn(request, o)
  local res, err = request { method = "GET", path = model_path(o) }
  if not res then
    return nil, err
  end
  local doc = type(res.data) == "table" and res.data or {}
  local input, output = named(doc.inputs, { BYTES = true }), named(doc.outputs, numbers)
  if not input or not output then
    return {}
  end
  return { input = input.name, output = output.name, flat = #(input.shape or {}) == 1 }
end

return {
  name = "kserve",
  base_url = "http://127.0.0.1:8000",
  key_env = { "KSERVE_TOKEN" },
  auth = { header = "Authorization", format = "Bearer %s" },
  options = { input_name = "text", output_name = "text", model_version = "text" },
  bare = true,
  embed = {
    path = function(o, client)
      return model_path { model = o.model, model_version = client.model_version } .. "/infer"
    end,
    bytes = true,
    encoding = "encoding_format",
    encoding_default = "float",
    learn = learn,
    prepare = function(fields, o, client)
      local known = o.learnt or {}
      fields.input = client.input_name or known.input or "text"
      fields.output = client.output_name or known.output
      fields.flat = known.flat
    end,
    frame = function(f, members)
      local output = ""
      if f.output then
        local binary = { binary_data = f.encoding_format == "bytes" }
        output = ',"outputs":[{' .. members { name = f.output, parameters = binary } .. "}]"
      end
      local head = members { datatype = "BYTES", name = f.input }
      local tail = (f.flat and "" or ",1") .. "]}]" .. output .. "}"
      return '{"inputs":[{' .. head .. ',"data":[', '],"shape":[', tail
    end,
    reply = {
      list = "outputs.0.data", layout = "tensor", dims = "outputs.0.shape", kind = "outputs.0.datatype",
      header = "inference-header-content-length",
    },
  },
}
