-- What scripts.c runs: the library of the moonpool binary, and report, which the program lends.
-- luacheck: globals report
local moonpool = require "moonpool"

local client <close> = moonpool.client { base_url = arg[1] }
local words = { "one", "two", "three" }
local results = moonpool.map(words, { window = 3 }, function(word)
  return assert(client:embed { input = { word }, model = "m" })
end)
for i, word in ipairs(words) do
  report(("%s has %d numbers"):format(word, #results[i][1]))
end
