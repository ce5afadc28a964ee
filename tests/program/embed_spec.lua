-- `moonpool embed` and `moonpool search` as whole programs against `moonpool mock`. $MOONPOOL is the
-- binary.

local moonpool = require "moonpool"
local core = require "moonpool.core"
local matrix = require "moonpool.matrix"

local binary = os.getenv "MOONPOOL" or "build/moonpool"
local dir, url, stop

-- Runs a shell command: standard output, standard error, exit code.
local function sh(command, ...)
  local err_path = dir .. "/stderr"
  local f = assert(io.popen(("( %s\n) 2>%s; echo \"rc=$?\""):format(command:format(...), err_path), "r"))
  local text = f:read "a"
  f:close()
  local out, rc = text:match "^(.*)rc=(%d+)\n$"
  local err <close> = assert(io.open(err_path))
  return out, err:read "a", tonumber(rc)
end

-- Starts a server; its URL, and a function that ends it. It says itself when it is ready, and ends
-- with the input of its shell.
local function mock(flags)
  local fifo = os.tmpname()
  os.remove(fifo)
  assert(os.execute("mkfifo " .. fifo))
  local shell = assert(io.popen(("%s mock --port 0 %s >%s 2>%s/mock.err & read x; kill $!; wait $!")
    :format(binary, flags or "", fifo, dir), "w"))
  local out <close> = assert(io.open(fifo))
  local line = out:read "l"
  os.remove(fifo)
  local where = assert(line and line:match "^listening on (http://[%d.]+:%d+)$", line)
  return where, function()
    shell:write "end\n"
    shell:close()
  end
end

local function write(name, text)
  local path = dir .. "/" .. name
  local f <close> = assert(io.open(path, "wb"))
  f:write(text)
  return path
end

local function read(name)
  local f <close> = assert(io.open(dir .. "/" .. name, "rb"))
  return f:read "a"
end

local function embed(args, input)
  return sh("%s embed --url %s --model local-demo -o %s/out %s %s", binary, url, dir, args, input or "")
end

local function index()
  return moonpool.json.decode(read "out/index.json")
end

-- All rows as one list of {vector view, record}.
local function rows()
  local list = {}
  for _, part in ipairs(index().parts) do
    local m = part.npy and assert(matrix.load_npy(dir .. "/out/" .. part.npy))
    local i = 0
    for record, err in moonpool.jsonl.reader(dir .. "/out/" .. part.jsonl) do
      assert.is_nil(err)
      i = i + 1
      list[#list + 1] = { vector = m and m[i], record = record }
      assert.equal(#list - 1, record.row)
    end
    assert.equal(part.rows, i)
  end
  return list
end

-- What the server says of these texts one by one: the truth to compare with.
local function vectors_of(texts)
  local client <close> = moonpool.client { base_url = url }
  return assert(client:embed { input = texts, model = "local-demo", batch_size = 1 }).matrix
end

local function is_nan(row)
  return row[1] ~= row[1]
end

setup(function()
  dir = os.tmpname()
  os.remove(dir)
  assert(core.mkdir(dir))
  url, stop = mock()
end)
teardown(function()
  stop()
  os.execute("rm -rf '" .. dir .. "'")
end)
before_each(function() os.execute("rm -rf '" .. dir .. "/out'") end)

describe("moonpool embed", function()
  it("turns lines into rows in order, over several parts", function()
    local texts = {}
    for i = 1, 250 do
      texts[i] = ("text %d about %s"):format(i, i % 2 == 0 and "cats" or "compilers")
    end
    local path = write("in.txt", table.concat(texts, "\n") .. "\n")
    local out, err, rc = embed("-i " .. path .. " --batch-size 16 --shard-rows 100")
    assert.equal(0, rc, err)
    assert.equal("", out)
    assert.matches("embedded 250 rows %(256 dimensions%)", err)
    assert.is_nil(err:find("\27", 1, true))
    local truth, got = vectors_of(texts), rows()
    assert.equal(250, #got)
    for i, row in ipairs(got) do
      assert.equal(texts[i], row.record.text)
      assert.equal(truth[i], row.vector)
    end
    assert.same({ 100, 100, 50 }, { index().parts[1].rows, index().parts[2].rows, index().parts[3].rows })
    assert.equal("part-00002.npy", index().parts[3].npy)
    assert.is_true(index().complete)
    for name in pairs { ["index.json"] = 1, ["part-00000.npy"] = 1, ["part-00000.jsonl"] = 1 } do
      assert.equal(tonumber("600", 8), core.stat(dir .. "/out/" .. name).mode)
    end
  end)

  it("keeps the place of blank and bad lines, and ends with 3", function()
    local path = write("in.txt", "one\n\nthree\r\nbad \xff utf-8\n   \nsix")
    local _, err, rc = embed("-i " .. path)
    assert.equal(3, rc, err)
    assert.matches("3 rows of 6 failed; the first is row 1: invalid: the line is blank", err)
    local got = rows()
    assert.equal(6, #got)
    for i, row in ipairs(got) do
      local good = i == 1 or i == 3 or i == 6
      assert.equal(good, row.record.error == moonpool.json.null)
      assert.equal(not good, is_nan(row.vector))
    end
    assert.equal("three", got[3].record.text)
    assert.equal("invalid UTF-8 at byte 5", got[4].record.error.message)
    assert.equal(3, index().failed)
  end)

  it("reads JSONL from standard input through a slow pipe", function()
    local _, err, rc = sh([[{ printf '{"body":"one","key":"a"}\n{"bo'
      printf 'dy":"two","key":2}\n{"key":3}\n'; } |
      %s embed --url %s --model m -o %s/out -i - --field body --id-field key]], binary, url, dir)
    assert.equal(3, rc, err)
    local got = rows()
    assert.same({ "a", 2, 3 }, { got[1].record.id, got[2].record.id, got[3].record.id })
    assert.same({ "one", "two" }, { got[1].record.text, got[2].record.text })
    assert.matches("no field 'body'", got[3].record.error.message)
  end)

  it("writes a summary for programs", function()
    local path = write("in.txt", "a\nb\n")
    local out, err, rc = embed("--json --quiet --dimensions 16 -i " .. path)
    assert.equal(0, rc)
    assert.equal("", err)
    local s = assert(moonpool.json.decode(out))
    assert.same({ 2, 0, 16, 1 }, { s.rows, s.failed, s.dimensions, s.requests })
  end)

  it("embeds nothing out of nothing", function()
    local _, err, rc = embed "-i /dev/null"
    assert.equal(0, rc, err)
    assert.equal(0, index().rows)
  end)

  it("ends with 1 and no result when the endpoint refuses everything", function()
    local list = {}
    for i = 1, 1000 do
      list[i] = "text " .. i
    end
    local path = write("in.txt", table.concat(list, "\n"))
    local wrong, wrong_stop = mock "--api-key right"
    local _, err, rc = sh("%s embed --url %s -o %s/out -i %s --batch-size 1", binary, wrong, dir, path)
    local client <close> = moonpool.client { base_url = wrong, api_key = "right" }
    local stats = assert(client:request { method = "GET", path = "/stats" }).data
    wrong_stop()
    assert.equal(1, rc, err)
    assert.matches("nothing succeeded: .*key was refused", err)
    assert.is_nil(core.stat(dir .. "/out"))
    assert.is_true(stats.statuses["401"] < 8)
    _, err, rc = sh("%s embed --url http://127.0.0.1:1 --retries 1 -o %s/out -i %s", binary, dir, path)
    assert.equal(1, rc, err)
    assert.matches("nothing succeeded", err)
    assert.is_nil(core.stat(dir .. "/out"))
  end)

  it("records no key, and takes none in the URL", function()
    local path = write("in.txt", "a\n")
    local _, err, rc = sh("CANARY=canary-key %s embed --url %s --api-key-env CANARY -o %s/out -i %s",
      binary, url, dir, path)
    assert.equal(0, rc, err)
    local _, _, found = sh("grep -rq canary %s/out %s/stderr", dir, dir)
    assert.equal(1, found)
    local with_password = url:gsub("//", "//me:canary-password@")
    _, err, rc = sh("%s embed --url %s -o %s/out2 -i %s", binary, with_password, dir, path)
    assert.equal(2, rc)
    assert.is_nil(err:find "canary")
    assert.is_nil(core.stat(dir .. "/out2"))
  end)

  it("has nothing to do for a job that is done, and refuses another one unless forced", function()
    local path = write("in.txt", "a\nb\n")
    assert.equal(0, (select(3, embed("-i " .. path))))
    local out, err, rc = embed("--json -i " .. path)
    assert.equal(0, rc)
    assert.equal(0, moonpool.json.decode(out).requests)
    assert.matches("holds this job already: 2 rows", err)
    out, err, rc = embed("--dimensions 8 -i " .. path)
    assert.equal("", out)
    assert.equal(1, rc)
    assert.matches("the dimensions was unset there and is 8 now %(choose another dir.*%-%-force", err)
    assert.equal(0, (select(3, embed("--force --dimensions 8 -i " .. path))))
    assert.equal(8, index().dim)
  end)

  it("writes JSON lines to standard output", function()
    local path = write("in.jsonl", '{"text":"a","id":"x"}\n{"other":1}\n{"text":"b"}\n')
    local out, err, rc = sh("%s embed --url %s -o - --dimensions 4 -i %s", binary, url, path)
    assert.equal(3, rc, err)
    local list = {}
    for line in out:gmatch "[^\n]+" do
      list[#list + 1] = moonpool.json.decode(line)
    end
    assert.same({ 0, 1, 2 }, { list[1].row, list[2].row, list[3].row })
    assert.equal("x", list[1].id)
    assert.equal(4, #list[1].vector)
    assert.is_nil(list[2].vector)
    assert.matches("no field 'text'", list[2].error.message)
  end)

  it("says what is wrong with its arguments and ends with 2", function()
    for args, message in pairs {
      ["-o x"] = "missing option '-i'",
      ["-i a"] = "missing option '-o'",
      ["-i a -o b --batch-size none"] = "'none' is not a number",
      ["-i /dev/null -o " .. dir .. "/x --url ftp://x"] = "base_url",
      ["-i /dev/null -o " .. dir .. "/x --api-key-env NO_SUCH_1"] = "NO_SUCH_1 is not set",
    } do
      local out, err, rc = sh("%s embed %s", binary, args)
      assert.equal(2, rc, args)
      assert.equal("", out)
      assert.truthy(err:find(message, 1, true), err)
    end
    local _, err, rc = sh("%s embed -i /nonexistent -o %s/out --url %s", binary, dir, url)
    assert.equal(1, rc)
    assert.matches("/nonexistent: No such file", err)
  end)

  it("survives a server that shuffles, throttles, breaks off and dribbles", function()
    local texts = {}
    for i = 1, 300 do
      texts[i] = "text number " .. i
    end
    local path = write("in.txt", table.concat(texts, "\n"))
    local bad, bad_stop = mock "--shuffle --dribble 700 --error 503:0.05 --reset 0.03 --short 0.02 --seed 3"
    local _, err, rc = sh("%s embed --url %s --model m -o %s/out --batch-size 8 --max-concurrent 8 -i %s",
      binary, bad, dir, path)
    bad_stop()
    assert.equal(0, rc, err)
    local truth, got = vectors_of(texts), rows()
    assert.equal(300, #got)
    for i, row in ipairs(got) do
      assert.equal(truth[i], row.vector)
    end
  end)

  it("leaves a readable directory when it is interrupted", function()
    -- The input never ends, so only the signal ends the job, once the second row is in its file.
    local out = sh([[
cd %s; mkfifo input; exec 3<>input
env --default-signal=INT %s embed --url %s --model local-demo -o out -i input \
  --batch-size 1 --max-concurrent 2 >o 2>e &
pid=$!
for i in 1 2 3 4 5 6 7 8; do echo "text $i" >&3; done
while [ "$(stat -c %%s out/.job/part-00000.npy 2>/dev/null || echo 0)" -lt 2176 ]; do sleep 0.01; done
kill -INT $pid; wait $pid; echo "code $?"; cat e; rm input]],
      dir, binary:match "^/" and binary or "$OLDPWD/" .. binary, url)
    assert.matches("code 130", out)
    assert.matches("marked as unfinished", out)
    assert.is_false(index().complete)
    assert.is_true(index().rows >= 1)
    assert.equal(index().rows, #rows())
    local _, err, rc = embed "-i /dev/null --dimensions 8"
    assert.equal(1, rc)
    assert.matches("holds another job", err)
    local lines = {}
    for i = 1, 8 do
      lines[i] = "text " .. i
    end
    local had = index().rows
    local report
    report, err, rc = embed("--json -i " .. write("in.txt", table.concat(lines, "\n")))
    assert.equal(0, rc, err)
    assert.is_true(moonpool.json.decode(report).asked <= 8 - had)
    assert.equal(8, #rows())
  end)

  it("needs little memory however many rows there are", function()
    local path = dir .. "/many.txt"
    local f <close> = assert(io.open(path, "w"))
    for i = 1, 60000 do
      f:write("row ", i, " of a longer input, with some words to fill the line\n")
    end
    f:close()
    -- a limit of address space, which a sanitizer does not have room under
    local limit = os.getenv "MOONPOOL_SANITIZED" and "" or "ulimit -v 600000; "
    local _, err, rc = sh("%s%s embed --url %s --model m -o %s/out --shard-rows 25000 -i %s",
      limit, binary, url, dir, path)
    assert.equal(0, rc, err)
    assert.equal(60000, index().rows)
  end)
end)

describe("moonpool search", function()
  local function search(args)
    return sh("%s search %s/out %s", binary, dir, args)
  end

  local function prepare()
    local path = write("in.jsonl", [[
{"id":"gz","text":"compress files with gzip"}
{"id":"net","text":"a daemon that watches the network"}
{"id":"zip","text":"archive and\ncompress   files"}
{"id":"cat","text":"pictures of cats"}
]])
    local _, err, rc = embed("-i " .. path)
    assert.equal(0, rc, err)
  end

  it("shows the nearest rows, best first, as a table", function()
    prepare()
    local out, err, rc = search "'compress files' -k 2"
    assert.equal(0, rc, err)
    local lines = {}
    for line in out:gmatch "[^\n]+" do
      lines[#lines + 1] = line
    end
    assert.equal(2, #lines)
    assert.matches("^%d%.%d%d%d%d +%d+  %a+ +", lines[1])
    assert.matches("compress files", lines[1])
    assert.matches("compress files", lines[2])
    assert.is_nil(out:find "network")
  end)

  it("shows them as JSON lines", function()
    prepare()
    local out, _, rc = search "cats --json -k 1"
    assert.equal(0, rc)
    local hit = assert(moonpool.json.decode(out))
    assert.same({ "cat", 3, "pictures of cats" }, { hit.id, hit.row, hit.text })
    assert.is_true(hit.score > 0.3)
  end)

  it("refuses a model of another space unless told otherwise", function()
    local path = write("in.txt", "compress files\ncats\n")
    local _, err, rc = embed("--model voyage-4-large -i " .. path)
    assert.equal(0, rc, err)
    _, err, rc = search "cats --model voyage-3.5"
    assert.equal(1, rc)
    assert.matches("'voyage%-3%.5' and 'voyage%-4%-large' are not known to share a vector space", err)
    _, err, rc = search "cats --model voyage-4-lite"
    assert.equal(0, rc, err)
    _, err, rc = search "cats --model voyage-3.5 --any-space"
    assert.equal(0, rc, err)
  end)

  it("says why it cannot", function()
    local _, err, rc = sh("%s search %s/nowhere q", binary, dir)
    assert.equal(1, rc)
    assert.matches("nowhere/index.json: No such file", err)
    prepare()
    _, err, rc = search "q --dimensions 8"
    assert.equal(1, rc)
    assert.matches("the query has 8 dimensions, the directory 256", err)
    _, err, rc = search "q --url http://127.0.0.1:1 --timeout 1"
    assert.equal(1, rc)
    assert.matches("cannot embed the query", err)
    _, _, rc = search ""
    assert.equal(2, rc)
  end)
end)
