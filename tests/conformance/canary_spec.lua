-- A key is seen nowhere but in its own header at its own endpoint: not in errors, logs, printed objects
-- or crashes. canary_program.lua does the calls.

local KEY = "sk_canary_7f3a9c51d2e84b06"
local moonpool = os.getenv "MOONPOOL" or "build/moonpool"

local function run(interpreter)
  local out = os.tmpname()
  local command = "MOONPOOL_LOG=trace CANARY=%s OPENAI_API_KEY=%s %s %s %s >%s 2>&1"
  local program = "tests/conformance/canary_program.lua"
  local status = select(3, os.execute(command:format(KEY, KEY, interpreter, program, KEY, out)))
  local f = assert(io.open(out))
  local text = f:read "a"
  f:close()
  os.remove(out)
  return text, status
end

-- The lines around the first place where the key stands.
local function leak(text)
  local at = text:find(KEY, 1, true)
  return at and text:sub(math.max(1, at - 300), at + 100)
end

for name, interpreter in pairs { ["stock lua5.4"] = "lua5.4", ["moonpool run"] = moonpool .. " run" } do
  describe("conformance: a canary key under " .. name, function()
    local text, status

    setup(function() text, status = run(interpreter) end)

    it("reached its own endpoint many times", function()
      local sent = tonumber(text:match "SENT\t(%d+)")
      assert.is_true(sent ~= nil and sent > 100, text:sub(-1500))
    end)

    it("reached nobody else, and no other header, path or body", function()
      assert.is_nil(text:find "WRONG", text:match "WRONG[^\n]*")
    end)

    it("stands in no error, log, printed object or crash", function()
      assert.equal(1, status)
      assert.matches("401", text:sub(-1000))
      assert.is_nil(leak(text), leak(text))
    end)
  end)
end
