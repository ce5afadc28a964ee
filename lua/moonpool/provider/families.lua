-- moonpool.provider.families: which models put their vectors into one space. Only there does a cosine
-- between vectors of two models say anything; the same number of dimensions is no promise of it.
local M = {}

-- Models of one space, by what their makers say; a name with another list is a space of its own.
local families = {
  -- Voyage 4: queries by the small, documents by the large
  { "voyage-4-large", "voyage-4", "voyage-4-lite", "voyage-4-nano" },
  -- one model under the names of several services
  { "nomic-embed-text-v1.5", "nomic-embed-text", "nomic-embed-text:v1.5", "nomic-embed-vision-v1.5" },
  { "nomic-embed-text-v1", "nomic-embed-vision-v1" },
  { "embed-english-v3.0", "embed-english-v3", "cohere-embed-v3-english" },
  { "embed-multilingual-v3.0", "embed-multilingual-v3", "cohere-embed-v3-multilingual" },
  { "embed-v4.0", "embed-v4" },
  { "mistral-embed", "mistral-embed-2312" },
  { "codestral-embed", "codestral-embed-2505" },
  { "gemini-embedding-001", "gemini-embedding-exp-03-07" },
  { "mxbai-embed-large", "mxbai-embed-large-v1" },
  { "all-minilm", "all-minilm-l6-v2", "all-minilm:l6-v2", "all-minilm:22m" },
  { "snowflake-arctic-embed2", "snowflake-arctic-embed-l-v2.0" },
}

local family_of = {}
for i, names in ipairs(families) do
  for _, name in ipairs(names) do family_of[name] = i end
end

local regions = { us = true, eu = true, apac = true, global = true, jp = true, au = true, ["us-gov"] = true }

-- A name without what the service adds: its maker, the region, the version of the deployment.
local function bare(name)
  name = name:lower():gsub("^.*/", "")
  name = name:gsub("^([%a-]+)%.", function(region)
    return regions[region] and "" or nil
  end)
  name = name:gsub("^amazon%.", ""):gsub("^cohere%.", "")
  return (name:gsub(":latest$", ""):gsub(":%d+$", ""))
end
M.bare = bare

--- Whether vectors of two models may be compared: true; or false and why not, in words.
function M.same_space(a, b)
  if type(a) ~= "string" or type(b) ~= "string" then
    error("same_space: names of two models expected", 2)
  end
  local x, y = bare(a), bare(b)
  if x == y or family_of[x] and family_of[x] == family_of[y] then
    return true
  end
  return false, ("'%s' and '%s' are not known to share a vector space"):format(a, b)
end

--- The families, as lists of names.
function M.list()
  local out = {}
  for i, names in ipairs(families) do out[i] = table.move(names, 1, #names, 1, {}) end
  return out
end

return M
