-- What a process may be given: the first descriptors closed, few of them, little memory.
local rig = require "program_rig"

describe("a process with", function()
  local mock, url

  setup(function()
    rig.set_up()
    local pipe = assert(io.popen(("echo $$; exec '%s' mock --port 0"):format(rig.binary)))
    mock = { pid = pipe:read "l", pipe = pipe }
    url = assert(pipe:read("l"):match "^listening on (.+)$")
  end)

  teardown(function()
    os.execute("kill -TERM " .. mock.pid)
    mock.pipe:close()
    rig.tear_down()
  end)

  local function texts(n)
    local list = {}
    for i = 1, n do list[i] = "text " .. i end
    return rig.write("texts.txt", table.concat(list, "\n") .. "\n")
  end

  -- Runs a shell command line with %s the call of `moonpool embed` of n texts; status and messages.
  local function embed(shell, n, options)
    local command = ("timeout 60 '%s' embed -i '%s' -o '%s/out' --url %s --model m -q %s"):format(
      rig.binary, texts(n), rig.dir, url, options or "")
    local script = rig.write("run.sh", ("rm -rf '%s/out'\n"):format(rig.dir) .. shell:format(command))
    local _, _, code = os.execute(("sh '%s' 2>'%s/messages'"):format(script, rig.dir))
    return code, rig.read "messages"
  end

  for _, closed in ipairs { "<&-", ">&-", "2>&-", "<&- >&- 2>&-" } do
    it("its descriptors closed (" .. closed .. ") works", function()
      assert.equal(0, (embed("%s " .. closed, 20)))
      assert.matches('"complete":true', rig.read "out/index.json", 1, true)
    end)
  end

  for _, n in ipairs { 100, 40 } do
    it(n .. " descriptors has a pool that leaves some for its output", function()
      local code, messages = embed(("ulimit -n %d; %%s"):format(n), 600, "--batch-size 4")
      assert.equal(0, code, messages)
      assert.equal("", messages)
    end)
  end
end)
