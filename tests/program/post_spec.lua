-- `moonpool post`: JSON lines to any API, and OpenAI's Batch format.

local moonpool = require "moonpool"
local json = moonpool.json
local program = require "program_rig"
local rig = require "client_rig"

-- Answers with what it got.
local function echo(hook)
  return rig.serve(function(seen, n)
    local reply = hook and hook(seen, n)
    return reply or { json = { got = seen.body, path = seen.path, method = seen.method } }
  end)
end

local function post(server, args, input)
  return program.run(("post --url %s %s"):format(server.url, args or ""), input)
end

setup(program.set_up)
teardown(program.tear_down)
after_each(rig.close_all)

describe("moonpool post", function()
  it("sends each line and gives the replies in order", function()
    local server = echo(function(seen) moonpool.sleep(0.001 * (seen.body.n * 7 % 5)) end)
    local input = {}
    for i = 1, 300 do
      input[i] = json.encode { n = i, custom_id = i % 3 == 0 and "c" .. i or nil }
    end
    local out, err, rc = post(server, "--path /some/where", table.concat(input, "\n"))
    assert.equal(0, rc, err)
    local lines = program.lines(out)
    assert.equal(300, #lines)
    for i, line in ipairs(lines) do
      assert.same({ i - 1, 200, i }, { line.row, line.status, line.data.got.n })
      assert.equal(i % 3 == 0 and "c" .. i or nil, line.custom_id)
      assert.equal("/some/where", line.data.path)
      assert.equal("number", type(line.time))
    end
    assert.equal(300, #server.log)
    assert.matches("sent 300 rows .* 300 requests", err)
  end)

  it("sends bodies byte for byte", function()
    local body = '{"z":1.0,"a":[18446744073709551615, 1e2],"z":2,"m":{"b":1,"a":0.10}}'
    local server = echo()
    local _, err, rc = post(server, "--path /x", "  " .. body .. " \n")
    assert.equal(0, rc, err)
    assert.equal(body, server.log[1].text)
    _, err, rc = post(server, "--batch-format",
      '{"custom_id":"1", "url":"/y","method":"POST", "body": ' .. body .. ' }\n')
    assert.equal(0, rc, err)
    assert.equal(body, server.log[2].text)
    assert.matches("json", server.log[2].headers["content-type"])
  end)

  it("sends every kind of JSON as it is", function()
    local server = echo()
    local values = {
      '{"a":[1,2.5,null,{}]}', '"text"', "5", "true", "null", "[]", "{}", '[{"b":"\\u00e9"}]',
    }
    local out, err, rc = post(server, "--path /x", table.concat(values, "\n"))
    assert.equal(0, rc, err)
    assert.equal(#values, #program.lines(out))
    local sent = {}
    for _, seen in ipairs(server.log) do
      sent[seen.text] = true
      assert.matches("^application/json", seen.headers["content-type"])
    end
    for i, value in ipairs(values) do
      assert.is_true(sent[value], i)
    end
  end)

  it("takes a method and headers", function()
    local server = echo()
    local out, _, rc = post(server, "--path items --method PUT --header 'X-Team: search'", '{"a":1}\n')
    assert.equal(0, rc)
    assert.equal("PUT", program.lines(out)[1].data.method)
    assert.equal("/items", server.log[1].path)
    assert.equal("search", server.log[1].headers["x-team"])
  end)

  it("keeps the place of lines that are bad or refused, and says what the service said", function()
    local server = echo(function(seen)
      if seen.body.n == 2 then return { status = 422, json = { detail = "not 2" } } end
      if seen.body.n == 3 then return { status = 404, body = "nowhere" } end
      if seen.body.n == 4 then return "just text" end
      if seen.body.n == 5 then return { status = 204 } end
    end)
    local out, err, rc = post(server, "--path /x",
      '{"n":1}\n{"n":2,"custom_id":9}\n{"n":3}\n\n{nonsense\n{"n":4}\n{"n":5}\n')
    assert.equal(3, rc, err)
    local lines = program.lines(out)
    assert.equal(7, #lines)
    assert.same({ 422, "http", { detail = "not 2" } },
      { lines[2].error.status, lines[2].error.kind, lines[2].error.body })
    assert.equal(9, lines[2].custom_id)
    assert.equal("nowhere", lines[3].error.body)
    assert.equal("invalid", lines[4].error.kind)
    assert.equal("decode", lines[5].error.kind)
    assert.same({ "just text", 204 }, { lines[6].data, lines[7].status })
    assert.matches("4 rows of 7 failed; the first is row 1: http", err)
  end)

  it("speaks the format of OpenAI's Batch API", function()
    local server = echo(function(seen)
      if seen.body and seen.body.bad then return { status = 400, json = { error = { message = "bad" } } } end
    end)
    local out, err, rc = post(server, "--batch-format", [[
{"custom_id":"a","method":"POST","url":"/v1/one","body":{"n":1}}
{"custom_id":"b","method":"POST","url":"/v1/two","body":{"bad":true}}
{"custom_id":"c","method":"PUT","url":"/v1/three","body":{"n":3}}
{"custom_id":"d","url":"http://elsewhere/","body":{}}
{"custom_id":"e","url":"/v1/five"}
{"custom_id":"f","method":"STEAL","url":"/v1/six","body":{}}
{"custom_id":"g","body":{}}
nonsense
]])
    assert.equal(3, rc, err)
    local lines = program.lines(out)
    assert.equal(8, #lines)
    local ids = {}
    for i, line in ipairs(lines) do ids[i] = line.custom_id end
    assert.same({ "a", "b", "c", "d", "e", "f", "g", json.null }, ids)
    assert.equal(json.null, lines[1].error)
    assert.equal(200, lines[1].response.status_code)
    assert.same({ got = { n = 1 }, path = "/v1/one", method = "POST" }, lines[1].response.body)
    assert.equal("string", type(lines[1].response.request_id))
    assert.equal(400, lines[2].response.status_code)
    assert.equal("bad", lines[2].response.body.error.message)
    assert.same({ got = { n = 3 }, path = "/v1/three", method = "PUT" }, lines[3].response.body)
    for i, message in pairs { [4] = "'url' is no path", [5] = "no field 'body'", [6] = "'method' is no HTTP",
      [7] = "no field 'url'", [8] = "expected" } do
      assert.equal(json.null, lines[i].response)
      assert.matches(message, lines[i].error.message)
    end
    assert.equal(3, #server.log)
    out = post(server, "--batch-format --path /default", '{"custom_id":"g","body":{}}\n')
    assert.equal("/default", program.lines(out)[1].response.body.path)
  end)

  it("tells of a service that is not there, line by line", function()
    local args = ("post --path /x --url %s --retries 0"):format(rig.dead_url())
    local out, err, rc = program.run(args, "{}\n{}\n")
    assert.equal(3, rc, err)
    for i, line in ipairs(program.lines(out)) do
      assert.same({ i - 1, "connect" }, { line.row, line.error.kind })
    end
  end)

  it("needs a path", function()
    local _, err, rc = program.run("post --url http://127.0.0.1:1", "{}\n")
    assert.equal(2, rc)
    assert.matches("missing option '%-%-path'", err)
    assert.equal(2, (select(3, program.run "post --path /x --method STEAL")))
  end)

  it("holds no more than its requests at once, whatever the input", function()
    local server = echo()
    local pulled = {}
    for i = 1, 2000 do pulled[i] = ('{"n":%d,"fill":"%s"}'):format(i, ("x"):rep(100)) end
    local out, _, rc = post(server, "--path /x --max-concurrent 2 -q", table.concat(pulled, "\n"))
    assert.equal(0, rc)
    assert.equal(2000, #program.lines(out))
    assert.is_true(server:stats().connections_opened <= 3)
  end)
end)
