-- Each rule of scripts/house finds the violation that is planted for it, and nothing in a house that
-- keeps the rules. The houses here are of a few lines, in a directory of their own.

local rig = require "program_rig"

-- A house that keeps every rule; a planted file replaces or adds one of these.
local tree = {
  ["runtime/include/moonpool.h"] = "int mp_open(void);\nstruct mp_engine;\n",
  ["runtime/base/list.h"] = "#ifndef MP_L_H\n#define MP_L_H\nint mp__list_add(int);\n#endif\n",
  ["runtime/base/list.c"] = '#include "base/list.h"\n\nint mp__list_add(int n)\n{\n    return n;\n}\n',
  ["runtime/policy/core.h"] = "int mpp_next(int);\n",
  ["runtime/policy/core.c"] = '#include "policy/core.h"\n\n#include "base/list.h"\n\n#include <stdlib.h>\n\n'
    .. "int mpp_next(int n)\n{\n    return mp__list_add(n);\n}\n",
  ["runtime/policy/internal.h"] = "struct state {\n    int n;\n};\n",
  ["runtime/engine/call.c"] = '#include "moonpool.h"\n#include "policy/core.h"\n\n'
    .. "int mp_open(void)\n{\n    return mpp_next(1);\n}\n",
  ["runtime/binding/value/json.h"] = "int mp__json(int);\n",
  ["runtime/binding/value/json.c"] = '#include "binding/value/json.h"\n\n'
    .. "int mp__json(int n)\n{\n    return n;\n}\n",
  ["runtime/binding/files/files.c"] = '#include "binding/value/json.h"\n\n#include <lauxlib.h>\n\n'
    .. "static int l_read(lua_State *L)\n{\n    (void)L;\n    return mp__json(1);\n}\n\n"
    .. 'static const luaL_Reg functions[] = {{"read", l_read}, {NULL, NULL}};\n\n'
    .. "void mp__open_files(lua_State *L)\n{\n    luaL_setfuncs(L, functions, 0);\n}\n",
  ["lua/moonpool/task.lua"] = "-- moonpool.task: tasks.\nlocal core = require \"moonpool.core\"\n\n"
    .. "return { read = core.read }\n",
  ["lua/moonpool/client/call.lua"] = "-- moonpool.client.call: calls.\nreturn require \"moonpool.task\"\n",
}

local root, tables

local function shell(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  local ok = pipe:close()
  return text, ok
end

local function put(dir, files)
  for path, text in pairs(files) do
    assert(os.execute(("mkdir -p '%s/%s'"):format(dir, path:match "^(.*)/[^/]*$" or ".")))
    local f <close> = assert(io.open(dir .. "/" .. path, "wb"))
    f:write(text)
  end
end

local lua_flags = shell "pkg-config --cflags lua5.4":gsub("%s+$", "")

-- Objects of these C files below runtime/, of all when there is no list.
local function compile(dir, list)
  local script = ("cd '%s/runtime' && for f in %s; do o=../build/obj/${f%%.c}.o; "
    .. "mkdir -p $(dirname $o); cc -w -c -I. -Iinclude %s -o $o $f || exit 1; done"):format(dir,
    list and table.concat(list, " ") or "$(find . -name '*.c')", lua_flags)
  local text, ok = shell(script)
  assert(ok, text)
end

local function house(dir, ...)
  return shell(("lua5.4 scripts/house/check.lua --root '%s' %s"):format(dir, table.concat({ ... }, " ")))
end

local count = 0

-- A copy of the house with these files in it.
local function planted(files)
  count = count + 1
  local dir = ("%s/%d"):format(root, count)
  assert(os.execute(("cp -a '%s/sound' '%s'"):format(root, dir)))
  put(dir, files)
  local changed = {}
  for path in pairs(files) do
    changed[#changed + 1] = path:match "^runtime/(.*%.c)$"
  end
  compile(dir, changed)
  return dir
end

-- The findings with one violation planted: one line that begins so and has these words.
local function finds(rule, path, words, files)
  local text, ok = house(planted(files))
  assert.is_nil(ok, "nothing was found: " .. rule)
  local found
  for line in text:gmatch "[^\n]+" do
    found = found or line:find(path, 1, true) == 1 and line:find(" " .. rule .. ": ", 1, true)
      and line:find(words, 1, true)
  end
  assert.is_truthy(found, ("%s of %s is not named in:\n%s"):format(rule, path, text))
end

describe("the plan of the house", function()
  setup(function()
    rig.set_up()
    root = rig.dir
    tables = shell "lua5.4 scripts/house/check.lua --plan"
    local files = {}
    for path, text in pairs(tree) do
      files[path] = text
    end
    files["runtime/README.md"] = tables
    files["lua/README.md"] = tables
    put(root .. "/sound", files)
    compile(root .. "/sound")
  end)
  teardown(rig.tear_down)

  it("finds nothing in a house that keeps it", function()
    local text, ok = house(root .. "/sound")
    assert.equal("", text)
    assert.is_true(ok)
  end)

  it("reads includes", function()
    finds("rooms", "runtime/policy/core.c:2:", "policy may not use engine", {
      ["runtime/engine/hooks.h"] = "int mp__hook(int);\n",
      ["runtime/policy/core.c"] = '#include "policy/core.h"\n#include "engine/hooks.h"\n',
    })
    finds("rooms", "runtime/base/list.c:2:", "base may not use policy", {
      ["runtime/base/list.c"] = '#include "base/list.h"\n#include "policy/core.h"\n',
    })
    finds("rooms", "runtime/binding/value/json.c:2:", "binding/value may not use binding/hook", {
      ["runtime/binding/hook/hook.h"] = "int mp__hook(int);\n",
      ["runtime/binding/value/json.c"] = '#include "binding/value/json.h"\n#include "binding/hook/hook.h"\n',
    })
    finds("rooms", "runtime/engine/call.c:1:", "\"call.h\" is in no room", {
      ["runtime/engine/call.c"] = '#include "call.h"\n', ["runtime/call.h"] = "",
    })
    finds("rooms", "runtime/attic/old.c:1:", "no room of the plan", { ["runtime/attic/old.c"] = "\n" })
    finds("rooms", "runtime/engine/attic/old.c:1:", "no room of the plan",
      { ["runtime/engine/attic/old.c"] = "\n" })
  end)

  it("knows each room's faces", function()
    finds("faces", "runtime/engine/call.c:1:", "never leaves its room", {
      ["runtime/engine/call.c"] = '#include "policy/internal.h"\n',
    })
    finds("faces", "runtime/engine/call.c:1:", "policy/state.h is not a face", {
      ["runtime/policy/state.h"] = "", ["runtime/engine/call.c"] = '#include "policy/state.h"\n',
    })
    finds("faces", "runtime/engine/call.c:1:", "codec/cpu.h is not a face", {
      ["runtime/codec/cpu.h"] = "", ["runtime/engine/call.c"] = '#include "codec/cpu.h"\n',
    })
  end)

  it("keeps libraries in their rooms", function()
    finds("libraries", "runtime/engine/call.c:3:", "engine may not use Lua", {
      ["runtime/engine/call.c"] = '#include "moonpool.h"\n\n#include <lauxlib.h>\n',
    })
    put(root .. "/curl", { ["runtime/engine/call.c"] = "#include <curl/curl.h>\n",
      ["runtime/policy/core.c"] = "#include <uv.h>\n" })
    local text = house(root .. "/curl", "libraries")
    assert.matches("runtime/engine/call.c:1: libraries: engine may not use curl", text, 1, true)
    assert.matches("runtime/policy/core.c:1: libraries: policy may not use libuv", text, 1, true)
  end)

  it("sees what no include shows, by symbols", function()
    finds("symbols", "runtime/policy/core.c:", "policy may not use engine: mp_open of engine/call", {
      ["runtime/policy/core.c"] = "int mp_open(void);\n"
        .. "int mpp_next(int n)\n{\n    return n + mp_open();\n}\n",
    })
    local bare = planted {}
    assert(os.execute(("rm -r '%s/build'"):format(bare)))
    assert.matches("build/obj: symbols: no objects here: build first", house(bare, "symbols"), 1, true)
  end)

  it("sees objects of two folders that need each other", function()
    finds("circles", "runtime/binding/client/client.c:", "binding/client/client binding/hook/hook", {
      ["runtime/binding/client/client.c"] = "int mp__hook(void);\n"
        .. "int mp__box(void)\n{\n    return mp__hook();\n}\n",
      ["runtime/binding/hook/hook.c"] = "int mp__box(void);\n"
        .. "int mp__hook(void)\n{\n    return mp__box();\n}\n",
    })
  end)

  it("reads whose a name is", function()
    local function named(name)
      return { ["runtime/base/more.c"] = ("int %s(void)\n{\n    return 1;\n}\n"):format(name) }
    end
    finds("prefixes", "runtime/base/more.c:", "helper: a name between files begins with mp__", named "helper")
    finds("prefixes", "runtime/base/more.c:", "mp_more: runtime/include does not declare it", named "mp_more")
    finds("prefixes", "runtime/base/more.c:", "mpp_more: mpp_ is policy's", named "mpp_more")
    finds("prefixes", "runtime/base/more.c:", "mp__own: a static name stands bare", {
      ["runtime/base/more.c"] = "static int mp__own = 3;\nint mp__more(void)\n{\n    return mp__own++;\n}\n",
    })
    finds("prefixes", "runtime/base/more.h:1:", "MP_DEPTH: between files it is MP__", {
      ["runtime/base/more.h"] = "#define MP_DEPTH 3\n",
    })
    finds("prefixes", "runtime/base/more.h:1:", "depth: between files it is mp__", {
      ["runtime/base/more.h"] = "struct depth {\n    int n;\n};\n",
    })
  end)

  it("reads what Lua files require", function()
    finds("require", "lua/moonpool/task.lua:2:", "ground may not use client (moonpool.client.call)", {
      ["lua/moonpool/task.lua"] = "-- moonpool.task: tasks.\nlocal call = require \"moonpool.client.call\"\n"
        .. "return { call = call, read = call.read }\n",
    })
    finds("require", "lua/moonpool/client/call.lua:2:", "client may not use cli", {
      ["lua/moonpool/client/call.lua"] = "-- moonpool.client.call: calls.\n"
        .. "return require(\"moonpool.cli.\" .. 1)\n",
    })
    finds("require", "lua/moonpool/misc.lua:1:", "in no room of the plan", {
      ["lua/moonpool/misc.lua"] = "-- moonpool.misc: things.\n",
    })
  end)

  it("wants every function that Lua is offered to be used", function()
    local function offers(name, target)
      return { ["runtime/binding/files/files.c"] = tree["runtime/binding/files/files.c"]
        :gsub('"read", l_read', ('"%s", %s'):format(name, target)):gsub("l_read%(", target .. "(") }
    end
    finds("offered", "runtime/binding/files/files.c:11:",
      "hrtime is offered to Lua and nothing there uses it", offers("hrtime", "l_read"))
    finds("offered", "runtime/binding/files/files.c:11:", "read_it(): what Lua calls is named l_",
      offers("read", "read_it"))
  end)
end)

describe("the handwriting of the house", function()
  setup(function()
    rig.set_up()
    root = rig.dir
    local files = { ["runtime/README.md"] = tables, ["lua/README.md"] = tables }
    for path, text in pairs(tree) do
      files[path] = text
    end
    put(root .. "/sound", files)
    compile(root .. "/sound")
  end)
  teardown(rig.tear_down)

  local function c_file(text)
    return { ["runtime/base/more.c"] = text }
  end

  it("of C includes: its own header first, the system's last", function()
    finds("includes", "runtime/base/list.c:1:", "base/list.h comes first", {
      ["runtime/base/list.c"] = '#include "moonpool.h"\n#include "base/list.h"\n',
    })
    finds("includes", "runtime/base/list.c:1:", "base/list.h comes first", {
      ["runtime/base/list.c"] = '#include <stdlib.h>\n\n#include "base/list.h"\n',
    })
    finds("includes", "runtime/engine/call.c:3:", "stands behind a system header", {
      ["runtime/engine/call.c"] = '#include <stdlib.h>\n\n#include "moonpool.h"\n',
    })
  end)

  it("of pointers: they are compared with NULL", function()
    for _, condition in ipairs { "!p", "p", "n && p", "p || n", "n && !p" } do
      finds("null", "runtime/base/more.c:3:", "p is a pointer", c_file(
        ("int mp__more(const char *p, int n)\n{\n    if (%s)\n        return n;\n    return 0;\n}\n")
          :format(condition)))
    end
  end)

  it("of C lines", function()
    local function body(line)
      return c_file(("#include <stdio.h>\n#include <string.h>\n\n"
        .. "int mp__more(char *to, const char *from, int n)\n{\n    int m = 0;\n%s\n"
        .. "    return m + n;\n}\n"):format(line))
    end
    finds("banned", "runtime/base/more.c:7:", "strcpy()", body "    strcpy(to, from);")
    finds("banned", "runtime/base/more.c:7:", "sprintf()", body "    sprintf(to, from);")
    finds("conditions", "runtime/base/more.c:7:", "assignment", body "    if ((m = n) > 0)\n        m++;")
    finds("conditions", "runtime/base/more.c:7:", "assignment",
      body "    while ((m = n--) > 0)\n        m++;")
    finds("statements", "runtime/base/more.c:7:", "comma", body "    m = 1, n = 2;")
    finds("statements", "runtime/base/more.c:7:", "a choice of calls",
      body "    from == NULL ? puts(to) : puts(from);")
    finds("unfinished", "runtime/base/more.c:7:", "TO" .. "DO", body("    /* TO" .. "DO: more */"))
    -- strings and comments are none of its business
    assert.equal("", (house(planted(body "    puts(\"strcpy(to, from)\"); /* gets( sprintf( */"), "banned")))
  end)

  it("of sizes", function()
    local function long(n)
      return "int mp__more(int n)\n{\n" .. ("    n++;\n"):rep(n - 3) .. "    return n;\n}\n"
    end
    finds("sizes", "runtime/base/more.c:2:", "mp__more() has 61 lines, at most 60", c_file(long(61)))
    assert.equal("", house(planted(c_file(long(60))), "sizes"))
    finds("sizes", "runtime/base/more.c:2:", "mp__more() has complexity 26, at most 25",
      c_file("int mp__more(int n)\n{\n" .. ("    if (n) n--;\n"):rep(25) .. "    return n;\n}\n"))
    finds("sizes", "runtime/base/more.h:", "701 lines, at most 700",
      { ["runtime/base/more.h"] = ("extern int mp__n;\n"):rep(701) })
    finds("sizes", "lua/moonpool/task.lua:", "701 lines, at most 700",
      { ["lua/moonpool/task.lua"] = tree["lua/moonpool/task.lua"] .. ("\n"):rep(697) })
  end)

  it("of Lua files: their head and their guards", function()
    finds("heads", "lua/moonpool/task.lua:1:", "-- moonpool.task: what it is", {
      ["lua/moonpool/task.lua"] = "-- task.lua - tasks.\nreturn { read = 1 }\n",
    })
    finds("guards", "lua/moonpool/task.lua:3:", "has a line of its own", {
      ["lua/moonpool/task.lua"] = "-- moonpool.task: tasks.\nlocal n = { read = 1 }\n"
        .. "if n then return n end\n",
    })
  end)

  it("of the maps: the plan's table, links that lead somewhere, lines that fit", function()
    local other = tables:gsub("| policy | base |", "| policy | engine |", 1)
    local function chapter(text)
      return { ["lua/docs/a.md"] = text .. "\n" }
    end
    finds("maps", "runtime/README.md:", "its table is not the plan's", { ["runtime/README.md"] = other })
    finds("links", "lua/docs/a.md:1:", "b.md leads nowhere", chapter "[b](b.md)")
    finds("links", "lua/docs/a.md:1:", "../README.md#x: no heading", chapter "[b](../README.md#x)")
    finds("links", "lua/docs/a.md:1:", "121 columns, at most 120", chapter(("x"):rep(121)))
  end)
end)
