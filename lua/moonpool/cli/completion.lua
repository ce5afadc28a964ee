-- moonpool.cli.completion: `moonpool help completion SHELL`, scripts for bash, zsh and fish, made from
-- the parsers: no option is written down twice.
--
-- The parsers become a list of commands first:
--   { name, summary, options = { { names = {"-i", "--input"}, what, takes } }, follows }
-- `takes` says what stands behind an option and `follows` what stands behind the command: a list of
-- words, "files", "lua" (files of that kind), "variables" (of the environment), "text" (anything);
-- nil: nothing.
local completion = {}

-- By the name of an option's argument.
local kinds = {
  FILE = "files", OUTDIR = "files", DIR = "files", WHERE = "files", PATH = "files", SCRIPT = "lua",
  ["SCRIPT.lua"] = "lua", ["CONFIG.lua"] = "lua", VARIABLE = "variables",
}

local function argument_of(element)
  return type(element._argname) == "table" and element._argname[1] or element._argname
end

local function takes(option)
  if option._maxargs == 0 then
    return nil
  end
  return option._offered or option._choices or kinds[argument_of(option)] or "text"
end

local function options_of(parser)
  local list = {}
  for _, option in ipairs(parser._options) do
    if not option._hidden then
      list[#list + 1] = { names = option._public_aliases, what = option._brief or option._description or "",
        takes = takes(option), many = option._maxcount > 1 }
    end
  end
  return list
end

local function follows(parser)
  local first = parser._arguments[1]
  return first and (kinds[argument_of(first)] or "files") or nil
end

--- list of {name, summary, parser or nil} -> the commands as above. One that parses its arguments
--- itself is a script's: `moonpool run`.
function completion.model(commands)
  local model = {}
  for i, command in ipairs(commands) do
    local parser = command.parser
    model[i] = { name = command.name, summary = command.summary,
      options = parser and options_of(parser) or { { names = { "-h", "--help" }, what = "Show this help." } },
      follows = not parser and "lua" or follows(parser) }
  end
  return model
end

local topics = { "licenses", "completion" }
local shells = { "bash", "zsh", "fish" }

local function names_of(model)
  local names = {}
  for i, command in ipairs(model) do
    names[i] = command.name
  end
  return table.concat(names, " ")
end

-- ---- bash --------------------------------------------------------------------------------------------

local function bash_kind(what)
  return type(what) == "table" and ("words='%s'"):format(table.concat(what, " "))
    or ("kind=%s"):format(what or "nothing")
end

-- Cases of a command and the option before the cursor -> what follows it.
local function bash_values(command)
  local order, patterns = {}, {}
  for _, option in ipairs(command.options) do
    local how = option.takes and bash_kind(option.takes)
    if how and not patterns[how] then
      order[#order + 1], patterns[how] = how, {}
    end
    for _, name in ipairs(how and option.names or {}) do
      table.insert(patterns[how], ("'%s %s'"):format(command.name, name))
    end
  end
  local lines = {}
  for i, how in ipairs(order) do
    lines[i] = ("    %s) %s ;;\n"):format(table.concat(patterns[how], " | "), how)
  end
  return table.concat(lines)
end

local function long_names(command)
  local words = {}
  for _, option in ipairs(command.options) do
    for _, name in ipairs(option.names) do
      if name:sub(1, 2) == "--" then
        words[#words + 1] = name
      end
    end
  end
  table.sort(words)
  return table.concat(words, " ")
end

local bash = [==[
# bash completion for moonpool; `moonpool help completion bash` prints it, from the options themselves.
_moonpool() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    local words='' kind=nothing options='' front=''
    COMPREPLY=()
    # --option=value is three words where = breaks them, and one where it does not.
    if [[ $cur == '=' ]]; then
        cur=''
    elif [[ $prev == '=' ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    elif [[ $cur == --*=* ]]; then
        front=${cur%%=*}=
        prev=${cur%%=*}
        cur=${cur#*=}
    fi
    case $command in
@commands@    esac
    case "$command $prev" in
@values@    esac
    if ((COMP_CWORD == 1)); then
        words='@names@ help --help --version'
    elif [[ $command == help ]]; then
        words='@names@ @topics@'
        [[ $prev != completion ]] || words='@shells@'
    elif [[ -z $words && -z $front && $cur == -* ]]; then
        words=$options
    fi
    if [[ -n $words ]]; then
        mapfile -t COMPREPLY < <(compgen -P "$front" -W "$words" -- "$cur")
    elif [[ $kind == variables ]]; then
        mapfile -t COMPREPLY < <(compgen -P "$front" -e -- "$cur")
    elif [[ $kind == files ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -P "$front" -f -- "$cur")
    elif [[ $kind == lua ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -X '!*.lua' -- "$cur"; compgen -d -- "$cur")
    fi
}
complete -F _moonpool moonpool
]==]

local function fill(template, values)
  return (template:gsub("@(%l+)@", values))
end

function completion.bash(model)
  local cases, values = {}, {}
  for i, command in ipairs(model) do
    cases[i] = ("    %s) options='%s' kind=%s ;;\n"):format(command.name, long_names(command),
      command.follows or "nothing")
    values[i] = bash_values(command)
  end
  return fill(bash, { commands = table.concat(cases), values = table.concat(values),
    names = names_of(model), topics = table.concat(topics, " "), shells = table.concat(shells, " ") })
end

-- ---- zsh ---------------------------------------------------------------------------------------------

local zsh = [==[
#compdef moonpool
# zsh completion for moonpool; `moonpool help completion zsh` prints it, from the options themselves.
_moonpool() {
    local -a commands
    commands=(
@commands@        'help:Show the help, or that of a command.'
    )
    if (( CURRENT == 2 )); then
        _describe -t commands command commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
@cases@    help) _arguments '1:command:(@names@ @topics@)' '2:shell:(@shells@)' ;;
    esac
}
_moonpool "$@"
]==]

local zsh_actions = {
  files = "_files", lua = '_files -g "*.lua(-.)"', variables = "_parameters -g \"*export*\"", text = " ",
}

local function zsh_action(what)
  return type(what) == "table" and ("(%s)"):format(table.concat(what, " ")) or zsh_actions[what]
end

-- What stands in brackets and in quotes.
local function zsh_text(text)
  return (text:gsub("[%[%]:\\]", "\\%0"):gsub("'", "'\\''"))
end

local function zsh_option(option)
  local names, spec = {}, ("[%s]"):format(zsh_text(option.what))
  for i, name in ipairs(option.names) do
    names[i] = name .. (not option.takes and "" or name:sub(1, 2) == "--" and "=" or "+")
  end
  if option.takes then
    spec = spec .. ":value:" .. zsh_action(option.takes)
  end
  local rest = option.many and "*" or #names > 1 and ("(%s)"):format(table.concat(option.names, " ")) or ""
  if #names == 1 then
    return ("'%s%s%s'"):format(rest, names[1], spec)
  end
  return ("'%s'{%s}'%s'"):format(rest, table.concat(names, ","), spec)
end

function completion.zsh(model)
  local commands, cases = {}, {}
  for i, command in ipairs(model) do
    commands[i] = ("        '%s:%s'\n"):format(command.name, zsh_text(command.summary))
    local specs = {}
    for j, option in ipairs(command.options) do
      specs[j] = zsh_option(option)
    end
    if command.follows then
      specs[#specs + 1] = ("'*:argument:%s'"):format(zsh_action(command.follows))
    end
    cases[i] = ("    %s) _arguments \\\n        %s ;;\n"):format(command.name,
      table.concat(specs, " \\\n        "))
  end
  return fill(zsh, { commands = table.concat(commands), cases = table.concat(cases),
    names = names_of(model), topics = table.concat(topics, " "), shells = table.concat(shells, " ") })
end

-- ---- fish --------------------------------------------------------------------------------------------

local fish = [==[
# fish completion for moonpool; `moonpool help completion fish` prints it, from the options themselves.
function __moonpool_in
    set -l words (commandline -opc)
    test (count $words) -gt 1; and test "$words[2]" = "$argv[1]"
end
function __moonpool_first
    test (count (commandline -opc)) -eq 1
end
function __moonpool_lua
    set -l begun (commandline -ct)
    for path in $begun*.lua $begun*/
        echo $path
    end
end
complete -c moonpool -f
complete -c moonpool -n __moonpool_first -l help -d 'Show the help.'
complete -c moonpool -n __moonpool_first -l version -d 'Show the version.'
complete -c moonpool -n __moonpool_first -a help -d 'Show the help, or that of a command.'
complete -c moonpool -n '__moonpool_in help' -a '@names@ @topics@'
complete -c moonpool -n '__moonpool_in help; and __fish_seen_argument completion' -a '@shells@'
@commands@]==]

local fish_actions = {
  files = "-r -F", lua = "-x -a '(__moonpool_lua)'",
  variables = "-x -a '(set -nx)'", text = "-x",
}

local function fish_action(what)
  return type(what) == "table" and ("-x -a '%s'"):format(table.concat(what, " ")) or fish_actions[what]
end

local function fish_text(text)
  return (text:gsub("[\\']", "\\%0"))
end

local function fish_option(command, option)
  local names = {}
  for i, name in ipairs(option.names) do
    names[i] = name:sub(1, 2) == "--" and "-l " .. name:sub(3) or "-s " .. name:sub(2)
  end
  return ("complete -c moonpool -n '__moonpool_in %s' %s %s-d '%s'\n"):format(command.name,
    table.concat(names, " "), option.takes and fish_action(option.takes) .. " " or "", fish_text(option.what))
end

function completion.fish(model)
  local lines = {}
  for _, command in ipairs(model) do
    lines[#lines + 1] = ("complete -c moonpool -n __moonpool_first -a %s -d '%s'\n"):format(command.name,
      fish_text(command.summary))
    for _, option in ipairs(command.options) do
      lines[#lines + 1] = fish_option(command, option)
    end
    if command.follows then
      lines[#lines + 1] = ("complete -c moonpool -n '__moonpool_in %s' %s\n"):format(command.name,
        (fish_action(command.follows):gsub("^%-r ", "")))
    end
  end
  return fill(fish, { commands = table.concat(lines), names = names_of(model),
    topics = table.concat(topics, " "), shells = table.concat(shells, " ") })
end

completion.shells = shells

return completion
