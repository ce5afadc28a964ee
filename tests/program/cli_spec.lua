-- The command line as a whole program: version, help, wrong use, completion, man page.

local binary = os.getenv "MOONPOOL" or "build/moonpool"

local function sh(command, ...)
  local err_path = os.tmpname()
  local line = ("( %s\n) 2>%s </dev/null; echo \"rc=$?\""):format(command:format(...), err_path)
  local f = assert(io.popen(line, "r"))
  local text = f:read "a"
  f:close()
  local out, rc = text:match "^(.*)rc=(%d+)\n$"
  local err <close> = assert(io.open(err_path))
  local err_text = err:read "a"
  os.remove(err_path)
  return out, err_text, tonumber(rc)
end

local function moonpool(args)
  return sh("%s %s", binary, args)
end

describe("moonpool", function()
  it("tells its version", function()
    local out, err, rc = moonpool "--version"
    assert.equal(0, rc)
    assert.matches("^moonpool %d+%.%d+%.%d+\n$", out)
    assert.equal("", err)
  end)

  it("prints its help, and ends with 2 when it was given nothing to do", function()
    local help, _, rc = moonpool "help"
    assert.equal(0, rc)
    for _, command in ipairs { "run", "embed", "search", "help" } do
      assert.truthy(help:find("\n   " .. command .. " ", 1, true), command)
    end
    assert.equal(help, (moonpool "--help"))
    local out, err
    out, err, rc = moonpool ""
    assert.equal(2, rc)
    assert.equal("", out)
    assert.equal(help, err)
  end)

  it("explains each command in two ways", function()
    for _, name in ipairs { "run", "embed", "search" } do
      local one, err, rc = moonpool("help " .. name)
      assert.equal(0, rc, err)
      assert.equal(one, (moonpool(name .. " --help")))
      assert.matches("[Uu]sage: moonpool " .. name, one)
    end
  end)

  it("prints the notices of what is compiled in", function()
    local out, _, rc = moonpool "help licenses"
    assert.equal(0, rc)
    assert.matches("Lua", out)
    assert.matches("argparse", out)
  end)

  it("suggests what was meant", function()
    local out, err, rc = moonpool "serach x y"
    assert.equal(2, rc)
    assert.equal("", out)
    assert.matches("unknown command 'serach', did you mean 'search'%?", err)
    out, err, rc = moonpool "help embd"
    assert.equal("", out)
    assert.equal(2, rc)
    assert.matches("did you mean 'embed'", err)
    out, err, rc = moonpool "--verison"
    assert.equal("", out)
    assert.equal(2, rc)
    assert.matches("unknown option '%-%-verison'", err)
  end)

  it("writes no escape codes where there is no terminal", function()
    for _, args in ipairs { "help", "embed --help", "embed", "nonsense" } do
      local out, err = moonpool(args)
      assert.is_nil((out .. err):find("\27", 1, true))
    end
  end)
end)

describe("bash completion", function()
  local function complete(words, index)
    local out, err, rc = sh([[bash -c 'source scripts/moonpool.bash
COMP_WORDS=(%s); COMP_CWORD=%d; _moonpool 2>/dev/null
printf "%%s\n" "${COMPREPLY[@]}"']], words, index)
    assert.equal(0, rc, err)
    local set = {}
    for word in out:gmatch "%S+" do
      set[word] = true
    end
    return set
  end

  it("knows the commands and their options from the program itself", function()
    local commands = complete(binary .. ' ""', 1)
    assert.is_true(commands.embed and commands.search and commands.run and commands.help)
    assert.same({ search = true }, complete(binary .. " sea", 1))
    assert.is_true(complete(binary .. ' help ""', 2).licenses)
    local options = complete(binary .. " embed --", 2)
    assert.is_true(options["--shard-rows"] and options["--batch-size"])
    assert.same({ ["--shard-rows"] = true }, complete(binary .. " embed --sh", 2))
    assert.is_true(complete(binary .. " embed --provider t", 3).tei)
  end)
end)

describe("the man page", function()
  it("names every option of embed and search", function()
    local f <close> = assert(io.open "scripts/moonpool.1")
    local page = f:read "a":gsub("\\%-", "-")
    for _, name in ipairs { "embed", "search" } do
      local help = moonpool("help " .. name)
      for option in help:gmatch "%-%-[a-z0-9][a-z0-9-]+" do
        assert.truthy(page:find(option, 1, true), option)
      end
    end
  end)
end)
