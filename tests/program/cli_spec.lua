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

  it("says both names of an option on one line, and breaks paragraphs only where they are full", function()
    local help = moonpool "help embed"
    assert.truthy(help:find("\n   %-i, %-%-input FILE +Input"))
    assert.truthy(help:find("\n       %-%-url URL +Base URL"))
    local paragraph = help:match "\n(OUTDIR gets .-)\n\n"
    local lines = {}
    for line in paragraph:gmatch "[^\n]+" do
      lines[#lines + 1] = line
    end
    for i = 1, #lines - 1 do
      assert.is_true(#lines[i] <= 100, lines[i])
      assert.is_true(#lines[i] + 1 + #lines[i + 1]:match "^%S+" > 100, "broken too early: " .. lines[i])
    end
  end)

  it("fails when what it prints does not get out", function()
    for _, args in ipairs { "help", "--version", "help embed", "run --help" } do
      local _, err, rc = moonpool(args .. " >/dev/full")
      assert.equal(1, rc, args)
      assert.equal("moonpool: standard output could not be written\n", err)
    end
    local path = os.tmpname()
    local f = assert(io.open(path, "w"))
    f:write "print 'much'\n"
    f:close()
    assert.equal(1, select(3, moonpool("run " .. path .. " >/dev/full")))
    os.remove(path)
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

-- Names of all commands, as the help lists them.
local function all_commands()
  local names = {}
  for name in moonpool "help":gmatch "\n   (%l+) " do
    names[#names + 1] = name
  end
  return names
end

-- The long options that a command's help describes.
local function options_of(name)
  local options = {}
  for option in moonpool("help " .. name):gmatch "\n   [^\n]-(%-%-[a-z0-9][a-z0-9-]+)" do
    options[#options + 1] = option
  end
  return options
end

describe("the help", function()
  it("lists every command and ends that of each with examples", function()
    local names = table.concat(all_commands(), " ")
    for _, name in ipairs { "run", "embed", "search", "rerank", "classify", "post", "serve", "mock" } do
      assert.truthy(names:find(name, 1, true), name)
    end
    for _, name in ipairs(all_commands()) do
      if name ~= "help" and name ~= "repl" then
        local help = moonpool("help " .. name)
        assert.truthy(help:find("\nExamples:\n.*moonpool " .. name), name)
      end
    end
  end)
end)

-- The scripts are made by the program from its own options, so they are tested as shells use them.
describe("completion", function()
  local dir

  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir " .. dir))
    for _, shell in ipairs { "bash", "zsh", "fish" } do
      local text, err, rc = moonpool("help completion " .. shell)
      assert.equal(0, rc, err)
      local f <close> = assert(io.open(dir .. "/" .. shell, "w"))
      f:write(text)
    end
    for _, name in ipairs { "job.lua", "other.lua", "notes.txt" } do
      io.open(dir .. "/" .. name, "w"):close()
    end
  end)
  teardown(function()
    os.execute("rm -rf " .. dir)
  end)

  local function set_of(out)
    local set = {}
    for line in out:gmatch "[^\n]+" do
      set[line:match "^[^\t]*"] = true
    end
    return set
  end

  -- Words as bash hands them over; the last of them stands under the cursor.
  local function bash(words, index)
    local out, err, rc = sh([[bash -c 'source %s/bash; cd %s
COMP_WORDS=(%s); COMP_CWORD=%d; _moonpool 2>/dev/null
printf "%%s\n" "${COMPREPLY[@]}"']], dir, dir, words, index)
    assert.equal(0, rc, err)
    return set_of(out)
  end

  local function fish(line)
    local out, err, rc = sh([[cd %s && XDG_CONFIG_HOME=%s XDG_DATA_HOME=%s fish --no-config -c \
      'source %s/fish; complete -C "%s"']], dir, dir, dir, dir, line)
    assert.equal(0, rc, err)
    return set_of(out)
  end

  -- What zsh's own functions are asked for when the cursor stands behind these words.
  local function zsh(words)
    local out, err, rc = sh([[zsh -f -c '
_arguments() { print -rl -- "$@" }; _describe() { print -rl -- "$commands[@]" }
words=(%s) CURRENT=$#words; source %s/zsh']], words, dir)
    assert.equal(0, rc, err)
    return out
  end

  it("is bash's when no shell is named, and refuses others", function()
    assert.equal(moonpool "help completion bash", (moonpool "help completion"))
    local _, err, rc = moonpool "help completion ksh"
    assert.equal(2, rc)
    assert.matches("only for bash, zsh, fish", err)
  end)

  it("knows the commands and what follows them", function()
    local in_bash, in_fish, in_zsh = bash("moonpool ''", 1), fish "moonpool ", zsh 'moonpool ""'
    for _, name in ipairs(all_commands()) do
      assert.is_true(in_bash[name], name)
      assert.is_true(in_fish[name], name)
      assert.truthy(("\n" .. in_zsh):find("\n" .. name .. ":"), name)
    end
    assert.same({ search = true }, bash("moonpool sea", 1))
    assert.is_true(bash("moonpool help ''", 2).licenses)
    assert.is_true(fish("moonpool help lic").licenses)
    assert.is_true(bash("moonpool help completion z", 3).zsh)
  end)

  it("knows every option of every command", function()
    for _, name in ipairs(all_commands()) do
      local in_bash = bash("moonpool " .. name .. " --", 2)
      local in_fish = name ~= "help" and fish("moonpool " .. name .. " --")
      local in_zsh = name ~= "help" and zsh("moonpool " .. name .. " --")
      for _, option in ipairs(name ~= "help" and options_of(name) or {}) do
        assert.is_true(in_bash[option], name .. " " .. option)
        assert.is_true(in_fish[option], name .. " " .. option)
        assert.truthy(in_zsh:find(option:gsub("%-", "%%-") .. "[=%[,]"), name .. " " .. option)
      end
    end
    assert.same({ ["--shard-rows"] = true }, bash("moonpool embed --sh", 2))
  end)

  it("knows the words that an option takes, also behind =", function()
    assert.same({ tei = true }, bash("moonpool embed --provider t", 3))
    assert.same({ tei = true }, bash("moonpool embed --provider = t", 4))
    assert.is_true(bash("moonpool embed --provider =", 3).tei)
    assert.same({ ["--provider=tei"] = true }, bash("moonpool embed --provider=t", 2))
    assert.same({ ["--provider=tei"] = true }, fish "moonpool embed --provider=t")
    assert.same({ POST = true, PUT = true, PATCH = true }, bash("moonpool post -i f --method P", 5))
    assert.same({ POST = true, PUT = true, PATCH = true }, fish "moonpool post -i f --method P")
    assert.matches("%-%-method=%[.-%]:value:%(GET POST PUT ", zsh 'moonpool post ""')
    assert.is_true(bash("moonpool embed --api-key-env PAT", 3).PATH)
    assert.is_true(fish("moonpool embed --api-key-env PAT").PATH)
    assert.same({}, bash("moonpool embed --timeout ''", 3))
    assert.same({ ["notes.txt"] = true }, bash("moonpool embed --input no", 3))
  end)

  it("offers Lua files to run, and for a call only the services that have it", function()
    assert.same({ ["job.lua"] = true, ["other.lua"] = true }, bash("moonpool run ''", 2))
    assert.same({ ["job.lua"] = true, ["other.lua"] = true }, bash("moonpool serve ''", 2))
    assert.is_true(fish("moonpool run ")["job.lua"])
    assert.is_nil(fish("moonpool run n")["notes.txt"])
    assert.truthy(zsh('moonpool run ""'):find('_files -g "*.lua(-.)"', 1, true))
    assert.is_nil(bash("moonpool embed --provider b", 3).bayt)
    assert.is_true(bash("moonpool post --provider b", 3).bayt)
    assert.falsy(moonpool "help embed":find "%f[%a]bayt%f[%A]")
    assert.truthy(moonpool "help post":find "%f[%a]bayt%f[%A]")
  end)
end)

describe("the man page", function()
  it("names every command and every option", function()
    local f <close> = assert(io.open "scripts/moonpool.1")
    local page = f:read "a":gsub("\\%-", "-")
    for _, name in ipairs(all_commands()) do
      assert.truthy(page:find("\n%.BR? " .. name .. "%f[%A]") or name == "repl", name)
      for _, option in ipairs(name ~= "help" and options_of(name) or {}) do
        assert.truthy(page:find(option:gsub("%-", "%%-") .. "%f[^a-z0-9-]"), name .. " " .. option)
      end
    end
  end)
end)
