-- moonpool.repl: the prompt. Each line runs as a task of its own, so everything that waits just works;
-- Ctrl+C cancels that task; tasks of `spawn` go on meanwhile and print above the line being typed.
local commands = require "moonpool.repl.commands"
local core = require "moonpool.core"
local eval = require "moonpool.repl.eval"
local moonpool = require "moonpool"
local show = require "moonpool.repl.show"

local repl = {}

local Session = {}
Session.__index = Session

-- ---- values -----------------------------------------------------------------------------------------------

--- The value of a local or a global, without running any metamethod of _G.
function Session:lookup(name)
  local value, is_local = self.locals:get(name)
  if is_local then
    return value
  end
  return rawget(_G, name)
end

function Session:names()
  local set = {}
  for name in pairs(_G) do
    if type(name) == "string" then
      set[name] = true
    end
  end
  for _, name in ipairs(self.locals.names) do set[name] = true end
  return set
end

--- Makes the global `client`.
function Session:connect(opts)
  rawset(_G, "client", moonpool.client(opts))
  self.connected = ("client = moonpool.client { base_url = %q%s%s }\n"):format(opts.base_url,
    opts.model and (", model = %q"):format(opts.model) or "",
    type(opts.provider) == "string" and (", provider = %q"):format(opts.provider) or "")
end

--- Has the option tables of all calls checked once, so that their rules are known.
function Session.load_options()
  if require "moonpool.options".known.embed then
    return
  end
  local client = moonpool.client { base_url = "http://127.0.0.1:9", retry = {}, hedge = {}, rate = {},
    concurrency = {}, breaker = {}, route = {}, batch = {}, pool = {}, tls = {}, timeout = {} }
  for _, call in ipairs { "embed", "rerank", "classify", "batch_post", "request", "stream", "batcher" } do
    if client[call] then
      pcall(client[call], client, {})
    end
  end
  client:close()
end

-- ---- output -----------------------------------------------------------------------------------------------

--- Writes whole lines above the line being typed, if one is.
function Session:say(text, out)
  out = out or io.stdout
  if text:sub(-1) ~= "\n" then
    text = text .. "\n"
  end
  if self.editor and self.editing then
    self.editor:hide()
  end
  out:write(text)
  out:flush()
  if self.editor and self.editing then
    self.editor:show()
  end
end

-- While a line is typed, what a background task writes piece by piece is held until it is a line.
local function redirect(self)
  local write, held = io.write, ""
  rawset(_G, "print", function(...)
    local parts = table.pack(...)
    for i = 1, parts.n do parts[i] = tostring(parts[i]) end
    self:say(held .. table.concat(parts, "\t", 1, parts.n))
    held = ""
  end)
  io.write = function(...) -- luacheck: ignore
    if not self.editing then
      return write(...)
    end
    for _, piece in ipairs { ... } do held = held .. piece end
    local whole, rest = held:match "^(.*\n)(.*)$"
    if whole then
      held = rest
      self:say(whole)
    end
    return io.stdout
  end
end

local function error_text(err)
  if type(err) == "table" and moonpool.is_error(err) then
    return show.text(err)
  end
  local trace = core.traceback_of(err)
  local text = type(err) == "string" and err or tostring(err)
  -- Only the frames of the line itself are news to whoever typed it.
  local lines = {}
  for frame in (trace or ""):gmatch "\n\t([^\n]+)" do
    if frame:find("^lua/moonpool/repl/") then
      break
    end
    if not frame:find("^%[C%]") and not frame:find("lua/moonpool/", 1, true)
      and not frame:find("^%(%.%.%.tail") then
      lines[#lines + 1] = "  " .. frame
    end
  end
  return #lines > 1 and text .. "\n" .. table.concat(lines, "\n") or text
end

function Session:complain(err)
  self.failed = true
  self:say(error_text(err), self.terminal and io.stdout or io.stderr)
end

-- ---- running ----------------------------------------------------------------------------------------------

local function is_cancelled(err)
  return type(err) == "table" and err.kind == "cancelled"
end

-- Runs f as a task that Ctrl+C cancels: true and its results, or false and the error.
local function interruptible(self, f, ...)
  local args = table.pack(...)
  local results = table.pack(pcall(core.scope, function(scope)
    core.set_interrupt(scope)
    local task = scope:spawn(function() return f(table.unpack(args, 1, args.n)) end)
    self.own[task] = true
    return task:await()
  end))
  core.set_interrupt(nil)
  if core.interrupted() then
    core.interrupt_over()
  end
  return table.unpack(results, 1, results.n)
end

local function shown(self, results)
  local last = results.n
  while last > 2 and results[last] == nil do last = last - 1 end -- the err of `res, err` that went well
  for i = 2, last do
    self:say(show.text(results[i], { width = not self.terminal and 100 or nil }))
  end
end

local function run_chunk(self, f, source)
  local results = table.pack(interruptible(self, f))
  if not results[1] then
    if is_cancelled(results[2]) then
      self.failed = true
      return self:say "interrupted"
    end
    return self:complain(results[2])
  end
  if results.n == 3 and results[2] == nil and moonpool.is_error(results[3]) then
    rawset(_G, "_", results[3])
    return self:complain(results[3])
  end
  if results.n > 1 then
    rawset(_G, "_", results[2])
  end
  shown(self, results)
  self.log[#self.log + 1] = source
end

--- Runs what was typed: true when it was whole, false when more lines are needed.
function Session:run(source)
  if source:find "^%s*:%a" or source:find "^%s*:$" then
    local ok, text = interruptible(self, commands.run, self, source:match "^%s*(.-)%s*$")
    if not ok then
      self:complain(is_cancelled(text) and "interrupted" or text)
    elseif text then
      self:say(text)
    end
    return true
  end
  if not source:find "%S" then
    return true
  end
  local f, why, incomplete = self.locals:load(source)
  if not f and incomplete then
    return false, why
  end
  if not f then
    self:complain(why)
  else
    run_chunk(self, f, why == true and "print(" .. source .. ")" or source)
  end
  return true
end

-- spawn(fn, ...): a task that outlives the line that starts it. Its error is told and ends only itself.
local function spawner(self, scope)
  return function(fn, ...)
    return scope:spawn(function(...)
      local results = table.pack(xpcall(fn, core.traceback, ...))
      if not results[1] then
        if not is_cancelled(results[2]) then
          self:say("task: " .. error_text(results[2]))
        end
        error(results[2], 0)
      end
      return table.unpack(results, 2, results.n)
    end, ...)
  end
end

-- ---- the session ------------------------------------------------------------------------------------

local function new_session(opts)
  local self = setmetatable({
    locals = eval.session(), log = {}, own = setmetatable({}, { __mode = "k" }), terminal = opts.terminal,
    price = opts.price,
  }, Session)
  rawset(_G, "moonpool", moonpool)
  rawset(_G, "show", function(value, n) self:say(show.text(value, { more = n or 1000 })) end)
  redirect(self)
  return self
end

--- Runs a session until its end; the exit code. opts: client, a table for moonpool.client, or nil.
function repl.run(opts)
  local terminal = core.isatty(0) and core.isatty(1)
  local self = new_session { terminal = terminal, price = opts.price }
  if opts.client then
    self:connect(opts.client)
  end
  return core.scope(function()
    local background = core.open_scope { on_error = "collect" }
    rawset(_G, "spawn", spawner(self, background))
    local front = terminal and os.getenv "TERM" ~= "dumb" and "moonpool.repl.terminal" or "moonpool.repl.pipe"
    local ok, why = pcall(require(front).loop, self)
    pcall(background.cancel, background)
    pcall(background.close, background)
    self.locals:close()
    if not ok then
      error(why, 0)
    end
    return not terminal and self.failed and 1 or 0
  end)
end

return repl
