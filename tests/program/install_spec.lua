-- make install, seen from outside: what a packager and a C or Lua program find afterwards.
-- `-o all`: it installs what was tested, and never rebuilds with other flags.

local build = assert(os.getenv "BUILD", "run by scripts/test")
local sanitize = os.getenv "MOONPOOL_SANITIZED" and "-fsanitize=address,undefined" or ""

-- Runs a command; returns whether it succeeded, and all it printed.
local function shell(command, ...)
  local pipe <close> = assert(io.popen("{ " .. command:format(...) .. "; } 2>&1"))
  local output = pipe:read "a"
  return pipe:close() == true, output
end

local function succeeds(command, ...)
  local ok, output = shell(command, ...)
  assert(ok, output)
  return output
end

local function write(path, text)
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
end

local function exists(path)
  local file = io.open(path)
  if file then
    file:close()
  end
  return file ~= nil
end

describe("make install", function()
  local dir, prefix, version

  setup(function()
    dir = succeeds("mktemp -d"):gsub("\n$", "")
    prefix = dir .. "/prefix"
    succeeds("make -s -o all BUILD='%s' PREFIX='%s' install", build, prefix)
    version = succeeds("sed -n 's/^#define MP_VERSION_STRING \"\\(.*\\)\"/\\1/p' runtime/include/moonpool.h")
      :gsub("\n$", "")
  end)

  teardown(function()
    succeeds("rm -rf '%s'", dir)
  end)

  it("gives a binary that needs no Lua files beside it", function()
    write(dir .. "/hello.lua", 'local m = require "moonpool" print(m.json.encode { hello = arg[1] })')
    local output = succeeds("cd '%s' && env -u LUA_PATH -u LUA_CPATH bin/moonpool run ../hello.lua you",
      prefix)
    assert.equal('{"hello":"you"}\n', output)
    assert.matches(version, succeeds("'%s/bin/moonpool' --version", prefix), 1, true)
  end)

  it("prints the notices of what is compiled in", function()
    local output = succeeds("'%s/bin/moonpool' help licenses", prefix)
    for _, name in ipairs {
      "Lua.org", "Fedor Indutny", "Peter Melnichenko", "Yann Collet", "the Moonpool authors",
    } do
      assert.truthy(output:find(name, 1, true), name)
    end
  end)

  it("gives a module for stock lua5.4", function()
    local output = succeeds("cd / && env -u LUA_PATH LUA_CPATH='%s/lib/lua/5.4/?.so' lua5.4 -e \"%s\"",
      prefix, [[print(require('moonpool').json.encode { 1, 2 })]])
    assert.equal("[1,2]\n", output)
  end)

  it("gives headers and a library that pkg-config finds", function()
    write(dir .. "/host.c", [[
      #include <moonpool.h>
      #include <moonpool_uv.h>
      #include <stdio.h>
      int main(void)
      {
          mp_engine *engine = mp_engine_new(NULL);
          puts(mp_version());
          mp_engine_close(engine, NULL, NULL);
          return engine ? 0 : 1;
      }
    ]])
    local pc = ("PKG_CONFIG_PATH='%s/lib/pkgconfig' pkg-config"):format(prefix)
    assert.equal(version .. "\n", succeeds("%s --modversion moonpool", pc))
    succeeds("cd '%s' && cc %s -o shared host.c $(%s --cflags --libs moonpool)", dir, sanitize, pc)
    assert.equal(version .. "\n", succeeds("LD_LIBRARY_PATH='%s/lib' '%s/shared'", prefix, dir))
    succeeds("cd '%s' && cc %s -o static host.c $(%s --cflags moonpool) '%s/lib/libmoonpool.a' "
      .. "$(pkg-config --libs libcurl libuv libcjson zlib libzstd) -lpthread -lm", dir, sanitize, pc, prefix)
    assert.equal(version .. "\n", succeeds("'%s/static'", dir))
  end)

  it("gives headers that C++ takes without a warning", function()
    local header <close> = assert(io.open(prefix .. "/include/moonpool.h"))
    local text, lines, count = header:read "a", {}, 0
    for name in text:gmatch "struct (mp_[%w_]+) {%s*size_t size;" do
      count = count + 1
      lines[count] = ("    struct %s v%d = MP_INIT(struct %s);\n    if (v%d.size != sizeof(v%d)) return 1;\n")
        :format(name, count, name, count, count)
    end
    assert.is_true(count >= 8, "structs that know their size: " .. count)
    write(dir .. "/host.cc", "#include <moonpool.h>\n#include <moonpool_uv.h>\n#include <moonpool_lua.h>\n"
      .. "int main()\n{\n" .. table.concat(lines) .. "    return mp_version()[0] == 0;\n}\n")
    local pc = ("PKG_CONFIG_PATH='%s/lib/pkgconfig' pkg-config"):format(prefix)
    for _, std in ipairs { "c++11", "c++17" } do
      succeeds("cd '%s' && c++ -std=%s -Wall -Wextra -pedantic -Werror %s -o plus host.cc "
        .. "$(%s --cflags --libs moonpool) $(pkg-config --cflags lua5.4)", dir, std, sanitize, pc)
      succeeds("LD_LIBRARY_PATH='%s/lib' '%s/plus'", prefix, dir)
    end
  end)

  it("keeps Lua and everything internal out of the library's symbols", function()
    local symbols = succeeds("nm -D '%s/lib/libmoonpool.so'", prefix)
    assert.falsy(symbols:find "lua")
    local exported = 0
    for kind, name in symbols:gmatch "%x+ (%u) ([%w_]+)" do
      if kind ~= "U" then
        assert.matches("^mp_%l", name)
        exported = exported + 1
      end
    end
    assert.is_true(exported > 20)
  end)

  it("puts everything under DESTDIR and names only PREFIX inside", function()
    local stage = dir .. "/stage"
    succeeds("make -s -o all BUILD='%s' DESTDIR='%s' PREFIX=/opt/mp install", build, stage)
    for _, file in ipairs {
      "bin/moonpool", "lib/libmoonpool.a", "lib/libmoonpool.so", "lib/libmoonpool.so." .. version,
      "lib/lua/5.4/moonpool.so", "include/moonpool.h", "include/moonpool_uv.h",
      "share/bash-completion/completions/moonpool", "share/zsh/site-functions/_moonpool",
      "share/fish/vendor_completions.d/moonpool.fish",
    } do
      assert.is_true(exists(stage .. "/opt/mp/" .. file), file)
    end
    local pc = succeeds("cat '%s/opt/mp/lib/pkgconfig/moonpool.pc'", stage)
    assert.truthy(pc:find("prefix=/opt/mp\n", 1, true))
    assert.falsy(pc:find(stage, 1, true))
  end)
end)
