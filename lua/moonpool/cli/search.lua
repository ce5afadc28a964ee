-- moonpool.cli.search: the rows of a vector directory nearest to a query.
local core = require "moonpool.core"
local endpoint = require "moonpool.cli.endpoint"
local families = require "moonpool.provider.families"
local json = require "moonpool.json"
local parser = require "moonpool.cli.parser"
local progress = require "moonpool.progress"
local vectordir = require "moonpool.job.reader"

local search = {
  name = "search",
  summary = "Find the rows of an embed job that are nearest to a query.",
  epilog = [[
URL, model, provider and dimensions are those of the embed job unless given; keys are never
recorded. Rows are numbered from 0, as in the .npy files.

Examples:
  moonpool search vectors 'compress files'
  moonpool search vectors 'compress files' -k 50 --json]],
}

function search.configure(p)
  p:argument("dir", "Directory that moonpool embed made."):argname "OUTDIR"
  p:argument("query", "Text to look for.")
  p:option("-k", "Rows to show (default 10)."):argname "N":convert(parser.count)
  endpoint.configure(p, { call = "embed" })
  p:option("--dimensions", "Dimensions to ask the model for."):argname "N":convert(parser.count)
  p:flag("--any-space", "Search with a model of another vector space than the job's all the same.")
  p:flag("--json", "Print the rows as JSON lines.")
end

local function fail(message)
  parser.stop(1, "moonpool search: " .. message .. "\n")
end

local function open(args)
  local dir, err = vectordir.open(args.dir)
  if not dir then
    fail(err)
  elseif #dir.index.parts == 0 and not dir.index.complete then
    fail(args.dir .. ": the embed job has not finished")
  elseif dir.index.dim == 0 then
    fail(args.dir .. ": no row has a vector")
  elseif not dir.index.complete then
    io.stderr:write("moonpool search: the embed job did not finish; searching what there is\n")
  end
  return dir
end

-- Vectors of two models that share no space have cosines that say nothing.
local function check_space(args, index)
  if not args.model or not index.model or args.any_space then
    return
  end
  local same, why = families.same_space(args.model, index.model)
  if not same then
    fail(("%s, and the directory's rows are of the latter; --any-space searches all the same"):format(why))
  end
end

local function embed_query(client, args, index)
  local res, err = client:embed { input = { args.query }, model = args.model, dimensions = args.dimensions }
  if not res then
    fail("cannot embed the query: " .. tostring(err))
  end
  local matrix = res.matrix
  if matrix:cols() ~= index.dim then
    fail(("the query has %d dimensions, the directory %d; the job's model was %s"):format(
      matrix:cols(), index.dim, index.model or "not recorded"))
  end
  return matrix[1]
end

local function one_line(text)
  return (text:gsub("%s+", " "):gsub("^ ", ""))
end

-- Cuts at a character, not in the middle of one.
local function cut(text, width)
  local n = utf8.len(text)
  if not n or n <= width then
    return text
  end
  return text:sub(1, utf8.offset(text, width) - 1) .. "…"
end

local function table_text(hits, width, color)
  local id_width, row_width = 0, 3
  for _, hit in ipairs(hits) do
    id_width = math.max(id_width, hit.id ~= nil and math.min(#tostring(hit.id), 32) or 0)
    row_width = math.max(row_width, #tostring(hit.row))
  end
  local lines = {}
  for i, hit in ipairs(hits) do
    local head = ("%6.4f  %" .. row_width .. "d  "):format(hit.score, hit.row)
    if id_width > 0 then
      head = head .. ("%-" .. id_width .. "s  "):format(hit.id ~= nil and cut(tostring(hit.id), 32) or "")
    end
    local text = hit.text and one_line(hit.text) or ""
    text = width and cut(text, math.max(20, width - #head)) or text
    lines[i] = (color and "\27[1m" .. head:sub(1, 6) .. "\27[0m" .. head:sub(7) or head) .. text
  end
  return table.concat(lines, "\n") .. "\n"
end

local function print_json(hits)
  for _, hit in ipairs(hits) do
    io.stdout:write(json.encode(hit, { sort_keys = true }), "\n")
  end
end

--- args as parsed; client may be given (tests).
function search.run(args, client)
  local dir = open(args)
  check_space(args, dir.index)
  for _, name in ipairs { "url", "model", "provider", "dimensions" } do
    args[name] = args[name] or dir.index[name]
  end
  local conn <close> = client or endpoint.connect("moonpool search", args, "embed")
  local vector = embed_query(conn, args, dir.index)
  local hits = dir:describe(dir:search(vector, args.k or 10))
  if args.json then
    print_json(hits)
  elseif #hits == 0 then
    io.stdout:write "no rows\n"
  else
    io.stdout:write(table_text(hits, core.terminal_width(1), progress.color(1)))
  end
  return 0
end

return search
