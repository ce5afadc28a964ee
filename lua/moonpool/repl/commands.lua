-- moonpool.repl.commands: what begins with a colon at the prompt.
local core = require "moonpool.core"
local options = require "moonpool.options"
local plot = require "moonpool.repl.plot"
local thousands = require "moonpool.progress".thousands
local show = require "moonpool.repl.show"

local commands = {}

local list = {} -- in the order of the help
local by_name = {}

local function command(name, argument, summary, run)
  local c = { name = name, argument = argument, summary = summary, run = run }
  list[#list + 1], by_name[name] = c, c
end

-- ---- help -------------------------------------------------------------------------------------------

local function general_help()
  local lines = {
    "A line is a task: whatever waits just works, and background tasks go on while you type. An expression",
    "prints its value, `_` is the last one, top-level locals live on. spawn(fn, ...) starts a task that",
    "outlives its line; show(value, n) shows more of it. Tab completes, Ctrl+R searches the history,",
    "Ctrl+C drops a line or stops what runs, Ctrl+D ends.", "",
  }
  for _, c in ipairs(list) do
    lines[#lines + 1] = ("  :%-18s %s"):format(c.name .. (c.argument and " " .. c.argument or ""), c.summary)
  end
  return table.concat(lines, "\n")
end

-- The options of a call or a policy, from the rules that check them.
local function options_help(name)
  local found = {}
  for where, rules in pairs(options.known) do
    if where == name or where == "policy." .. name or where:match ": ([%w_]+)$" == name
      or "moonpool." .. where == name or "client:" .. where == name then
      found[#found + 1] = { where, rules }
    end
  end
  table.sort(found, function(a, b) return a[1] < b[1] end)
  if #found == 0 then
    return nil
  end
  local lines = {}
  for _, one in ipairs(found) do
    local names = {}
    for option, rule in pairs(one[2]) do
      -- A rule says what it wants when it is given what nobody wants.
      local ok, why = pcall(rule, io.stdout)
      names[#names + 1] = ("  %-26s %s"):format(option, ok and type(why) == "string" and why or "")
    end
    table.sort(names)
    lines[#lines + 1] = ("options of %s:\n%s"):format(one[1], table.concat(names, "\n"))
  end
  return table.concat(lines, "\n")
end

command("help", "[NAME]", "this, the options of a call or policy, what a value is", function(session, text)
  if text == "" then
    return general_help()
  end
  local known = by_name[text:gsub("^:", "")]
  if known then
    return (":%s %s\n  %s"):format(known.name, known.argument or "", known.summary)
  end
  session.load_options()
  local help = options_help(text)
  if help then
    return help
  end
  local value = session:lookup(text:match "^[%w_]+" or "")
  for name in text:gmatch "[.:]([%w_]+)" do
    if type(value) ~= "table" and type(value) ~= "userdata" then
      break
    end
    value = value[name]
  end
  if value == nil then
    error(("there is nothing to say about '%s'"):format(text), 0)
  end
  return show.text(value)
end)

-- ---- measuring --------------------------------------------------------------------------------------

local function totals(session)
  local client = session:lookup "client"
  local ok, stats = pcall(function() return client:stats() end)
  return ok and stats or {}
end

local function difference(after, before, name)
  return (after[name] or 0) - (before[name] or 0)
end

command("time", "[N] EXPR", "median, p99, CPU, requests, tokens of N runs", function(session, text)
  local times, source = text:match "^(%d+)%s+(.+)$"
  source = source or text
  if source == "" then
    error(":time: an expression expected", 0)
  end
  local f, why = session.locals:load(source, "=:time")
  if not f then
    error(why, 0)
  end
  local most, walls, tokens = tonumber(times) or 1000, {}, 0
  local before, cpu, began = totals(session), os.clock(), core.now()
  repeat
    local at = core.now()
    local result = f()
    walls[#walls + 1] = core.now() - at
    local usage = type(result) == "table" and result.usage
    tokens = tokens + (type(usage) == "table" and usage.total_tokens or 0)
  until #walls >= most or (not times and core.now() - began > 1)
  local n = #walls
  local lines = { ("%s runs: median %s, p99 %s, CPU %s a run"):format(thousands(n),
    show.seconds(show.quantile(walls, 0.5)), show.seconds(show.quantile(walls, 0.99)),
    show.seconds((os.clock() - cpu) / n)) }
  local after = totals(session)
  local requests = difference(after, before, "requests")
  if requests > 0 then
    lines[2] = ("%s requests, %s tokens, %s retries"):format(thousands(requests),
      thousands(tokens), thousands(difference(after, before, "retries")))
    if session.price then
      lines[2] = lines[2] .. (", %.6f USD"):format(tokens * session.price / 1e6)
    end
  end
  if n >= 8 then
    lines[#lines + 1] = show.histogram(walls, 40, show.seconds)
  end
  return table.concat(lines, "\n")
end)

command("stats", nil, "the client's counters, latencies and pool", function(session)
  local client = session:lookup "client"
  if not client then
    error(":stats: there is no client; :connect URL makes one", 0)
  end
  return show.text(client:stats(), { more = 40 })
end)

command("plot", "EXPR", "numbers as a histogram, a matrix as points in the plane", function(session, text)
  local f, why = session.locals:load(text, "=:plot")
  if not f then
    error(why, 0)
  end
  local picture, reason = plot.text(f(), core.terminal_width(1) or 80)
  if not picture then
    error(":plot: " .. reason, 0)
  end
  return picture
end)

command("tasks", nil, "which tasks there are and what each waits for", function(session)
  local lines = {}
  for _, t in ipairs(core.tasks()) do
    if not session.own[t.task] and t.state ~= "running" and t.spawned then
      lines[#lines + 1] = ("  %-8s %-14s at %-24s spawned at %s"):format(t.state, t.waits or "", t.at or "?",
        t.spawned)
    end
  end
  return #lines > 0 and table.concat(lines, "\n") or "no tasks in the background"
end)

-- ---- clients, files ---------------------------------------------------------------------------------

command("connect", "URL [MODEL]", "a new global client", function(session, text)
  local url, model = text:match "^(%S+)%s*(%S*)$"
  if not url then
    error(":connect: a URL expected", 0)
  end
  session:connect { base_url = url, model = model ~= "" and model or nil }
  return tostring(session:lookup "client")
end)

command("load", "FILE", "run a script here; its top-level locals live on", function(session, text)
  local file, why = io.open(text, "rb")
  if not file then
    error(":load: " .. why, 0)
  end
  local source = file:read "a"
  file:close()
  local f, message = session.locals:load((source:gsub("^#[^\n]*", "")), "@" .. text)
  if not f then
    error(message, 0)
  end
  f()
  session.log[#session.log + 1] = source
end)

command("save", "FILE", "the session as a script that runs", function(session, text)
  if text == "" then
    error(":save: the name of a file expected", 0)
  end
  local file, why = io.open(text, "wb")
  if not file then
    error(":save: " .. why, 0)
  end
  file:write("local moonpool = require \"moonpool\"\n", session.connected or "",
    table.concat(session.log, "\n"), "\n")
  assert(file:close())
  return ("%d chunks are in %s"):format(#session.log, text)
end)

command("quit", nil, "end", function(session)
  session.over = true
end)

--- The names, in the order of the help.
function commands.names()
  local names = {}
  for i, c in ipairs(list) do names[i] = c.name end
  return names
end

--- Runs ":name rest"; the text to print, or nil. Raises what is wrong.
function commands.run(session, line)
  local name, rest = line:match "^:(%a*)%s*(.-)%s*$"
  local c = name and by_name[name]
  if not c then
    local near = name and options.nearest(name, by_name)
    error(("no command '%s'%s; :help lists them"):format(line:match "^%S+",
      near and (", did you mean :%s?"):format(near) or ""), 0)
  end
  return c.run(session, rest)
end

return commands
