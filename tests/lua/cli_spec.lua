-- The command line without a process: parsing, help, the endpoint's options, progress, the commands
-- over a client that is a table.

local moonpool = require "moonpool"
local cli = require "moonpool.cli"
local endpoint = require "moonpool.cli.endpoint"
local parser = require "moonpool.cli.parser"
local progress = require "moonpool.progress"

-- A parser over the options of a command, and what it makes of a line of words.
local function parse(name, line)
  local command = assert(cli.command(name))
  local p = parser.new(name, command.summary)
  command.configure(p)
  local words = {}
  for word in line:gmatch "%S+" do
    words[#words + 1] = word
  end
  return parser.parse(p, words)
end

local function stops(code, fragment, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(parser.is_stop(err), tostring(err))
  assert.equal(code, err.code)
  assert.truthy(err.text:find(fragment, 1, true), err.text)
end

describe("the parser", function()
  it("gives typed values", function()
    local args = parse("embed", "-i a.txt -o out --url http://h --batch-size 32 --timeout 1.5 --rpm 600 "
      .. "--tpm 60_000 --hedge 0.25 --max-concurrent 4 --shard-rows 1000 --no-text --json -q")
    assert.equal("a.txt", args.input)
    assert.equal("out", args.output)
    assert.equal(32, args.batch_size)
    assert.equal("integer", math.type(args.batch_size))
    assert.equal(1.5, args.timeout)
    assert.same({ delay = 0.25 }, args.hedge)
    assert.is_true(args.no_text)
    assert.is_true(args.quiet)
    assert.same({ after = "2*p95" }, parse("embed", "-i a -o b --hedge 2*p95").hedge)
  end)

  it("stops with code 2, the usage and the reason", function()
    stops(2, "missing option '-i'", parse, "embed", "-o out")
    stops(2, "Usage: moonpool embed", parse, "embed", "-o out")
    stops(2, "unknown option '--bach-size'", parse, "embed", "-i a -o b --bach-size 3")
    stops(2, "Did you mean '--batch-size'", parse, "embed", "-i a -o b --bach-size 3")
    stops(2, "'0' must be a whole number of at least 1", parse, "embed", "-i a -o b --batch-size 0")
    stops(2, "'1.5' must be a whole number", parse, "embed", "-i a -o b --batch-size 1.5")
    stops(2, "'x' is not a number", parse, "embed", "-i a -o b --timeout x")
    stops(2, "'-1' must be above 0", parse, "embed", "-i a -o b --timeout=-1")
    stops(2, "'nan' is not a number", parse, "embed", "-i a -o b --timeout nan")
    stops(2, "'1e999' is not a number", parse, "embed", "-i a -o b --timeout 1e999")
    stops(2, "for example 2*p95", parse, "embed", "-i a -o b --hedge soon")
    stops(2, "too many arguments", parse, "embed", "-i a -o b c")
    stops(2, "missing argument", parse, "search", "dir")
  end)

  it("stops with code 0 for help, without exiting by itself", function()
    stops(0, "--shard-rows", parse, "embed", "--help")
    stops(0, "Options:", parse, "search", "-h")
  end)
end)

describe("every command", function()
  it("has a name, a summary and a help", function()
    for _, name in ipairs(cli.names) do
      local command = cli.command(name)
      if command then
        assert.equal(name, command.name)
        assert.truthy(#command.summary < 70)
        local text = cli.command_help(command)
        assert.truthy(text:lower():find("usage: moonpool " .. name, 1, true), text)
        for line in text:gmatch "[^\n]+" do
          assert.truthy(#line <= 100, line)
        end
        assert.truthy(cli.help():find("   " .. name .. " ", 1, true))
      end
    end
    assert.is_nil(cli.command "no-such-command")
    assert.is_nil(cli.command "../embed")
  end)
end)

describe("endpoint", function()
  local function options(line)
    local p = parser.new("t", "")
    endpoint.configure(p)
    endpoint.configure_bulk(p)
    local words = {}
    for word in line:gmatch "%S+" do
      words[#words + 1] = word
    end
    return endpoint.options("moonpool t", parser.parse(p, words))
  end

  it("makes a client's options", function()
    assert.same({}, options "")
    assert.same({ base_url = "http://h/v1", provider = "tei", timeout = { attempt = 5 },
      rate = { rpm = 60, tpm = 1000 }, hedge = { delay = 2 } },
      options "--url http://h/v1 --provider tei --timeout 5 --rpm 60 --tpm 1000 --hedge 2")
    assert.equal(os.getenv "PATH", options("--api-key-env PATH").api_key)
    stops(2, "the variable NO_SUCH_VARIABLE_1 is not set", options, "--api-key-env NO_SUCH_VARIABLE_1")
  end)

  it("takes headers, retries, a preset and many connections", function()
    assert.same({ headers = { ["X-A"] = "b:c", ["X-B"] = false }, max_retries = 0, preset = "gateway",
      pool = { max_connections = 500 } },
      options "--header X-A:b:c --header X-B: --retries 0 --preset gateway --max-concurrent 500")
    stops(2, "'Name: value'", options, "--header canary-key")
    local _, err = pcall(options, "--header canary-key")
    assert.is_nil(err.text:find("canary", 1, true))
  end)

  it("gives the client's policy what was asked for", function()
    local core = require "moonpool.core"
    local p = parser.new("t", "")
    endpoint.configure(p)
    endpoint.configure_bulk(p)
    local words = {}
    for word in ("--url http://h --rpm 90 --tpm 5000 --hedge 2*p95 --retries 2"):gmatch "%S+" do
      words[#words + 1] = word
    end
    local client <close> = endpoint.connect("moonpool t", parser.parse(p, words))
    local fields = core.policy_fields(require "moonpool.client.client".state(client).policy)
    assert.same({ 90, 5000, 2, 3 }, { fields["rate.rpm"], fields["rate.tpm"], fields["hedge.factor"],
      fields["retry.max_attempts"] })
    assert.is_true(math.abs(fields["hedge.percentile"] - 0.95) < 1e-9)
  end)

  it("turns what the client refuses into a wrong use", function()
    stops(2, "moonpool t: client: base_url", endpoint.connect, "moonpool t", { url = "ftp://x" })
    stops(2, "provider", endpoint.connect, "moonpool t", { url = "http://x", provider = "opnai" })
    stops(2, "'cohere' has no classify call", endpoint.connect, "moonpool t",
      { url = "http://x", provider = "cohere" }, "classify")
  end)
end)

describe("progress", function()
  it("formats numbers and times", function()
    assert.equal("0", progress.thousands(0))
    assert.equal("999", progress.thousands(999))
    assert.equal("1,000", progress.thousands(1000))
    assert.equal("12,345,678", progress.thousands(12345678))
    assert.equal("0.1 s", progress.duration(0.12))
    assert.equal("1:00", progress.duration(60))
    assert.equal("4:05", progress.duration(245))
    assert.equal("1:02:03", progress.duration(3723))
  end)

  local function bar_at(opts)
    local clock = { t = 100 }
    local written = {}
    opts.now = function() return clock.t end
    opts.out = { flush = function() end }
    function opts.out.write(_, ...)
      written[#written + 1] = table.concat { ... }
    end
    return progress.new(opts), clock, written
  end

  it("shows rows, rate, share, time left, retries and failures", function()
    local bar, clock, written = bar_at { enabled = true, color = false, total_bytes = 1000, width = 100 }
    clock.t = 110
    bar:update { rows = 2500, bytes = 250, retries = 3, failed = 1 }
    assert.equal("\r2,500 rows   250 rows/s   25 %   ETA 30.0 s   3 retries   1 failed\27[K", written[1])
    clock.t = 110.05
    bar:update { rows = 2600, bytes = 260 }
    assert.equal(1, #written)
    clock.t = 130
    bar:update { rows = 6500, bytes = 1000 }
    assert.equal("\r6,500 rows   200 rows/s   100 %   ETA 0.0 s\27[K", written[2])
    bar:clear()
    assert.equal("\r\27[K", written[3])
    bar:clear()
    assert.equal(3, #written)
  end)

  it("leaves out what it does not know, and fits the terminal", function()
    local bar, clock = bar_at { enabled = true, color = false, width = 20 }
    clock.t = 101
    assert.equal("10 rows   10 rows/s", bar:line { rows = 10, bytes = 5 })
    bar.width = 10
    assert.equal("10 rows", bar:line { rows = 10 })
  end)

  it("is said shorter on a narrow terminal, never cut", function()
    local bar, clock = bar_at { enabled = true, color = false, total_bytes = 1000 }
    local state = { rows = 1234567, bytes = 455, retries = 1200, failed = 31 }
    for width, line in pairs {
      [100] = "1,234,567 rows   123,457 rows/s   45 %   ETA 12.0 s   1,200 retries   31 failed",
      [75] = "1,234,567 rows  123,457/s  45 %  ETA 12.0 s  1,200 retries  31 failed",
      [60] = "1,234,567 rows  123,457/s  45 %  ETA 12.0 s  31 failed",
      [50] = "1,234,567 rows  45 %  ETA 12.0 s  31 failed",
      [40] = "1,234,567 rows  45 %  31 failed",
      [20] = "1,234,567 rows",
      [8] = "1,234,5",
    } do
      bar.width, bar.samples, bar.first = width, {}, 1
      clock.t = 110
      assert.equal(line, bar:line(state))
    end
  end)

  it("colours only when asked, and writes nothing when it is off", function()
    local bar, clock, written = bar_at { enabled = true, color = true, width = 100 }
    clock.t = 101
    bar:update { rows = 1, failed = 2 }
    assert.truthy(written[1]:find("\27[31m2 failed\27[0m", 1, true))
    bar, clock, written = bar_at { enabled = false }
    clock.t = 102
    bar:update { rows = 1 }
    bar:clear()
    assert.equal(0, #written)
  end)

  it("keeps few samples however long a job runs", function()
    local bar, clock = bar_at { enabled = true, color = false, width = 80 }
    for i = 1, 5000 do
      clock.t = clock.t + 0.1
      bar:line { rows = i * 10 }
    end
    assert.truthy(#bar.samples < 600)
    assert.truthy(bar:line { rows = 50000 }:find("100 rows/s", 1, true))
  end)
end)

describe("moonpool embed and search over a fake client", function()
  local dir
  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(require "moonpool.core".mkdir(dir))
  end)
  after_each(function() os.execute("rm -rf '" .. dir .. "'") end)

  local fake = setmetatable({
    stats = function() return { requests = 1, attempts = 1, retries = 0, hedges = 0 } end,
    embed = function() return { matrix = moonpool.matrix.from { { 0, 1 } } } end,
  }, { __close = function() end })

  function fake:embed_each(source, opts)
    return function()
      local items, rows = {}, {}
      for item in source do
        items[#items + 1] = item
        local x = tonumber(opts.text(item))
        rows[#rows + 1] = { x, 1 }
        if self.break_at == #items then
          error(self.error, 0)
        end
      end
      if #items > 0 then
        return { first = 1, count = #items, items = items, errors = {}, matrix = moonpool.matrix.from(rows) }
      end
    end
  end

  local function embed(extra)
    local args = { input = dir .. "/in.txt", output = dir .. "/out", quiet = true }
    for k, v in pairs(extra or {}) do
      args[k] = v
    end
    return require "moonpool.cli.embed".run(args, fake)
  end

  before_each(function()
    fake.break_at = nil
    local f <close> = assert(io.open(dir .. "/in.txt", "w"))
    f:write "1\n2\n3\n"
  end)

  it("ends with 0, and has nothing to do the second time", function()
    assert.equal(0, embed { url = "http://h", model = "m" })
    local f <close> = assert(io.open(dir .. "/out/index.json"))
    local index = moonpool.json.decode(f:read "a")
    assert.equal("http://h", index.url)
    assert.equal("m", index.model)
    assert.is_nil(index.api_key)
    fake.break_at, fake.error = 1, moonpool.error("closed", "asked again")
    assert.equal(0, embed { url = "http://h", model = "m" })
    stops(1, "holds another job: the model was 'm' there and is unset now (choose another dir", embed)
    fake.break_at = nil
    assert.equal(0, embed { force = true })
  end)

  it("says what it cannot read", function()
    stops(1, "/nonexistent/in: No such file", embed, { input = "/nonexistent/in" })
  end)

  it("leaves a readable, unfinished directory when it is cut short", function()
    fake.break_at, fake.error = 2, moonpool.error("cancelled", "interrupted")
    local ok, err = pcall(embed)
    assert.is_false(ok)
    assert.equal("cancelled", err.kind)
    local f <close> = assert(io.open(dir .. "/out/index.json"))
    assert.is_false(moonpool.json.decode(f:read "a").complete)
    fake.error = moonpool.error("closed", "the client is closed")
    stops(1, "closed", embed, { force = true })
  end)

  it("refuses to search what is not there", function()
    local run = require "moonpool.cli.search".run
    stops(1, "No such file", run, { dir = dir, query = "q" }, fake)
    fake.break_at, fake.error = 1, moonpool.error("cancelled", "interrupted")
    assert.is_false(pcall(embed))
    stops(1, "has not finished", run, { dir = dir .. "/out", query = "q" }, fake)
  end)
end)
