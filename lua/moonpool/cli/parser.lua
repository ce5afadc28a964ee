-- moonpool.cli.parser: argparse without its habits of printing and calling os.exit by itself.
--
-- A command's parser raises instead, and cli.main prints, chooses the exit code and lets every
-- <close> variable on the way run.
local options = require "moonpool.options"
local argparse = require "moonpool.argparse"
local core = require "moonpool.core"

local parser = {}

local Stop = {}
Stop.__index = Stop

--- An error value that ends the command: text goes to standard output when code is 0, else to
--- standard error.
function parser.stop(code, text)
  error(setmetatable({ code = code, text = text }, Stop), 0)
end

function parser.is_stop(err)
  return getmetatable(err) == Stop
end

--- A wrong use of a command: exit code 2.
function parser.usage_error(name, message, usage)
  local text = ("%s%s: %s\n(%s --help shows all options)\n"):format(
    usage and usage .. "\n\n" or "", name, options.masked(message), name)
  parser.stop(2, text)
end

-- Lines of one paragraph as one line, so that only the width breaks them; what is indented stays.
local function paragraphs(text)
  return text and (text:gsub("([^\n])\n([^%s])", "%1 %2"))
end

-- "-i, --input FILE", and a name without a short form below the long ones.
local function one_line(option)
  local names = table.concat(option._public_aliases, ", ")
  local value = table.concat(option:_get_argument_list(), " ")
  return { (names:sub(1, 2) == "--" and "    " or "") .. names .. (value ~= "" and " " .. value or "") }
end

local WIDEST = 100

--- A parser for `moonpool NAME`.
function parser.new(name, description, epilog)
  local p = argparse("moonpool " .. name, description, paragraphs(epilog)):add_help(false)
  p:help_description_margin(34)
  p:flag("-h --help", "Show this help and exit."):action(function()
    parser.stop(0, parser.help(p))
  end)
  return p
end

--- What an option says of itself, found out only when somebody asks: how(option) sets it.
function parser.late(option, how)
  option._late = how
end

--- The parser with all that its options say.
function parser.complete(p)
  for _, option in ipairs(p._options) do
    if option._late then
      option:_late()
    end
  end
  return p
end

--- What `moonpool NAME --help` prints, no wider than the terminal.
function parser.help(p)
  p:help_max_width(math.max(60, math.min(WIDEST, core.terminal_width(1) or WIDEST)))
  for _, option in ipairs(parser.complete(p)._options) do
    option._get_label_lines = one_line
  end
  return p:get_help() .. "\n"
end

--- args: a list. Returns the parsed table, or raises a stop with usage and reason.
function parser.parse(p, args)
  return p:_parse(args, function(_, message)
    parser.usage_error(p._name, message, p:get_usage())
  end)
end

-- ---- converters: value, or nil and the reason ----

local function number(text)
  local n = tonumber((text:gsub("(%d)_(%d)", "%1%2"))) -- 50_000 is easier to read
  -- Lua would take 0x10 too, and 1e400 as infinity
  if not n or text:find "[xXnN]" or n ~= n or n == math.huge then
    return nil, ("'%s' is not a number"):format(text)
  end
  return n
end

--- A number above zero.
function parser.positive(text)
  local n, err = number(text)
  if n and n <= 0 then
    return nil, ("'%s' must be above 0"):format(text)
  end
  return n, err
end

--- A number of seconds, 0 or more.
function parser.seconds(text)
  local n, err = number(text)
  if n and n < 0 then
    return nil, ("'%s' must not be negative"):format(text)
  end
  return n, err
end

local function integer(least)
  return function(text)
    local n, err = number(text)
    n = n and math.tointeger(n)
    if not n or n < least then
      return nil, err or ("'%s' must be a whole number of at least %d"):format(text, least)
    end
    return n
  end
end

--- An integer of at least 1.
parser.count = integer(1)

--- An integer of at least 0.
parser.whole = integer(0)

--- A number of bytes: 1000, 64M, 2GiB.
function parser.bytes(text)
  local n, unit = text:match "^(%d+)([kKmMgG]?)[iI]?[bB]?$"
  local shift = ({ [""] = 0, k = 10, m = 20, g = 30 })[(unit or ""):lower()]
  n = math.tointeger(tonumber(n))
  if not n or n << shift >> shift ~= n then
    return nil, ("'%s' is no number of bytes (for example 64M)"):format(text)
  end
  return n << shift
end

return parser
