-- examples/c_host: built against an installed prefix by their own Makefile, under the address sanitizer,
-- and run: nothing may leak, and uv_loop says so itself if its loop does not close.

local rig = require "program_rig"

local build = assert(os.getenv "BUILD", "run by scripts/test")

local function shell(command)
  local pipe = assert(io.popen(command .. " 2>&1; echo \"rc=$?\"", "r"))
  local out, code = pipe:read("a"):match "^(.*)rc=(%d+)\n$"
  pipe:close()
  return out, tonumber(code)
end

local function succeeds(command)
  local out, code = shell(command)
  assert(code == 0, out)
  return out
end

describe("a C program", function()
  local here, env, mock, url

  setup(function()
    rig.set_up()
    here = rig.dir .. "/c_host"
    local prefix = rig.dir .. "/prefix"
    succeeds(("make -s -o all BUILD='%s' PREFIX='%s' install"):format(build, prefix))
    succeeds(("cp -r examples/c_host '%s'"):format(here))
    succeeds(("make -s -C '%s' PKG_CONFIG_PATH='%s/lib/pkgconfig' "
      .. "CFLAGS='-O1 -g -Werror -fsanitize=address,undefined -fno-sanitize-recover=all'")
      :format(here, prefix))
    env = ("cd '%s' && env -u LD_PRELOAD ASAN_OPTIONS=detect_leaks=1 LD_LIBRARY_PATH='%s/lib'")
      :format(here, prefix)
    mock = rig.start "mock --port 0 --dim 4"
    url = mock:url()
  end)

  teardown(function()
    mock:signal "TERM"
    mock:wait()
    rig.tear_down()
  end)

  it("has the engine on a libuv loop of its own", function()
    local out = succeeds(("%s ./uv_loop %s 'a text' 'another text'"):format(env, url))
    local number = "4 numbers, the first [-%d.]+\n"
    assert.truthy(out:find("^row 1: " .. number .. "row 2: " .. number .. "$"), out)
    local again, code = shell(("%s ./uv_loop nonsense 'a text'"):format(env))
    assert.equal(1, code, again)
    assert.truthy(again:find("base_url", 1, true), again)
  end)

  it("polls a bridge", function()
    rig.write("config.json", ('{"base_url": "%s", "batch": {"slots": 2}}'):format(url))
    local out = succeeds(env .. " sh -c 'seq 1 30000 | ./poll_loop \"$(cat ../config.json)\"'")
    local seen = {}
    for line in out:gmatch "line (%d+): 4 numbers, the first" do seen[tonumber(line)] = true end
    assert.equal(30000, #seen)
    assert.is_nil(seen[30001])
    local again, code = shell(("%s ./poll_loop '{\"base_url\": 7}' </dev/null"):format(env))
    assert.equal(2, code)
    assert.truthy(again:find("base_url: a text expected", 1, true), again)
  end)

  it("runs its users' scripts", function()
    local out = succeeds(("%s ./scripts embed.lua %s"):format(env, url))
    local lines = {}
    for i, word in ipairs { "one", "two", "three" } do
      lines[i] = ("reported: %s has 4 numbers\n"):format(word)
    end
    assert.equal(table.concat(lines), out)
    rig.write("wrong.lua", [[
      local closed <close> = setmetatable({}, { __close = function() report "closed" end })
      error "no"
    ]])
    local again, code = shell(("%s ./scripts ../wrong.lua"):format(env))
    assert.equal(1, code)
    assert.truthy(again:find("reported: closed", 1, true), again)
  end)
end)
