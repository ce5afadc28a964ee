-- The prompt, driven as people drive it: through a terminal (tmux), and through a pipe.
local core = require "moonpool.core"
local rig = require "program_rig"

local PATIENCE = 20 -- seconds for something to appear on the screen

describe("moonpool repl", function()
  local mock, url, socket
  local sessions = 0

  local function shell(command)
    local pipe = assert(io.popen(command .. " 2>&1"))
    local text = pipe:read "a"
    return text, select(3, pipe:close())
  end

  setup(function()
    rig.set_up()
    local pipe = assert(io.popen(("echo $$; exec '%s' mock --port 0"):format(rig.binary)))
    mock = { pid = pipe:read "l", pipe = pipe }
    url = assert(pipe:read("l"):match "^listening on (.+)$")
    socket = rig.dir .. "/tmux"
  end)

  teardown(function()
    shell(("tmux -S '%s' kill-server"):format(socket))
    os.execute("kill -TERM " .. mock.pid)
    mock.pipe:close()
    rig.tear_down()
  end)

  -- ---- through a pipe ------------------------------------------------------------------------------------

  -- Runs `moonpool repl` with that input: standard output, standard error, exit code.
  local function piped(input, options)
    local path = rig.write("input", input)
    local pipe = io.popen(("HOME='%s' timeout 60 '%s' repl %s < '%s' 2>'%s/err'"):format(rig.dir, rig.binary,
      options or "", path, rig.dir))
    local out = pipe:read "a"
    local _, _, code = pipe:close()
    return out, rig.read "err", code or 0
  end

  it("prints the values of expressions, keeps locals and _, and waits in place", function()
    local out, err, code = piped [[
local a, b = 20, 1
a + b * 2
_ + 1
local function inc() a = a + 1 return a end
inc()
a
moonpool.sleep(0.001)
for i = 1, 2 do
  print("line", i)
end
local held <close> = setmetatable({}, { __close = function() print "closed at the end" end })
"two", 3
"last"
]]
    assert.equal("22\n23\n21\n21\nline\t1\nline\t2\n\"two\"\n3\n\"last\"\nclosed at the end\n", out)
    assert.equal("", err)
    assert.equal(0, code)
  end)

  it("goes on after an error, tells it on standard error, and exits with 1", function()
    local out, err, code = piped "1\nnosuch.field\nx = )\nerror { kind = 'mine' }\n2\n"
    assert.equal("1\n2\n", out)
    assert.matches("attempt to index a nil value (global 'nosuch')", err, 1, true)
    assert.matches("unexpected symbol near ')'", err, 1, true)
    assert.is_nil(err:find("lua/moonpool/", 1, true))
    assert.equal(1, code)
    assert.equal(1, select(3, piped "function f(\n"))
  end)

  it("has a client, shows its results for people, and its errors with their facts", function()
    local out, err, code = piped([[
client:embed { input = { "a", "b" } }
#_
client:embed { inputs = {} }
client:request { path = "/nowhere" }
]], "--url " .. url .. " --model m --retries 0")
    assert.matches("result: 2 rows, all well", out, 1, true)
    assert.matches("matrix 2 x 256, float32, 2,048 bytes", out, 1, true)
    assert.matches("\n2\n", out, 1, true)
    assert.matches("did you mean 'input'?", err, 1, true)
    assert.matches("status      404", err, 1, true)
    assert.equal(1, code)
  end)

  it("cuts long tables and strings, and shows more when asked", function()
    local out = piped [[
local t = {} for i = 1, 100 do t[i] = i end
t
show(t)
("x"):rep(1000)
{ 1, { 2, { 3, { 4, { 5 } } } } }
]]
    assert.matches(".. 88 more: show(_, N)", out, 1, true)
    assert.matches("99, ?\n? *100", out)
    assert.matches("(1,000 bytes)", out, 1, true)
    assert.matches("{ 1, { 2, { 3, { 4, {..} } } } }", out, 1, true)
  end)

  it("explains options from the tables that check them, and what is a command", function()
    local out, _, code = piped ":help\n:help retry\n:help embed\n:help time\n"
    for _, words in ipairs {
      ":connect URL", "max_attempts", "batch_size", ":time [N] EXPR", "number expected",
    } do
      assert.is_truthy(out:find(words, 1, true), words)
    end
    assert.equal(0, code)
    local _, err = piped ":helb\n"
    assert.matches("did you mean :help?", err, 1, true)
  end)

  it("measures, plots, lists tasks", function()
    local out = piped([[
:time 10 client:embed { input = "q" }
:plot { 1, 2, 2, 3, 3, 3 }
local m = moonpool.matrix.from { { 0, 0, 1 }, { 0, 1, 0 }, { 5, 0, 0 } }
:plot m
local channel = moonpool.channel(1)
local waiting = spawn(function() local value = channel:get() return value end)
moonpool.sleep(0.001)
:tasks
channel:put "value"
waiting:await()
:tasks
]], "--price 2 --url " .. url .. " --model m")
    assert.matches("10 runs: median", out, 1, true)
    assert.matches("10 requests, 10 tokens, 0 retries, 0.000020 USD", out, 1, true)
    assert.matches("6 numbers: median 2, p99 3", out, 1, true)
    assert.matches("3 of 3 rows by their first two principal components: 100 %", out, 1, true)
    assert.matches("waiting  get +at stdin:1 +spawned at stdin:1", out)
    assert.matches('"value"\nno tasks in the background', out, 1, true)
  end)

  it("connects, saves the session as a script that runs, and loads one", function()
    local saved = rig.dir .. "/session.lua"
    local out, err = piped((":connect %s m\nlocal n = #client:embed { input = { 'a', 'b' } }\nbroken(\n)\n"
      .. "n * 2\n:save %s\n"):format(url, saved))
    assert.matches("2 chunks are in", out .. err, 1, true)
    local again = shell(("timeout 60 '%s' run '%s'"):format(rig.binary, saved))
    assert.equal("4\n", again)
    assert.equal("8\n", piped((":load %s\nn * 4\n"):format(saved)):match "\n(.*)$")
  end)

  -- ---- on a terminal ------------------------------------------------------------

  local function tmux(...)
    local words = { ("tmux -S '%s'"):format(socket) }
    for _, word in ipairs { ... } do
      words[#words + 1] = "'" .. word:gsub("'", "'\\''") .. "'"
    end
    return shell(table.concat(words, " "))
  end

  local function screen()
    return (tmux("capture-pane", "-p", "-S", "-300"):gsub("%s+$", ""))
  end

  -- Waits until the screen matches; the screen.
  local function see(pattern, plain)
    local deadline = core.now() + PATIENCE
    repeat
      local shown = screen()
      if shown:find(pattern, 1, plain ~= false) then return shown end
    until core.now() > deadline
    error("not seen: " .. pattern .. "\n--- the screen:\n" .. screen(), 2)
  end

  local function open(options, size, environment)
    -- Each its own server: one that is killed goes in its own time.
    shell(("tmux -S '%s' kill-server"):format(socket))
    sessions = sessions + 1
    socket = ("%s/tmux%d"):format(rig.dir, sessions)
    tmux("-f", "/dev/null", "new-session", "-d", "-x", tostring(size or 90), "-y", "50",
      ("env MOONPOOL_HISTORY='%s/history' LANG=C.UTF-8 %s '%s' repl %s; echo ended $?; exec cat"):format(
        rig.dir, environment or "", rig.binary, options or ""))
    see(">%s*$", false)
  end

  local function keys(...) tmux("send-keys", ...) end
  local function text(line) tmux("send-keys", "-l", line) end

  it("edits a line, remembers it, finds it again", function()
    open()
    text "local n = 40 + 3"
    keys("BSpace", "2", "Enter")
    text "n"
    keys "Enter"
    see "> n\n42"
    keys("Up", "Up", "Home", "C-k")
    text "#'abc'"
    keys "Enter"
    see "> #'abc'\n3"
    keys "C-r"
    text "40"
    see "(search) '40': local n = 40 + 2"
    keys("C-e", "BSpace", "8", "Enter")
    text "n * 10"
    keys "Enter"
    see "480"
    keys "C-d"
    see "ended 0"
    assert.equal("600\n", shell(("stat -c %%a '%s/history'"):format(rig.dir)):gsub("^(%d+)", "%1"))
  end)

  it("keeps no line with a key in it", function()
    open()
    text "local c = moonpool.client { base_url = 'http://127.0.0.1:9', api_key = 'abcdefgh12345' }"
    keys "Enter"
    text "'sk-test-0123456789'"
    keys "Enter"
    text "'harmless'"
    keys "Enter"
    see "\"harmless\""
    keys "C-d"
    see "ended 0"
    local kept = rig.read "history"
    assert.matches("harmless", kept, 1, true)
    assert.is_nil(kept:find("12345", 1, true))
  end)

  it("completes globals, fields, methods, options and commands", function()
    open("--url " .. url .. " --model m")
    text "moonp"
    keys "Tab"
    see "> moonpool"
    text ".semap"
    keys "Tab"
    see "> moonpool.semaphore"
    keys "C-u"
    text "client:classi"
    keys "Tab"
    see "> client:classify"
    keys "C-u"
    text "moonpool.client { user_a"
    keys "Tab"
    see "> moonpool.client { user_agent ="
    keys "C-u"
    text "moonpool.client { retry = { respect"
    keys "Tab"
    see "respect_retry_after ="
    keys "C-u"
    text ":sta"
    keys "Tab"
    see "> :stats"
    keys "C-u"
    text "local mine_alone = 1"
    keys "Enter"
    text "mine_a"
    keys "Tab"
    see "> mine_alone"
    keys "C-u"
    text "client:e"
    keys("Tab", "Tab")
    see("embed .*embed_each", false)
  end)

  it("runs a paste of 200 lines as one chunk", function()
    open()
    local lines = { "local t = {}" }
    for i = 1, 198 do lines[#lines + 1] = ("t[%d] = %d"):format(i, i) end
    lines[#lines + 1] = "print('sum', #t)"
    local paste = rig.write("paste", table.concat(lines, "\n") .. "\n#t +")
    tmux("load-buffer", paste)
    tmux("paste-buffer", "-p")
    see "sum     198\n> #t +"
    text " 1"
    keys "Enter"
    see "> #t + 1\n199"
  end)

  it("stops what waits and what spins at Ctrl+C, and lives on", function()
    open()
    text "print 'sleeping' moonpool.sleep(300)"
    keys "Enter"
    see "\nsleeping"
    keys "C-c"
    see "interrupted\n>"
    text "print 'spinning' while true do end"
    keys "Enter"
    see "\nspinning"
    keys "C-c"
    see("spinning\n%^?C?interrupted\n>", false)
    text "never finished"
    keys "C-c"
    text "6 * 7"
    keys "Enter"
    see "> 6 * 7\n42"
  end)

  it("leaves the typed line whole while tasks print", function()
    open()
    text "stop = false"
    keys "Enter"
    text "spawn(function() local i = 0 while not stop do i = i + 1 "
    text "print('print', i) moonpool.sleep(0.01) end end)"
    keys "Enter"
    see "print   3"
    local typed = {}
    for i = 1, 200 do
      typed[i] = ("%d,"):format(i % 10)
      text(typed[i])
    end
    -- The line is wider than the screen: 90 columns less the prompt on the first row.
    local line = ("> " .. table.concat(typed)):gsub(("."):rep(90), "%0\n")
    local before = tonumber(see(line):match "print   (%d+)\n> [%d,\n]*$")
    local after = see("print   " .. before + 20)
    assert.equal(line, after:match "> [%d,\n]*$")
    keys "C-u"
    text "stop = true"
    keys "Enter"
    text "'still here'"
    keys "Enter"
    see '"still here"'
  end)

  it("works in 40 columns", function()
    open(nil, 40)
    text "local long_name = 'a string that is wider than the whole terminal is'"
    keys "Enter"
    text "#long_name"
    keys "Enter"
    see "> #long_name\n49"
    text "spawn(function() moonpool.sleep(0.05) print 'hello from behind' end)"
    keys "Enter"
    text "one two three four five six seven eight nine ten eleven"
    see "hello from behind\n> one two three four five six seven eigh\nt nine ten eleven"
  end)

  it("needs no terminal that can edit", function()
    open(nil, 80, "TERM=dumb")
    text "1 + 1"
    keys "Enter"
    see "> 1 + 1\n2\n>"
    text "for i = 1, 2 do"
    keys "Enter"
    text "print(i) end"
    keys "Enter"
    see ".. print(i) end\n1\n2\n>"
    keys "C-d"
    see "ended 0"
  end)
end)
