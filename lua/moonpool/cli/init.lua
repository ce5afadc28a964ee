-- moonpool.cli: `moonpool COMMAND ...`.
--
-- A command is a module moonpool.cli.NAME that returns
--   { name =, summary =, configure = function(parser) end, run = function(args) return code end }
-- or, to parse its arguments itself, main = function(argv) return code end instead of the last two
-- (argv[1] is the first argument after the command's name) and help = function() return text end.
-- Exit codes: 0 done, 1 error, 2 wrong use, 3 done with failed rows, 130 interrupted.
local core = require "moonpool.core"
local parser = require "moonpool.cli.parser"

local cli = {}

--- In the order of the help. One whose module is not part of the build is left out.
cli.names = {
  "run", "repl", "embed", "status", "check", "convert", "cache", "search", "rerank", "classify", "post",
  "serve", "gateway", "mock", "simulate",
}

local function is_known(name)
  for _, known in ipairs(cli.names) do
    if known == name then
      return true
    end
  end
  return false
end

--- The command's module, or nil when there is none of that name.
function cli.command(name)
  if not is_known(name) then
    return nil
  end
  local module = "moonpool.cli." .. name
  local ok, command = pcall(require, module)
  if ok then
    return command
  elseif type(command) == "string" and command:find("module '" .. module .. "' not found", 1, true) then
    return nil
  end
  error(command, 0)
end

local function commands()
  local list = {}
  for _, name in ipairs(cli.names) do
    list[#list + 1] = cli.command(name)
  end
  return list
end

--- The text of `moonpool help`.
function cli.help()
  local lines = {
    "Usage: moonpool COMMAND [OPTION...]",
    "       moonpool --version | help [COMMAND] | help licenses | help completion [SHELL]",
    "",
    "Embeds, reranks and posts in bulk against model servers, scripted in Lua.",
    "",
    "Commands:",
  }
  for _, command in ipairs(commands()) do
    lines[#lines + 1] = ("   %-12s %s"):format(command.name, command.summary)
  end
  lines[#lines + 1] = ("   %-12s %s"):format("help", "Show this help, or that of a command.")
  lines[#lines + 1] = ""
  lines[#lines + 1] = "moonpool COMMAND --help explains one command."
  return table.concat(lines, "\n") .. "\n"
end

--- The command's parser, or nil when it parses its arguments itself.
function cli.parser_of(command)
  if not command.configure then
    return nil
  end
  local p = parser.new(command.name, command.summary, command.epilog)
  command.configure(p)
  return p
end

--- The text of `moonpool help NAME`.
function cli.command_help(command)
  return command.help and command.help() or parser.help(cli.parser_of(command))
end

--- The completion script for a shell.
function cli.completion(shell)
  local completion = require "moonpool.cli.completion"
  local list = {}
  for i, command in ipairs(commands()) do
    local p = cli.parser_of(command)
    list[i] = { name = command.name, summary = command.summary, parser = p and parser.complete(p) }
  end
  for _, known in ipairs(completion.shells) do
    if known == shell then
      return completion[shell](completion.model(list))
    end
  end
  parser.stop(2, ("moonpool: no completion for '%s', only for %s\n"):format(shell,
    table.concat(completion.shells, ", ")))
end

local function unknown(name)
  local set = { help = true }
  for _, command in ipairs(commands()) do
    set[command.name] = true
  end
  local near = require "moonpool.options".nearest(name, set)
  parser.stop(2, ("moonpool: unknown command '%s'%s\n(moonpool help lists the commands)\n"):format(
    name, near and (", did you mean '" .. near .. "'?") or ""))
end

local function help(argv)
  local topic = argv[1]
  if not topic then
    parser.stop(0, cli.help())
  elseif topic == "licenses" then
    parser.stop(0, core.embedded "NOTICE" or "no notices in this build\n")
  elseif topic == "completion" then
    parser.stop(0, cli.completion(argv[2] or "bash"))
  end
  local command = cli.command(topic) or unknown(topic)
  parser.stop(0, cli.command_help(command))
end

-- What is to run, as a function; or raises a stop.
local function choose(argv)
  local name = argv[1]
  if not name then
    local repl = core.isatty(0) and core.isatty(1) and cli.command "repl"
    if repl then
      return function() return repl.run(parser.parse(cli.parser_of(repl), {})) end, {}
    end
    parser.stop(2, cli.help())
  elseif name == "--version" or name == "-V" or name == "-v" then
    parser.stop(0, "moonpool " .. core.version .. "\n")
  elseif name == "--help" or name == "-h" then
    parser.stop(0, cli.help())
  elseif name:sub(1, 1) == "-" then
    parser.stop(2, ("moonpool: unknown option '%s'\n\n%s"):format(name, cli.help()))
  end
  local rest = table.move(argv, 2, #argv, 1, {})
  if name == "help" then
    return help, rest
  end
  local command = cli.command(name) or unknown(name)
  return command.main or function(args)
    return command.run(parser.parse(cli.parser_of(command), args))
  end, rest
end

local function stopped(stop)
  local out = stop.code == 0 and io.stdout or io.stderr
  out:write(stop.text) -- that it did not get out is seen at the end of the program
  return stop.code
end

local function finish(ok, result)
  if ok then
    return result or 0
  elseif parser.is_stop(result) then
    return stopped(result)
  end
  error(result, 0)
end

--- argv[1] is the first argument. Returns the exit code; errors that are nobody's wrong use of the
--- command line pass through to the host.
function cli.main(argv)
  local ok, action, rest = pcall(choose, argv)
  if ok and argv[1] == "run" then
    return action(rest) -- not protected here: the host shows where in the script an error was
  elseif ok then
    return finish(xpcall(action, core.traceback, rest))
  end
  return finish(ok, action)
end

return cli
