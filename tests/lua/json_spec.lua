-- moonpool.json: strictness, exact numbers, and errors that say where.

require "moonpool"
local json = require "moonpool.json"

local function refused(text)
  local value, err = json.decode(text)
  assert.is_nil(value)
  assert.is_string(err)
  return err
end

local function unwritable(value, opts)
  local text, err = json.encode(value, opts)
  assert.is_nil(text)
  return err
end

describe("json.decode", function()
  it("keeps integers that fit as integers, and makes the others floats", function()
    for text, want in pairs {
      ["0"] = 0, ["-7"] = -7, ["9007199254740993"] = 9007199254740993,
      ["9223372036854775807"] = math.maxinteger, ["-9223372036854775808"] = math.mininteger,
    } do
      local got = json.decode(text)
      assert.equal("integer", math.type(got), text)
      assert.equal(want, got)
    end
    assert.equal(0x1p63, json.decode "9223372036854775808")
    assert.equal("float", math.type(json.decode "1.0"))
    assert.equal("float", math.type(json.decode "1e3"))
    assert.equal(-math.huge, 1 / json.decode "-0")
  end)

  it("rounds every double right", function()
    local seed = tonumber(os.getenv "SEED") or os.time()
    print("# seed " .. seed)
    math.randomseed(seed)
    local n = 0
    while n < 20000 do
      local d = string.unpack("d", string.pack("j", math.random(0)))
      if d == d and d ~= math.huge and d ~= -math.huge then
        n = n + 1
        assert.equal(d, json.decode(("%.17g"):format(d)))
        assert.equal(d, json.decode(("%.25e"):format(d)))
        assert.equal(d, json.decode(json.encode(d)))
      end
    end
    assert.equal(5e-324, json.decode "4.9e-324")
    assert.equal(0.0, json.decode "1e-400")
    assert.equal(2.2250738585072011e-308, json.decode "2.2250738585072011e-308")
    assert.equal(1.0, json.decode("0." .. ("0"):rep(400) .. "1e401"))
  end)

  it("does not depend on the locale", function()
    local old = os.setlocale()
    for _, name in ipairs { "de_DE.UTF-8", "fr_FR.UTF-8", "C" } do
      if os.setlocale(name) then
        assert.equal(1.5e300, json.decode "1.5e300")
        assert.equal("[1.5]", json.encode { 1.5 })
      end
    end
    os.setlocale(old)
  end)

  it("reads strings with every escape", function()
    assert.equal('a"\\/\b\f\n\r\tz', json.decode [["a\"\\\/\b\f\n\r\tz"]])
    assert.equal("é€\u{1F600}\0", json.decode [["\u00e9\u20AC\ud83d\ude00\u0000"]])
    assert.equal("grün 日本 \u{10FFFF}", json.decode '"grün 日本 \u{10FFFF}"')
    for length = 0, 40 do
      local text = ("x"):rep(length)
      assert.equal(text .. "\n" .. text, json.decode('"' .. text .. "\\n" .. text .. '"'))
      assert.equal(text .. "é", json.decode('"' .. text .. 'é"'))
    end
  end)

  it("reads tables of every size", function()
    for _, n in ipairs { 0, 1, 2, 15, 16, 17, 31, 32, 33, 64, 1000 } do
      local list, object = {}, {}
      for i = 1, n do
        list[i] = tostring(i)
        object[i] = ('"k%d":%d'):format(i, i)
      end
      local got = json.decode("[" .. table.concat(list, ",") .. "]")
      assert.equal(n, #got)
      for i = 1, n do
        assert.equal(i, got[i])
      end
      got = json.decode("{" .. table.concat(object, " , ") .. "}")
      local count = 0
      for key, value in pairs(got) do
        assert.equal("k" .. value, key)
        count = count + 1
      end
      assert.equal(n, count)
    end
  end)

  it("gives null a value, and the last of equal keys", function()
    assert.equal(json.null, json.decode "null")
    assert.equal(json.null, json.decode '{"a":null}'.a)
    assert.equal(2, json.decode '{"a":1,"b":0,"a":2}'.a)
    local pairs_text = {}
    for i = 1, 40 do
      pairs_text[i] = ('"a":%d'):format(i)
    end
    assert.equal(40, json.decode("{" .. table.concat(pairs_text, ",") .. "}").a)
  end)

  it("refuses what is not JSON and says where", function()
    local cases = {
      { "", "line 1, column 1 (byte 1): the text is empty" },
      { "  ", "the text is empty" },
      { "[1,]", "line 1, column 4 (byte 4): expected a value" },
      { "[1 2]", "expected ',' or ']'" },
      { '{"a"}', "expected ':'" },
      { '{"a":1,}', "expected a key in quotes" },
      { "{1:2}", "expected a key in quotes" },
      { '{\n  "a": 1,\n  "b" 2\n}', "line 3, column 7 (byte 19): expected ':'" },
      { "[1] 2", "line 1, column 5 (byte 5): something follows the document" },
      { "01", "a number may not begin with 0" }, { "-", "the text ends too early" },
      { "1.", "the text ends too early" }, { "1.x", "a digit must follow the decimal point" },
      { "1e", "the text ends too early" }, { "+1", "expected a value" }, { ".5", "expected a value" },
      { "1e999", "the number is out of range" }, { "-1e999", "the number is out of range" },
      { "NaN", "expected a value" }, { "Infinity", "expected a value" }, { "nul", "expected a value" },
      { '"abc', "the string never ends" }, { '"abc\\', "the string never ends" },
      { '"a\tb"', "a control character in a string must be escaped" },
      { '"\\x41"', "unknown escape" }, { '"\\u12"', "\\u needs four hexadecimal digits" },
      { '"\\ud800"', "half of a surrogate pair" }, { '"\\udc00"', "half of a surrogate pair" },
      { '"\\ud800\\u0041"', "half of a surrogate pair" },
      { '"abc\xff"', "line 1, column 5 (byte 5): invalid UTF-8" },
      { '"\xc0\xaf"', "invalid UTF-8" }, { '"\xed\xa0\x80"', "invalid UTF-8" },
      { '"\xf4\x90\x80\x80"', "invalid UTF-8" }, { "'a'", "expected a value" },
      { '{"a":1', "the text ends too early" }, { "[", "the text ends too early" },
      { "\u{FEFF}1", "expected a value" }, { "1\0", "something follows the document" },
    }
    for _, case in ipairs(cases) do
      local err = refused(case[1])
      assert.truthy(err:find(case[2], 1, true), ("%q: %s"):format(case[1], err))
    end
  end)

  it("bounds the depth", function()
    assert.is_table(json.decode(("["):rep(512) .. ("]"):rep(512)))
    assert.matches("nested deeper than 512", refused(("["):rep(513) .. ("]"):rep(513)))
    assert.matches("nested deeper than 512", refused(('{"a":'):rep(100000)))
  end)

  it("survives every cut and every changed byte of a document", function()
    local document = [==[{"a":[1,-2e3,"x\u00e9\n\ud83d\ude00",null,true,false,{}],"b":{"c":[[]]},"ü":"€"}]==]
    assert.is_table(json.decode(document))
    for i = 0, #document - 1 do
      refused(document:sub(1, i))
      for _, byte in ipairs { "\0", '"', "\\", "{", "]", "9", "\xff", " " } do
        local value, err = json.decode(document:sub(1, i) .. byte .. document:sub(i + 2))
        assert.truthy(value ~= nil or err)
      end
    end
  end)

  it("raises only for what is not a string", function()
    assert.has_error(function() json.decode(nil) end)
    assert.has_error(function() json.decode {} end)
  end)
end)

describe("json.encode", function()
  it("writes compact text", function()
    assert.equal('{"a":[1,2.5,"x",true,null]}', json.encode { a = { 1, 2.5, "x", true, json.null } })
    assert.equal("9223372036854775807", json.encode(math.maxinteger))
    assert.equal("-9223372036854775808", json.encode(math.mininteger))
    assert.equal("0.1", json.encode(0.1))
    assert.equal("null", json.encode(nil))
    assert.equal('"\\u0000\\n\\"é"', json.encode "\0\n\"é")
  end)

  it("tells lists from objects", function()
    assert.equal("{}", json.encode {})
    assert.equal("[]", json.encode(json.array()))
    assert.equal("[]", json.encode(json.array {}))
    assert.equal("{}", json.encode(json.object {}))
    assert.equal("[[]]", json.encode(json.decode "[[]]"))
    assert.equal("[1,2,3]", json.encode { [3] = 3, [1] = 1, [2] = 2 })
    local from_hash = {}
    for i = 100, 1, -1 do
      from_hash[i] = i
    end
    assert.same(from_hash, json.decode(json.encode(from_hash)))
  end)

  it("sorts keys when asked, so equal values give equal text", function()
    local value = { b = 1, a = { z = 1, y = 2 }, c = { 1, { k = 1, j = 2 } } }
    assert.equal('{"a":{"y":2,"z":1},"b":1,"c":[1,{"j":2,"k":1}]}', json.encode(value, { sort_keys = true }))
  end)

  it("names the path of what has no JSON form", function()
    local loop = {}
    loop.a = { loop }
    local deep = {}
    for _ = 1, 200 do
      deep = { deep }
    end
    local cases = {
      { { items = { "a", "b", { name = "okay\xff" } } }, "value.items[3].name: invalid UTF-8 at byte 5" },
      { { 0 / 0 }, "value[1]: NaN has no JSON form" },
      { { x = { y = math.huge } }, "value.x.y: infinity has no JSON form" },
      { { f = print }, "value.f: a function has no JSON form" },
      { { ["odd key"] = { print } }, 'value["odd key"][1]: a function has no JSON form' },
      { { 1, 2, x = 3 }, "value: a table with both string and other keys" },
      { { x = 3, [1] = 1 }, "value: a table with both string and other keys" },
      { { 1, nil, 3 }, "value: a list with holes: 2 values, highest index 3" },
      { { [true] = 1 }, "value: keys must be strings, or 1..n for a list" },
      { { ["k\xff"] = 1 }, "a key has invalid UTF-8 at byte 2" },
      { json.object { 1 }, "value: an object needs string keys" },
      { loop, "the table contains itself" },
      { deep, "nested deeper than 128 levels" },
    }
    for _, case in ipairs(cases) do
      local err = unwritable(case[1])
      assert.truthy(err:find(case[2], 1, true), err)
    end
    assert.equal("payload.a: a thread has no JSON form",
      unwritable({ a = coroutine.create(print) }, { root = "payload" }))
    assert.matches("longer than 10 bytes", unwritable({ ("x"):rep(20) }, { max = 10 }))
  end)

  it("goes both ways unchanged", function()
    local value = {
      text = "grün \u{1F600} \0 \x7f", list = { 1, -1, 0.5, 1e300, 5e-324 }, flag = true, none = json.null,
      nested = { { a = { b = { c = {} } } } }, long = ("abc\n"):rep(5000),
    }
    assert.same(value, json.decode(json.encode(value)))
  end)

  it("keeps integers beyond Lua's by their digits", function()
    local text = "[18446744073709551615,-9223372036854775809,[123456789012345678901234567890],"
      .. "9223372036854775807]"
    local v = assert(json.decode(text))
    assert.equal("18446744073709551615", tostring(v[1]))
    assert.equal("integer", math.type(v[4]))
    assert.equal(text, json.encode(v))
    assert.is_true(v[1] == json.decode "18446744073709551615")
    assert.is_nil(json.encode(setmetatable({ "1,2" }, getmetatable(v[1]))))
    assert.equal(0.5, json.decode "0.5")
    assert.equal("float", math.type(json.decode "1e20"))
  end)

  it("stops where the values would take more than was allowed", function()
    local text = "[" .. ("[],"):rep(1000) .. "{}]"
    assert(json.decode(text))
    assert(json.decode(text, 200000))
    local v, why, kind = json.decode(text, 20000)
    assert.is_nil(v)
    assert.matches("too much memory", why)
    assert.equal("too_large", kind)
    v, why, kind = json.decode('{"a":"' .. ("x"):rep(500) .. '"}', 400)
    assert.same({ nil, "too_large" }, { v, kind })
    assert.is_string(why)
    assert.equal("decode", select(3, json.decode "[1,"))
  end)
end)
