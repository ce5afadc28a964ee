-- moonpool.provider.huggingface: Hugging Face's serverless inference: the model in the path, texts in,
-- lists of numbers out. While a model is loaded it answers 503, and in the body how long that will
-- take.
local function task(name)
  return function(o)
    if not o.model then
      error("huggingface: model: missing", 0)
    end
    return ("/hf-inference/models/%s%s"):format(o.model, name and "/pipeline/" .. name or "")
  end
end

return {
  name = "huggingface",
  base_url = "https://router.huggingface.co",
  key_env = { "HF_TOKEN", "HUGGINGFACE_API_KEY", "HUGGINGFACEHUB_API_TOKEN" },
  auth = { header = "Authorization", format = "Bearer %s" },
  bare = true,
  defaults = { hedge = false },
  embed = {
    path = task "feature-extraction",
    rows = "inputs",
    fields = { normalize = "normalize", prompt_name = "prompt_name", truncate = "truncate",
      truncation_direction = "truncation_direction" },
    options = { normalize = "boolean", prompt_name = "string", truncate = "boolean",
      truncation_direction = { "Left", "Right" } },
    reply = { list = "" },
  },
  rerank = { -- how alike each sentence is to the query
    path = task "sentence-similarity",
    rows = "sentences",
    query = "source_sentence",
    frame = function(fields, members)
      local inner = { source_sentence = fields.source_sentence }
      fields.source_sentence = nil
      local rest = members(fields)
      if rest ~= "" then
        rest = "," .. rest
      end
      return '{"inputs":{"sentences":[', "]," .. members(inner) .. "}" .. rest .. "}"
    end,
    reply = { list = "", score = "score" },
  },
  classify = {
    path = task(nil),
    rows = "inputs",
    fields = { function_to_apply = "parameters.function_to_apply", top_k = "parameters.top_k" },
    options = { function_to_apply = { "sigmoid", "softmax", "none" }, top_k = "count" },
    reply = { list = "", label = "label", score = "score" },
  },
}
