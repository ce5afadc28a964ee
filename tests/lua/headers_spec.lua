-- Headers are parsed when somebody looks: every way of looking must see them all.
local moonpool = require "moonpool"

local function reply()
  local server <close> = moonpool.serve { listen = "127.0.0.1:0", handler = function()
    return { status = 200, headers = { ["X-One"] = "1", ["X-Two"] = "2" }, json = { ok = true } }
  end }
  local client <close> = moonpool.client { base_url = server.url }
  return assert(client:batch_post { path = "/", payloads = { {}, {} } })
end

describe("the headers of a reply", function()
  it("answer to any case of look: index, pairs, JSON, assignment", function()
    local res = reply()
    assert.equal("1", res[1].headers["x-one"])
    assert.is_nil(res[1].headers["x-none"])
    assert.is_nil(res[1].headers[1])
    local seen = {}
    for k, v in pairs(res[2].headers) do seen[k] = v end
    assert.equal("2", seen["x-two"])
    assert.is_nil(seen[1])
  end)

  it("can be written to before they were read", function()
    local res = reply()
    res[1].headers["x-mine"] = "m"
    assert.equal("1", res[1].headers["x-one"])
    assert.equal("m", res[1].headers["x-mine"])
    assert.equal(0, #res[2].headers)
  end)

  it("become JSON with the rest of the row", function()
    local res = reply()
    local text = assert(moonpool.json.encode(res[1]))
    local back = assert(moonpool.json.decode(text))
    assert.equal("1", back.headers["x-one"])
    assert.equal("application/json", back.headers["content-type"])
  end)
end)
