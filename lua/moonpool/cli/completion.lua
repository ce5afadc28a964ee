-- moonpool.cli.completion: `moonpool help completion`, the script for bash, made from the parsers.
local completion = {}

-- What the words behind an option are, by the name of its argument.
local files = { FILE = true, OUTDIR = true, WHERE = true }
local variables = { VARIABLE = true }

local function how(option)
  local name = type(option._argname) == "table" and option._argname[1] or option._argname
  if option._choices then
    return "words='" .. table.concat(option._choices, " ") .. "'"
  elseif variables[name] then
    return "kind=variables"
  elseif files[name] then
    return "kind=files"
  end
  return "kind=nothing"
end

local function public(option)
  local names = {}
  for _, name in ipairs(option._public_aliases or option._aliases) do
    names[#names + 1] = name
  end
  return names
end

-- Cases of a command and the option before the cursor -> what follows it.
local function values(name, parser)
  local order, patterns = {}, {}
  for _, option in ipairs(parser._options) do
    local what = option._maxargs > 0 and how(option)
    if what and not patterns[what] then
      order[#order + 1], patterns[what] = what, {}
    end
    for _, alias in ipairs(what and public(option) or {}) do
      table.insert(patterns[what], ("'%s %s'"):format(name, alias))
    end
  end
  local lines = {}
  for i, what in ipairs(order) do
    lines[i] = ("    %s) %s ;;\n"):format(table.concat(patterns[what], " | "), what)
  end
  return table.concat(lines)
end

local function options(parser)
  local words = {}
  for _, option in ipairs(parser._options) do
    for _, name in ipairs(public(option)) do
      if name:sub(1, 2) == "--" then
        words[#words + 1] = name
      end
    end
  end
  table.sort(words)
  return words
end

local head = [[
# bash completion for moonpool; `moonpool help completion` prints it, from the options themselves.
_moonpool() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    local words='' kind=files options=''
    COMPREPLY=()
    case $command in
]]

local middle = [[
    esac
    case "$command $prev" in
]]

local tail = [==[
    esac
    if ((COMP_CWORD == 1)); then
        words='%s --help --version'
    elif [[ $command == help ]]; then
        words='%s licenses completion'
    elif [[ -z $words && $cur == -* ]]; then
        words=$options
    fi
    if [[ -n $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    elif [[ $kind == variables ]]; then
        mapfile -t COMPREPLY < <(compgen -e -- "$cur")
    elif [[ $kind == files ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    fi
}
complete -F _moonpool moonpool
]==]

--- commands: list of {name, parser or nil}. -> the script
function completion.bash(commands)
  local names, cases, followed = {}, {}, {}
  for i, command in ipairs(commands) do
    names[i] = command.name
    local words = command.parser and options(command.parser) or { "--help" }
    cases[i] = ("    %s) options='%s' ;;\n"):format(command.name, table.concat(words, " "))
    followed[i] = command.parser and values(command.name, command.parser) or ""
  end
  local all = table.concat(names, " ")
  return head .. table.concat(cases) .. middle .. table.concat(followed)
    .. tail:format(all .. " help", all)
end

return completion
