-- The mock's completions, whole and streamed, through our own client; single models; TEI's root.
local moonpool = require "moonpool"

describe("the mock's completions", function()
  local mock, client

  before_each(function()
    mock = assert(moonpool.mock { port = 0, model = "little" })
    client = moonpool.client { base_url = mock.url, retry = false }
  end)

  after_each(function()
    client:close()
    mock:close()
  end)

  local question = { model = "little", messages = { { role = "user", content = "one two  three" } } }

  it("repeat the last message", function()
    local res = assert(client:request { path = "/v1/chat/completions", json = question })
    assert.equal("chat.completion", res.data.object)
    assert.equal("one two  three", res.data.choices[1].message.content)
    assert.equal("stop", res.data.choices[1].finish_reason)
    assert.equal(6, res.data.usage.total_tokens)
    res = assert(client:request { path = "/v1/completions", json = { prompt = "once upon" } })
    assert.equal("once upon", res.data.choices[1].text)
  end)

  it("stream a word at a time, to the end", function()
    local words, last = {}, nil
    local json = { model = "little", messages = question.messages, stream = true }
    for event in assert(client:stream { path = "/v1/chat/completions", json = json }) do
      last = event.json.choices[1]
      words[#words + 1] = last.delta.content
    end
    assert.same({ "one", " two", "  three" }, words)
    assert.equal("stop", last.finish_reason)
    local text = {}
    json = { prompt = "a b", stream = true }
    for event in assert(client:stream { path = "/v1/completions", json = json }) do
      text[#text + 1] = event.json.choices[1].text
    end
    assert.equal("a b", table.concat(text))
  end)

  it("refuse what is no conversation", function()
    for path, json in pairs {
      ["/v1/chat/completions"] = { messages = {} }, ["/v1/completions"] = { prompt = 1 },
    } do
      local _, err = client:request { path = path, json = json }
      assert.equal(400, err.status)
    end
  end)

  it("stand beside single models and TEI's root", function()
    assert.equal("little", assert(client:request { path = "/v1/models/little" }).data.id)
    local _, err = client:request { path = "/v1/models/large" }
    assert.equal(404, err.status)
    assert.equal("model_not_found", err.code)
    local res = assert(client:request { path = "/", json = { inputs = { "a", "b" } } })
    assert.equal(2, #res.data)
  end)
end)
