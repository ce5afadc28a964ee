-- plan: the rooms of the house and which may use which. The one place where this is written: the
-- checks read it, and the tables of runtime/README.md and lua/README.md are printed from it
-- (scripts/lint --plan).
--
-- A room of C is a folder of runtime/. `faces` are the headers that others may include ("all": each
-- that is not `hidden`); internal.h never is one. A folder inside a room (`of`) is a room of its own,
-- and what it may use is for its own files alone. What runtime/include declares is everybody's. A room
-- of Lua is a folder or some files of lua/moonpool; moonpool.core, the C half, is everybody's.
local plan = {}

plan.c = {
  { name = "base", uses = {}, faces = "all",
    what = "list, heap, slab, buffer, histogram, generator, clock, mailbox: what no room owns" },
  { name = "policy", uses = { "base" },
    faces = { "core.h", "retry.h", "batch.h", "hints.h", "told.h" },
    what = "every decision, as a state machine without I/O and without a clock" },
  { name = "codec", uses = { "base" },
    faces = "all", hidden = { "base64_simd.h", "cpu.h", "number_pow5.h" },
    what = "bytes and numbers: JSON, base64, float32, .npy, vectors" },
  { name = "engine", uses = { "policy", "codec", "base", "engine/transport" },
    faces = { "hooks.h", "gather.h" },
    what = "calls, parts, attempts, the turn; libuv, no Lua" },
  { name = "engine/transport", of = "engine", uses = { "base" }, faces = { "transport.h" },
    what = "HTTP exchanges; the only folder that knows curl" },
  { name = "http", uses = { "base", "codec" }, faces = { "http.h" },
    what = "a small HTTP/1.1 server on libuv and llhttp" },
  { name = "sim", uses = { "policy", "base" }, faces = { "sim.h" },
    what = "the policies against modelled servers on a virtual clock" },
  { name = "mock", uses = { "codec", "base" }, faces = "all",
    what = "the mock's vectors: hashed words" },
  { name = "task", uses = { "base" }, faces = { "task.h" },
    what = "coroutines, scopes, waiting, signals, the life of the runtime; Lua and libuv" },
  { name = "binding",
    uses = "all but host",
    faces = { "binding.h" }, what = "opens the C half and the Lua library in a state" },
  { name = "binding/value", of = "binding", uses = { "task", "engine", "codec", "base" },
    faces = "all", what = "Lua values: JSON, MessagePack, matrices, .npy, headers, options" },
  { name = "binding/files", of = "binding", uses = { "binding/value", "task", "codec", "base" },
    faces = { "files.h" },
    what = "line readers, writers and directories that do not block the loop" },
  { name = "binding/hook", of = "binding",
    uses = { "binding/value", "binding/client", "task", "engine", "policy", "codec", "base" },
    faces = { "hook.h" }, what = "decisions in Lua: called protected, timed, watched" },
  { name = "binding/client", of = "binding",
    uses = { "binding/value", "binding/hook", "task", "engine", "policy", "codec", "base" },
    faces = { "client.h" }, what = "clients, calls, results, streams, policies" },
  { name = "binding/server", of = "binding",
    uses = { "binding/value", "binding/client", "task", "engine", "http", "mock", "codec", "base" },
    faces = {},
    what = "requests and replies of the server, the mock's arithmetic" },
  { name = "binding/job", of = "binding", uses = { "binding/value", "task", "codec", "base" }, faces = {},
    what = "directories of vectors that survive a crash" },
  { name = "binding/sim", of = "binding",
    uses = { "binding/value", "binding/client", "binding/hook", "sim", "task", "engine", "policy", "base" },
    faces = {}, what = "simulations" },
  { name = "host", uses = { "binding", "binding/files", "task", "base" }, faces = {},
    what = "main(): a Lua state, the library, the command line; the line editor of the prompt" },
}

-- Libraries and where alone they may be included; nil rooms: everywhere.
plan.libraries = {
  { pattern = "^curl/", name = "curl", rooms = { "engine/transport" } },
  { pattern = "^uv%.h$", name = "libuv",
    rooms = { "base", "engine", "http", "task", "binding", "host" } },
  { pattern = "^lua%.h$", name = "Lua", rooms = { "task", "binding", "host" } },
  { pattern = "^lauxlib%.h$", name = "Lua", rooms = { "task", "binding", "host" } },
  { pattern = "^lualib%.h$", name = "Lua", rooms = { "task", "binding", "host" } },
  { pattern = "^llhttp%.h$", name = "llhttp", rooms = { "http" } },
  { pattern = "^openssl/", name = "libcrypto", rooms = { "binding/value" } },
  { pattern = "^cjson/", name = "cJSON", rooms = { "codec", "engine", "binding/value" } },
}

-- What a name between files begins with, and what only policy's and runtime/include's do.
plan.prefixes = { between = "mp__", public = "mp_", policy = "mpp_" }

plan.lua = {
  { name = "ground", uses = {},
    modules = { "options", "base64", "json", "jsonl", "matrix", "ragged", "textio", "task", "progress",
      "chart" },
    what = "tasks, options and the data types" },
  { name = "policy", uses = { "ground" }, what = "policies as tables, functions and packages" },
  { name = "provider", uses = { "ground", "client" }, what = "services as data" },
  { name = "client", uses = { "ground", "policy", "provider" }, what = "the client and its calls" },
  { name = "job", uses = { "ground", "client" }, what = "files in, files out" },
  { name = "serve", uses = { "ground" }, modules = { "serve" }, what = "a server of Lua functions" },
  { name = "gateway", uses = { "ground", "client", "provider", "serve", "metrics" },
    what = "callers and limits in front of any provider" },
  { name = "metrics", uses = { "ground", "client" }, modules = { "metrics" },
    what = "what clients and gateways count, as Prometheus reads it" },
  { name = "mock", uses = { "ground", "provider", "serve", "front" }, what = "the local model server" },
  { name = "simulate", uses = { "ground", "policy", "mock" }, what = "simulations, their report" },
  { name = "front", modules = { "init" },
    uses = { "ground", "policy", "provider", "client", "serve", "metrics",
      "gateway", "mock", "simulate" },
    what = "`require \"moonpool\"`: the parts by name, each loaded when first used" },
  { name = "repl", uses = { "ground", "front" }, what = "the prompt, its lines and what it shows" },
  { name = "cli", uses = { "ground", "policy", "provider", "client", "job", "serve", "metrics",
      "gateway", "mock", "simulate", "front", "repl" }, what = "the command line" },
}

-- Sizes that a reader can keep in mind.
plan.sizes = { file = 700, public = 1000, ["function"] = 60, complexity = 25 }

return plan
