-- The matrix of providers and replies, a test a cell; providers_matrix.lua prints it as a table.

package.path = "tests/conformance/?.lua;" .. package.path
local matrix = require "providers_matrix"

describe("conformance: providers", function()
  for _, row in ipairs(matrix.rows) do
    for _, one in ipairs(matrix.cases) do
      it(row.name .. ": " .. one.name, function()
        local cell = matrix.run(row, one)
        if cell == "-" then
          return
        end
        assert.equal("ok", cell)
      end)
    end
  end

  it("every provider that embeds has a row", function()
    local provider = require "moonpool.provider"
    local known = {}
    for _, row in ipairs(matrix.rows) do
      known[row.provider] = true
    end
    for _, name in ipairs(provider.names) do
      assert.equal(provider.get(name).embed ~= nil, known[name] == true, name)
    end
  end)

  it("files of providers stay data: half of them have fewer than 80 lines", function()
    local provider = require "moonpool.provider"
    local lines = {}
    for i, name in ipairs(provider.names) do
      local n = 0
      for _ in io.lines("lua/moonpool/provider/" .. name .. ".lua") do
        n = n + 1
      end
      lines[i] = n
    end
    table.sort(lines)
    assert.is_true(lines[(#lines + 1) // 2] < 80, tostring(lines[(#lines + 1) // 2]))
  end)
end)
