-- moonpool.repl.eval: a line as a chunk whose top-level locals live on.
--
-- Nothing of the source is rewritten but the attributes of top-level locals. A chunk is compiled inside
-- a function that declares the earlier locals, and its upvalues are then joined to theirs, so a
-- closure made ten lines ago and the line typed now mean the same variable. What the chunk declares
-- itself is found by its tokens, and kept by a call appended to it, which hands out a closure over it.
local eval = {}

local MAX_LOCALS = 150 -- a function may have 200 locals and 255 upvalues

-- ---- tokens ------------------------------------------------------------------------------------------

-- Where the long bracket at `at` ends, or nil.
local function long_end(text, at)
  local level = text:match("^%[(=*)%[", at)
  if not level then
    return nil
  end
  local _, to = text:find("]" .. level .. "]", at, true)
  return to or #text
end

local function string_end(text, at)
  local quote, i = text:sub(at, at), at + 1
  while i <= #text do
    local c = text:sub(i, i)
    if c == "\\" then
      i = i + 1
    elseif c == quote or c == "\n" then
      return i
    end
    i = i + 1
  end
  return #text
end

-- An iterator over the words and signs of a source, without comments and strings: text, from, to.
local function tokens(text)
  local at = 1
  return function()
    while true do
      at = text:find("%S", at)
      if not at then
        return nil
      end
      if text:find("^%-%-", at) then
        at = (long_end(text, at + 2) or (text:find("\n", at, true) or #text)) + 1
      elseif text:find("^%[=*%[", at) then
        at = long_end(text, at) + 1
      elseif text:find("^[\"']", at) then
        at = string_end(text, at) + 1
      else
        local from = at
        local to = select(2, text:find("^[%a_][%w_]*", at)) or select(2, text:find("^%.?%d[%w.]*", at)) or at
        at = to + 1
        return text:sub(from, to), from, to
      end
    end
  end
end

local opens = { ["function"] = 1, ["do"] = 1, ["if"] = 1, ["repeat"] = 1, ["end"] = -1, ["until"] = -1 }

-- The names that a chunk declares at its top level, and where their attributes are: {name}, {{from, to,
-- name, attribute}}.
local function declared(text)
  local names, attributes, depth = {}, {}, 0
  local next_token = tokens(text)
  local token = next_token()
  while token do
    depth = depth + (opens[token] or 0)
    if token == "local" and depth == 0 then
      token = next_token()
      if token == "function" then
        names[#names + 1] = next_token()
        depth = depth + 1
        token = next_token()
      else
        while token and token:find "^[%a_]" do
          local name = token
          names[#names + 1] = name
          local from
          token, from = next_token()
          if token == "<" then
            local word = next_token()
            local _, _, to = next_token()
            if to then
              attributes[#attributes + 1] = { from, to, name, word }
            end
            token = next_token()
          end
          if token ~= "," then
            break
          end
          token = next_token()
        end
      end
    else
      token = next_token()
    end
  end
  return names, attributes
end

-- ---- a session -----------------------------------------------------------------------------------------

local Session = {}
Session.__index = Session

--- A session without locals; `closing` collects what `local x <close>` wants closed at its end.
function eval.session()
  return setmetatable({ names = {}, cells = {}, closing = {} }, Session)
end

-- A top-level `<close>` would end with its line: it is kept for the session's end instead.
local function without_attributes(text, attributes)
  local close = {}
  for _, a in ipairs(attributes) do
    local from, to, name, word = table.unpack(a)
    if word == "close" or word == "const" then
      text = text:sub(1, from - 1) .. (" "):rep(to - from + 1) .. text:sub(to + 1)
      if word == "close" then
        close[#close + 1] = name
      end
    end
  end
  return text, close
end

-- cells[name] = {function, index}: the upvalue that is the variable.
local function join(self, f)
  local i = 1
  while true do
    local name = debug.getupvalue(f, i)
    if not name then
      return
    end
    local cell = self.cells[name]
    if cell then
      debug.upvaluejoin(f, i, cell[1], cell[2])
    end
    i = i + 1
  end
end

local function keep(self, holder, close)
  local i = 1
  while true do
    local name, value = debug.getupvalue(holder, i)
    if not name then
      break
    end
    if name ~= "_ENV" then
      if not self.cells[name] then
        if #self.names >= MAX_LOCALS then
          self.cells[table.remove(self.names, 1)] = nil
        end
        self.names[#self.names + 1] = name
      end
      self.cells[name] = { holder, i }
      for _, closed in ipairs(close) do
        if closed == name and value ~= nil then
          self.closing[#self.closing + 1] = value
        end
      end
    end
    i = i + 1
  end
end

-- Compiles `body` (an expression or a block) under the session's locals; the chunk, or nil and why.
local function compile(self, body, name)
  local head = #self.names > 0 and "local " .. table.concat(self.names, ",") .. " " or ""
  local outer, why = load(head .. "return function(...) " .. body .. "\nend", name, "t")
  if not outer then
    return nil, why
  end
  local f = outer()
  join(self, f)
  return f
end

-- The chunk must stand alone first, or `end` in it could end our function.
local function whole(text, name)
  return load(text, name, "t")
end

--- load(text, name) -> a function; or nil, message, incomplete. The function runs the chunk and returns
--- its values; is_expression is its second result.
function Session:load(text, name)
  name = name or "=stdin"
  local expression = whole("return " .. text, name) and compile(self, "return " .. text, name)
  if expression then
    return expression, true
  end
  local names, attributes = declared(text)
  local source, close = without_attributes(text, attributes)
  local ok, why = whole(source, name)
  if not ok then
    return nil, why, why:find("near <eof>", 1, true) ~= nil
  end
  if #names == 0 then
    return compile(self, source, name), false
  end
  -- The appended call sees the locals as they are at the end; where the chunk returns it cannot stand.
  local list = table.concat(names, ",")
  local kept = compile(self, source .. "\n;(...)(function() return " .. list .. " end)", name)
  if not kept then
    return compile(self, source, name), false
  end
  return function()
    return kept(function(holder) keep(self, holder, close) end)
  end, false
end

--- The value of a local, and whether there is one of that name.
function Session:get(name)
  local cell = self.cells[name]
  if not cell then
    return nil, false
  end
  return select(2, debug.getupvalue(cell[1], cell[2])), true
end

--- Ends what the session's `<close>` locals hold, the last first.
function Session:close()
  for i = #self.closing, 1, -1 do
    local meta = getmetatable(self.closing[i])
    if meta and meta.__close then
      pcall(meta.__close, self.closing[i])
    end
    self.closing[i] = nil
  end
end

return eval
