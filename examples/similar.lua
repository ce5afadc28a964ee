-- moonpool run examples/similar.lua [URL]
--
-- Embeds a few texts and prints, for each, the one that comes nearest. Needs a server: `moonpool mock`.
local moonpool = require "moonpool"

local texts = {
  "How do I reset my password?",
  "Steps to change a forgotten password",
  "The train to Lisbon leaves at nine",
  "Morning trains from Porto to Lisbon",
  "Bake the bread for forty minutes",
  "Baking bread at home: how many minutes in the oven",
}

local client <close> = moonpool.client {
  base_url = arg[1] or "http://127.0.0.1:8089",
  api_key = os.getenv "OPENAI_API_KEY",
}

local res = moonpool.strict(client:embed { input = texts, model = os.getenv "MODEL" or "local-demo" })
local vectors = res.matrix
vectors:normalize()

for i, text in ipairs(texts) do
  local best, score = nil, -2
  for j = 1, #texts do
    local s = vectors:dot(i, vectors:row(j))
    if j ~= i and s > score then
      best, score = j, s
    end
  end
  print(string.format("%-52s ~ %.2f  %s", text, score, texts[best]))
end
