-- A service that Moonpool does not know is a table: where, what goes in, where the vectors come out.
--
--   moonpool mock &  moonpool run examples/own_provider.lua http://127.0.0.1:8089
--
-- Here it is Ollama's /api/embed, spoken to TEI's /embed of the mock by the path and the name of the
-- list; with the two commented lines it is Ollama itself.
local moonpool = require "moonpool"

local ollama = {
  name = "ollama",
  base_url = "http://127.0.0.1:11434",
  embed = {
    path = "/embed", -- "/api/embed",
    rows = "inputs", -- "input",
    fields = { model = "model", truncate = "truncate" },
    options = { truncate = "boolean" },
    reply = { list = "embeddings|" }, -- or the bare list
    limits = { inputs = 16 },
  },
}

local client <close> = moonpool.client { provider = ollama, base_url = arg[1] }
local res = moonpool.strict(client:embed { input = { "first text", "second text" }, model = "all-minilm" })
print(("%d vectors of %d dimensions"):format(res.matrix:rows(), res.matrix:cols()))
