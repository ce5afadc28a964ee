-- AWS's signatures, against the vectors of its own documentation and test suite.

local moonpool = require "moonpool" -- luacheck: ignore
local sigv4 = require "moonpool.provider.sigv4"
local rig = require "client_rig"

local keys = { access_key_id = "AKIDEXAMPLE", secret_access_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" }
local scope = { region = "us-east-1", service = "service" }
local AT = 1440938160 -- 2015-08-30T12:36:00Z

local function signature(request, more)
  local all = {}
  for k, v in pairs(keys) do all[k] = v end
  for k, v in pairs(more or {}) do all[k] = v end
  request.host = "example.amazonaws.com"
  local headers = sigv4.headers(request, all, scope, AT)
  assert.equal("20150830T123600Z", headers["X-Amz-Date"])
  return headers.Authorization:match "Signature=(%x+)$", headers.Authorization
end

describe("AWS Signature Version 4", function()
  after_each(rig.close_all)

  it("get-vanilla, get-vanilla-query-order-key-case, post-vanilla", function()
    local got, whole = signature { method = "GET", path = "/" }
    assert.equal("5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", got)
    assert.equal("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
      .. "SignedHeaders=host;x-amz-date, Signature=" .. got, whole)
    assert.equal("b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
      signature { method = "GET", path = "/", query = "Param2=value2&Param1=value1" })
    assert.equal("5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
      signature { method = "POST", path = "/" })
  end)

  it("what stands escaped in the path is escaped once more in what is signed", function()
    local once = signature { method = "POST", path = "/model/a%3A0/invoke" }
    local twice = signature { method = "POST", path = "/model/a%253A0/invoke" }
    assert.are_not.equal(once, twice)
    local _, whole = signature({ method = "GET", path = "/" }, { session_token = "token" })
    assert.matches("SignedHeaders=host;x%-amz%-date;x%-amz%-security%-token", whole)
  end)

  it("each attempt is signed anew, over what a hook has made of it, and no message has the secret", function()
    local seen = {}
    local server = rig.serve(function(r, n)
      seen[n] = r
      if n == 1 then return { status = 500, json = { message = "once more" } } end
      return { json = { embedding = { 1, 2 }, inputTextTokenCount = 3 } }
    end)
    local client = rig.client(server, {
      provider = "bedrock", region = "eu-central-1", access_key_id = "AKIDEXAMPLE",
      secret_access_key = "very-secret-access-key",
      before_request = function(view)
        return { headers = { ["X-Mine"] = "yes" }, body = (view.body:gsub("plain", "changed")) }
      end,
    })
    local res = assert(client:embed { input = { "plain" }, model = "amazon.titan-embed-text-v2:0" })
    assert.equal(3, res.usage.total_tokens)
    assert.equal(2, #seen)
    for _, r in ipairs(seen) do
      assert.equal("/model/amazon.titan-embed-text-v2%3A0/invoke", r.path)
      assert.equal('{"inputText":"changed"}', r.text)
      assert.equal("yes", r.headers["x-mine"])
      local y, mo, d, h, mi, s = r.headers["x-amz-date"]:match "(....)(..)(..)T(..)(..)(..)Z"
      local at = require("moonpool.provider.webhook").unix_time(
        ("%s-%s-%sT%s:%s:%sZ"):format(y, mo, d, h, mi, s))
      local want = sigv4.headers({ method = "POST", path = r.path, host = r.headers.host, body = r.text },
        { access_key_id = "AKIDEXAMPLE", secret_access_key = "very-secret-access-key" },
        { region = "eu-central-1", service = "bedrock" }, math.floor(at))
      assert.equal(want.Authorization, r.headers.authorization)
    end
    local bad = rig.client(rig.serve(function()
      return { status = 403, json = { message = "bad very-secret-access-key" } }
    end), { provider = "bedrock", access_key_id = "AKIDEXAMPLE",
      secret_access_key = "very-secret-access-key" })
    local _, err = bad:embed { input = { "a" }, model = "amazon.titan-embed-text-v2:0" }
    assert.is_nil(tostring(err):find "very-secret", tostring(err))
    assert.is_nil((err.body or ""):find "very-secret")
  end)
end)
