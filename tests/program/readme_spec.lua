-- The examples of the READMEs are run: every fenced block of Lua, shell or C, unless the line above it
-- is <!-- not run -->. The local model server of the examples is a mock on a free port.
--
-- In lua/docs each block goes on from the one of lua/README.md, as the text there says. Where a block has
-- comments of the form "--> 3", these are its output, line by line.

local binary = assert(os.getenv "MOONPOOL", "run by scripts/test")
local build = assert(os.getenv "BUILD", "run by scripts/test")
local sanitize = os.getenv "MOONPOOL_SANITIZED" and "-fsanitize=address,undefined" or ""

local DEFAULT_URL = "http://127.0.0.1:8089"
local NOT_RUN = "<!-- not run -->"

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

-- The fenced blocks of a file: {language, line, text, skip}.
local function blocks_of(path)
  local blocks, open, before, n = {}, nil, "", 0
  for line in io.lines(path) do
    n = n + 1
    local fence = line:match "^```(%w*)"
    if open and fence then
      open.text = table.concat(open, "\n") .. "\n"
      blocks[#blocks + 1], open = open, nil
    elseif fence then
      open = { language = fence, line = n + 1, skip = before == NOT_RUN, path = path }
    elseif open then
      open[#open + 1] = line
    end
    if line ~= "" then
      before = line
    end
  end
  assert(not open, path .. ": a block does not end")
  return blocks
end

local function one_spaced(text)
  return (text:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", ""))
end

local function expected_of(block)
  local list = {}
  for text in block.text:gmatch "%-%->([^\n]*)" do
    list[#list + 1] = one_spaced(text)
  end
  return list
end

-- The first block of the file as one line, so that what follows keeps its line numbers.
local function preamble(blocks)
  return (blocks[1].text:gsub("%-%-[^\n]*", ""):gsub("\n", " "))
end

describe("the examples of", function()
  local dir, url, mock

  local function write(name, text)
    local path = dir .. "/" .. name
    local file <close> = assert(io.open(path, "wb"))
    assert(file:write(text))
    return path
  end

  -- Runs a command line in the directory; standard output, or an error with all that was printed.
  local function succeeds(command)
    local pipe = assert(io.popen(("cd '%s' && { %s\n} 2>stderr </dev/null; echo \"rc=$?\"")
      :format(dir, command)))
    local out, code = pipe:read("a"):match "^(.*)rc=(%d+)\n$"
    pipe:close()
    if code ~= "0" then
      error(("status %s\n%s%s"):format(code, out, read(dir .. "/stderr")), 2)
    end
    return out
  end

  local function with_url(text)
    return (text:gsub(DEFAULT_URL:gsub("%p", "%%%0"), url))
  end

  local run = {}

  function run.lua(block, first)
    local text = with_url((first or "") .. ("\n"):rep(block.line - 1) .. block.text)
    local name = ("%s-line-%d.lua"):format(block.path:gsub("/", "-"), block.line)
    local out = succeeds(("'%s' run %s"):format(binary, write(name, text)))
    local expected, given = expected_of(block), {}
    for line in out:gmatch "[^\n]+" do
      given[#given + 1] = one_spaced((line:gsub(url:gsub("%p", "%%%0"), DEFAULT_URL)))
    end
    if #expected > 0 then
      assert.same(expected, given)
    end
  end

  function run.sh(block)
    local text = with_url(block.text):gsub("%f[%w/]build/moonpool", binary)
    succeeds("set -e\n" .. text)
  end

  function run.c(block)
    local source = write("example.c", with_url(block.text))
    local here = assert(io.popen "pwd"):read "l"
    succeeds(("cc -std=c11 -Wall -Wextra -Werror %s -I'%s/runtime/include' -o example %s '%s/libmoonpool.a' "
      .. "$(pkg-config --libs libcurl libuv libcjson zlib libzstd) -lpthread -lm"):format(
        sanitize, here, source, build))
    succeeds "./example"
  end

  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir " .. dir))
    mock = assert(io.popen(("echo $$; exec '%s' mock --port 0"):format(binary)))
    mock = { pid = mock:read "l", pipe = mock }
    url = assert((mock.pipe:read "l" or "nothing"):match "^listening on (.+)$")
    write("texts.txt", "how do I get my money back\nreset a password\ntrains to Lisbon\n")
  end)

  teardown(function()
    os.execute("kill -TERM " .. mock.pid)
    mock.pipe:close()
    os.execute("rm -rf " .. dir)
  end)

  it("examples/ work", function()
    local here = assert(io.popen "pwd"):read "l"
    local function example(name, args)
      return succeeds(("'%s' run '%s/examples/%s.lua' %s"):format(binary, here, name, args))
    end
    assert.matches("forgotten password", example("similar", url), 1, true)
    assert.matches("100 of 100 went well", example("batch_post", url), 1, true)
    assert.matches("3 rows, 0 failed", example("embed_each", "texts.txt rows " .. url), 1, true)
    write("status", "Package: tool\nDescription: does\n things\n .\n and more\n\nPackage: bare\n")
    assert.equal('{"id":"tool","text":"tool: does things and more"}\n', example("dpkg_texts", "status"))
  end)

  it("examples/gateway.lua work", function()
    local command = ("exec '%s' serve examples/gateway.lua %s --listen 127.0.0.1:0"):format(binary, url)
    local pipe <close> = assert(io.popen("echo $$; " .. command))
    local pid = pipe:read "l"
    local at = pipe:read("l"):match "^listening on (.+)$"
    local ask = write("ask.lua", [[
      local client <close> = moonpool.client { base_url = arg[1], retry = false }
      local body = { query = "password", texts = { "trains to Lisbon", "reset my password" } }
      print(assert(client:request { path = "/nearest", json = body }).data.results[1].text)
      print(select(2, client:request { path = "/nearest", json = { query = "q", texts = { 1 } } }).status)
    ]])
    local ok, out = pcall(succeeds, ("'%s' run %s %s"):format(binary, ask, at))
    os.execute("kill -TERM " .. pid)
    assert.equal("reset my password\n400\n", ok and out or tostring(out))
  end)

  it("README.md name commands that exist", function()
    local help, named = succeeds("'" .. binary .. "' help"), 0
    for name in read("README.md"):gmatch "\n| `moonpool (%l+)" do
      named = named + 1
      assert.truthy(help:find("\n   " .. name .. " ", 1, true), name)
    end
    assert.is_true(named > 4)
  end)

  local chapters = assert(io.popen "ls lua/docs/*.md runtime/docs/*.md"):read "a"
  local first_block = preamble(blocks_of "lua/README.md")
  for path in ("README.md\nlua/README.md\n" .. chapters):gmatch "[^\n]+" do
    for _, block in ipairs(blocks_of(path)) do
      local first = path:find("lua/docs/", 1, true) and first_block or nil
      local runner = run[block.language]
      if runner and not block.skip then
        it(("%s work: line %d, %s"):format(path, block.line, block.language), function()
          runner(block, first)
        end)
      end
    end
  end
end)
