-- `moonpool classify`, and what it shares with rerank and post: files, pipes, order, errors, signals.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local program = require "program_rig"
local rig = require "client_rig"

-- A TEI server whose label is the text itself. hook as for client_rig.embedder.
local function labeller(hook)
  return rig.serve(function(seen, n, req)
    if seen.path == "/info" then return { json = { max_client_batch_size = 32 } } end
    seen.texts = {}
    for i, text in ipairs(seen.body.inputs) do
      seen.texts[i] = type(text) == "table" and table.concat(text, "+") or text
    end
    local reply = hook and hook(seen, n, req)
    if reply then return reply end
    local rows = {}
    for i, text in ipairs(seen.texts) do
      rows[i] = { { label = "other", score = 0.25 }, { label = text, score = 0.75 } }
    end
    return { json = rows }
  end)
end

local function classify(server, args, input)
  return program.run(("classify --url %s --provider tei %s"):format(server.url, args or ""), input)
end

local function label_of(line)
  return line.labels and line.labels[#line.labels].label
end

local function text_lines(n)
  local list = {}
  for i = 1, n do list[i] = "text " .. i end
  return table.concat(list, "\n") .. "\n", list
end

setup(program.set_up)
teardown(program.tear_down)
after_each(rig.close_all)

describe("moonpool classify", function()
  it("gives each line its labels, in order", function()
    local server = labeller(function(seen)
      moonpool.sleep(0.001 * (tonumber(seen.texts[1]:match "%d+") * 7 % 5))
    end)
    local input, texts = text_lines(500)
    local out, err, rc = classify(server, "--batch-size 8", input)
    assert.equal(0, rc, err)
    local lines = program.lines(out)
    assert.equal(500, #lines)
    for i, line in ipairs(lines) do
      local labels = { { label = "other", score = 0.25 }, { label = texts[i], score = 0.75 } }
      assert.same({ row = i - 1, labels = labels }, line)
    end
    assert.matches("classified 500 rows in .* 64 requests, 0 retries", err)
  end)

  it("keeps the place of lines that are blank, bad or refused, and ends with 3", function()
    local server = labeller(function(seen)
      if seen.texts[1] == "six" then return { status = 400, json = { error = "not that" } } end
    end)
    local out, err, rc = classify(server, "--batch-size 2", "one\n\nthree\r\nbad \xff\n  \nsix")
    assert.equal(3, rc, err)
    local lines, seen = program.lines(out), {}
    for i, line in ipairs(lines) do
      assert.equal(i - 1, line.row)
      seen[i] = label_of(line) or line.error.kind
    end
    assert.same({ "one", "invalid", "three", "invalid", "invalid", "http" }, seen)
    assert.equal(400, lines[6].error.status)
    assert.equal("invalid UTF-8 at byte 5", lines[4].error.message)
    assert.matches("4 rows of 6 failed; the first is row 1: invalid: the line is blank", err)
  end)

  it("reads records with an id, and pairs", function()
    local server = labeller()
    local out, _, rc = classify(server, "--field body --id-field key", [[
{"body":"a","key":"x"}
{"body":["a","b"],"key":2}
{"key":3}
[]
{"body":5}
nonsense
{"body":" "}
]])
    assert.equal(3, rc)
    local lines = program.lines(out)
    assert.same({ "a", "a+b" }, { label_of(lines[1]), label_of(lines[2]) })
    assert.same({ "x", 2, 3 }, { lines[1].id, lines[2].id, lines[3].id })
    for i, message in pairs { [3] = "no field 'body'", [4] = "no field", [5] = "neither a text nor a pair",
      [6] = "expected", [7] = "blank" } do
      assert.matches(message, lines[i].error.message)
    end
  end)

  it("keeps the best labels", function()
    local out = classify(labeller(), "--top 1", "a\n")
    assert.same({ { label = "a", score = 0.75 } }, program.lines(out)[1].labels)
  end)

  it("sends the options of the call", function()
    local server = labeller()
    classify(server, "--raw-scores --truncate", "a\n")
    local body = server.log[#server.log].body
    assert.is_true(body.raw_scores)
    assert.is_true(body.truncate)
  end)

  it("reads JSONL by its name and writes a file of its own", function()
    local path = program.write("in.jsonl", '{"text":"a"}\n{"text":"b"}\n')
    local out, err, rc = classify(labeller(), ("-i %s -o %s/out.jsonl --json"):format(path, program.dir))
    assert.equal(0, rc, err)
    assert.equal(2, #program.lines(program.read "out.jsonl"))
    assert.equal(tonumber("600", 8), core.stat(program.dir .. "/out.jsonl").mode)
    local summary = program.lines(out)[1]
    assert.same({ 2, 0, 2 }, { summary.rows, summary.failed, summary.requests }) -- the other is /info
    assert.equal("", err)
  end)

  it("puts the summary beside the rows when those are on standard output", function()
    local out, err = classify(labeller(), "--json", "a\n")
    assert.equal(1, #program.lines(out))
    assert.equal(1, program.lines(err)[1].rows)
    out, err = classify(labeller(), "--quiet", "a\n")
    assert.equal(1, #program.lines(out))
    assert.equal("", err)
  end)

  it("does not write over results, nor over its input", function()
    local path = program.write("some.txt", "a\n")
    program.write("there.jsonl", "{}\n")
    local server = labeller()
    local _, err, rc = classify(server, ("-i %s -o %s/there.jsonl"):format(path, program.dir))
    assert.equal(1, rc)
    assert.matches("there.jsonl is there already %(choose another file, or %-%-force", err)
    assert.equal("{}\n", program.read "there.jsonl")
    _, err, rc = classify(server, ("-i %s -o %s --force"):format(path, path))
    assert.equal(1, rc)
    assert.matches("also the input", err)
    assert.equal("a\n", program.read "some.txt")
    _, _, rc = classify(server, ("-i %s -o %s/there.jsonl --force"):format(path, program.dir))
    assert.equal(0, rc)
    assert.equal("a", label_of(program.lines(program.read "there.jsonl")[1]))
  end)

  it("makes nothing of nothing", function()
    local out, err, rc = classify(labeller(), "")
    assert.equal(0, rc, err)
    assert.equal("", out)
  end)

  it("passes rows on while its input is quiet", function()
    local server = labeller()
    assert(os.execute(("mkfifo %s/fifo"):format(program.dir)))
    local running <close> = program.start(("classify --url %s --provider tei"):format(server.url),
      ("<>%s/fifo"):format(program.dir))
    local fifo <close> = assert(io.open(program.dir .. "/fifo", "w"))
    for i = 1, 3 do
      fifo:write("line ", i, "\n")
      fifo:flush()
      assert.equal("line " .. i, label_of(assert(moonpool.json.decode(running:line()))))
    end
    running:signal "INT"
    local out, err, rc = running:wait()
    assert.equal(130, rc)
    assert.equal("", out)
    -- The signal may come between the last row's writing and its counting.
    assert.matches("moonpool classify: stopped after [23] rows", err)
  end)

  it("leaves whole lines when it is interrupted in the middle", function()
    local held = 0
    local server = labeller(function(seen)
      if tonumber(seen.texts[1]:match "%d+") > 100 then
        held = held + 1
        moonpool.sleep(60)
      end
    end)
    local input = program.write("many.txt", (text_lines(1000)))
    local running <close> = program.start(
      ("classify --url %s --provider tei -i %s -o %s/cut.jsonl --batch-size 5"):format(
        server.url, input, program.dir))
    rig.until_true("the rows before are written", function()
      local stat = core.stat(program.dir .. "/cut.jsonl")
      return held > 0 and stat and select(2, program.read "cut.jsonl":gsub("\n", "")) == 100
    end)
    running:signal "TERM"
    local _, _, rc = running:wait()
    assert.equal(143, rc)
    local lines = program.lines(program.read "cut.jsonl")
    assert.equal(100, #lines)
    assert.equal("text 100", label_of(lines[100]))
  end)

  it("says what it cannot read, write or understand", function()
    local server = labeller()
    local _, err, rc = classify(server, "-i /nonexistent/x")
    assert.equal(1, rc)
    assert.matches("moonpool classify: /nonexistent/x: No such file", err)
    _, err, rc = classify(server, "-o /nonexistent/x", "a\n")
    assert.equal(1, rc)
    assert.matches("/nonexistent/x: No such file", err)
    _, err, rc = classify(server, "-o /dev/full", "a\n")
    assert.equal(1, rc)
    assert.matches("No space left", err)
    for args, message in pairs {
      ["--top 0"] = "at least 1", ["--header novalue"] = "a header is written 'Name: value'",
      ["--preset big"] = "must be one of", ["--retries=-1"] = "at least 0", ["extra"] = "too many arguments",
      ["--provider opnai"] = "must be one of",
    } do
      local out
      out, err, rc = program.run("classify " .. args)
      assert.equal(2, rc, args)
      assert.equal("", out)
      assert.truthy(err:find(message, 1, true), err)
    end
    _, err, rc = program.run("classify --provider cohere --url " .. server.url, "a\n")
    assert.equal(2, rc)
    assert.matches("'cohere' has no classify call", err)
  end)

  it("needs little memory however many lines there are", function()
    local server <close> = program.start "mock --port 0"
    local url = server:url()
    local path = program.dir .. "/big.txt"
    local f <close> = assert(io.open(path, "w"))
    for i = 1, 100000 do f:write("line ", i, "\n") end
    f:close()
    local running <close> = program.start(("classify --provider tei --url %s -i %s -o %s/big.jsonl")
      :format(url, path, program.dir))
    local peak = 0
    local watch = moonpool.scope(function(scope)
      local rc
      scope:spawn(function()
        rc = select(3, running:wait())
      end)
      while not rc do
        local status = io.open(("/proc/%s/status"):format(running.pid))
        local text = status and status:read "a" or ""
        if status then status:close() end
        peak = math.max(peak, tonumber(text:match "VmHWM:%s*(%d+)") or 0)
        moonpool.sleep(0.01)
      end
      return rc
    end)
    assert.equal(0, watch)
    if not os.getenv "MOONPOOL_SANITIZED" then
      assert.is_true(peak > 0 and peak < 100000, peak)
    end
    local lines = core.open_lines(program.dir .. "/big.jsonl")
    local rows = 0
    for value in function() return lines:json() end do
      assert.equal(rows, value.row)
      rows = rows + 1
    end
    assert.equal(100000, rows)
  end)
end)

describe("options for the endpoint", function()
  it("reach the wire: headers, key, model", function()
    local server = labeller()
    program.write("key", "")
    local _, err, rc = classify(server, "--header 'X-Team: search' --header 'User-Agent: mine/1' "
      .. "--header 'X-Empty:' --api-key-env CANARY_KEY", "a\n")
    assert.equal(2, rc)
    assert.matches("CANARY_KEY is not set", err)
    _, err, rc = classify(server, "--header 'X-Team: search' --header 'User-Agent:mine/1' "
      .. "--header 'Authorization: Bearer canary'", "a\n")
    assert.equal(0, rc, err)
    local headers = server.log[#server.log].headers
    assert.equal("search", headers["x-team"])
    assert.equal("mine/1", headers["user-agent"])
    assert.equal("Bearer canary", headers.authorization)
    assert.is_nil(err:find "canary")
  end)

  it("say how often to try", function()
    local failing = labeller(function() return { status = 503, json = {} } end)
    for _, case in ipairs { { "--retries 0", 1 }, { "--preset none", 1 } } do
      local before = 0
      for _, seen in ipairs(failing.log) do before = before + (seen.path == "/predict" and 1 or 0) end
      local _, _, rc = classify(failing, case[1], "a\n")
      assert.equal(3, rc)
      local after = 0
      for _, seen in ipairs(failing.log) do after = after + (seen.path == "/predict" and 1 or 0) end
      assert.equal(case[2], after - before)
    end
    local once = labeller(function(_, n) if n == 2 then return { status = 500, json = {} } end end)
    local _, err, rc = classify(once, "--retries 1", "a\n")
    assert.equal(0, rc, err)
    assert.matches("1 retry", err)
  end)

  it("bound the requests at once", function()
    for _, command in ipairs { "classify", "rerank", "post --path /predict", "embed" } do
      local now, most = 0, 0
      local server = rig.serve(function(seen)
        if seen.path == "/info" then return { json = { max_client_batch_size = 2 } } end
        now = now + 1
        most = math.max(most, now)
        moonpool.sleep(0.005)
        now = now - 1
        return { status = 400, json = {} }
      end)
      local line = command == "rerank" and '{"query":"q","texts":["a","b","c","d","e"]}\n'
        or '{"inputs":["a"]}\n'
      local where = command == "embed" and ("-i - -o %s/bound --no-dedupe"):format(program.dir) or ""
      local _, _, rc = program.run(("%s --url %s --provider tei --max-concurrent 3 %s %s"):format(command,
        server.url, command:find "post" and "" or "--batch-size 2", where), line:rep(40))
      assert.equal(3, rc)
      assert.equal(3, most, command)
    end
  end)

  it("send a second copy of what is slow", function()
    local first = true
    local server = labeller(function()
      if first then
        first = false
        moonpool.sleep(60)
      end
    end)
    local _, err, rc = classify(server, "--hedge 0.02", "a\n")
    assert.equal(0, rc, err)
    assert.matches("1 hedge", err)
  end)

  it("limit the time of an attempt", function()
    local server = labeller(function() moonpool.sleep(60) end)
    local out, _, rc = classify(server, "--timeout 0.05 --retries 0", "a\n")
    assert.equal(3, rc)
    assert.matches("timeout", program.lines(out)[1].error.kind)
  end)
end)
