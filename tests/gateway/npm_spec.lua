-- Clients of other people, unchanged from npm, against the gateway. ./scripts/npm-clients installs them.

local core = require "moonpool.core"
local moonpool = require "moonpool"
local program = require "program_rig"
local programs = require "support.programs"
local rig = require "client_rig"

setup(program.set_up)
teardown(program.tear_down)
after_each(rig.close_all)

local packages = os.getenv "MOONPOOL_NPM"
  or (os.getenv "XDG_CACHE_HOME" or os.getenv "HOME" .. "/.cache") .. "/moonpool/npm"

programs.describe(_ENV, "node", "gateway: clients from npm", function()
  it("get what the service gives, and errors they understand", function()
    if not core.stat(packages .. "/node_modules/openai") then
      return pending("not installed: ./scripts/npm-clients")
    end
    local mock = rig.mock { dim = 32 }
    local slow = rig.serve(function()
      moonpool.sleep(30)
      return { json = {} }
    end)
    local config = program.write("gateway.lua", ([[return {
      upstreams = { a = { base_url = %q }, slow = { base_url = %q } },
      models = { ["*"] = "a", slow = "slow" },
    }]]):format(mock.url, slow.url))
    local gateway <close> = program.start("gateway --listen 127.0.0.1:0 " .. config)
    local pipe = assert(io.popen(("node tests/gateway/npm/check.mjs %s %s %s 2>&1"):format(
      gateway:url(), mock.url, packages)))
    local reader <close> = core.open_lines(pipe, 1 << 20)
    local lines, good = {}, 0
    for line in function() return reader:read() end do
      lines[#lines + 1] = line
      good = good + (line:find "^ok " and 1 or 0)
    end
    local ok = pipe:close()
    assert.truthy(ok, table.concat(lines, "\n"))
    assert.is_true(good >= 27, table.concat(lines, "\n"))
    rig.until_true("the service is left by the cancelled call", function()
      return slow:stats().in_flight == 0
    end)
  end)
end)
