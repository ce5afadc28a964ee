-- moonpool.progress: one line on a terminal that tells how a job goes.
--
--   local bar = progress.new { total_bytes = n, enabled = nil }   -- enabled: standard error is a terminal
--   bar:update { rows =, failed =, retries =, bytes = }           -- draws at most ten times a second,
--                                                                 -- when bar:due()
--   bar:clear()                                                   -- before anything else is printed
local core = require "moonpool.core"

local progress = {}

local Bar = {}
Bar.__index = Bar

local WINDOW = 10 -- seconds that the shown rate looks back
local DRAW_EVERY = 0.1
local PLAIN_EVERY = 10 -- seconds between lines where there is no terminal

--- 1234567 -> "1,234,567"
function progress.thousands(n)
  local text = ("%d"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", "")
  return text
end

--- Seconds as people say them: "0.8 s", "12.3 s", "4:05", "1:02:03".
function progress.duration(s)
  if s < 60 then
    return ("%.1f s"):format(s)
  end
  local whole = math.floor(s + 0.5)
  local h, m = whole // 3600, whole % 3600 // 60
  if h > 0 then
    return ("%d:%02d:%02d"):format(h, m, whole % 60)
  end
  return ("%d:%02d"):format(m, whole % 60)
end

--- Whether to use colour on descriptor fd (see no-color.org).
function progress.color(fd)
  local no_color = os.getenv "NO_COLOR"
  return core.isatty(fd) and os.getenv "TERM" ~= "dumb" and (no_color == nil or no_color == "")
end

--- opts: total_bytes, enabled, color, out (a file), width, now (a clock, for tests).
function progress.new(opts)
  opts = opts or {}
  local enabled = opts.enabled
  if enabled == nil then
    enabled = core.isatty(2) and os.getenv "TERM" ~= "dumb"
  end
  local color = opts.color
  if color == nil then
    color = progress.color(2)
  end
  local now = opts.now or core.now
  return setmetatable({
    enabled = enabled,
    plain = opts.plain and not enabled,
    color = color,
    out = opts.out or io.stderr,
    total_bytes = opts.total_bytes,
    width = opts.width,
    now = now,
    started = now(),
    drawn = -math.huge,
    samples = {},
    first = 1,
  }, Bar)
end

-- Rows a second over the last seconds; samples are a queue from self.first on.
local function rate(self, at, rows)
  local samples = self.samples
  samples[#samples + 1] = { at = at, rows = rows }
  while self.first < #samples and at - samples[self.first + 1].at >= WINDOW do
    self.first = self.first + 1
  end
  if self.first > 256 then
    samples = table.move(samples, self.first, #samples, 1, {})
    self.samples, self.first = samples, 1
  end
  local old = samples[self.first]
  if old.at == at then
    old = { at = self.started, rows = 0 }
  end
  return at > old.at and (rows - old.rows) / (at - old.at) or 0
end

local function share_done(self, state)
  local total = self.total_bytes
  if total and total > 0 and state.bytes then
    return math.min(state.bytes / total, 1)
  end
end

-- Figures that are told when they are not zero, and what may go first.
local counts = {
  { "in_flight", "in flight", 8 }, { "retries", "retries", 6 }, { "hedges", "hedges", 9 },
  { "throttled", "429s", 7 },
}

local function add_counts(list, state)
  for _, count in ipairs(counts) do
    local n = state[count[1]] or 0
    if n > 0 then
      local text = progress.thousands(n) .. " " .. count[2]
      list[#list + 1] = { text, text, count[3] }
    end
  end
end

-- What there is to tell, in the order of the line: {text, how it is said where room is short, what may
-- go first where it is shorter still}.
local function parts(self, state, at)
  local rows = progress.thousands(state.rows)
  local speed = progress.thousands(math.floor(rate(self, at, state.rows) + 0.5))
  local list = { { rows .. " rows", rows .. " rows", 1 }, { speed .. " rows/s", speed .. "/s", 5 } }
  local share = share_done(self, state)
  if share then
    local percent = ("%d %%"):format(math.floor(share * 100))
    list[#list + 1] = { percent, percent, 3 }
    if share > 0.001 and at > self.started then
      local left = "ETA " .. progress.duration((at - self.started) * (1 - share) / share)
      list[#list + 1] = { left, left, 4 }
    end
  end
  if (state.tokens or 0) > 0 and at > self.started then
    local tokens = progress.thousands(math.floor(state.tokens / (at - self.started) + 0.5))
    list[#list + 1] = { tokens .. " tokens/s", tokens .. " tok/s", 10 }
  end
  add_counts(list, state)
  if state.cost then
    local cost = ("%.4f USD"):format(state.cost)
    list[#list + 1] = { cost, cost, 5.5 }
  end
  if (state.failed or 0) > 0 then
    local failed = progress.thousands(state.failed) .. " failed"
    list[#list + 1] = { failed, failed, 2 }
  end
  return list
end

local function join(list, form, gap)
  local texts = {}
  for i, part in ipairs(list) do
    texts[i] = part[form]
  end
  return table.concat(texts, gap)
end

local function drop_least(list)
  local least = 1
  for i, part in ipairs(list) do
    if part[3] > list[least][3] then
      least = i
    end
  end
  table.remove(list, least)
end

--- The line as text: said shorter where the terminal is narrow, then without what matters least.
function Bar:line(state)
  local list = parts(self, state, self.now())
  local room = (self.width or core.terminal_width(2) or 80) - 1
  local text = join(list, 1, "   ")
  while #text > room do
    text = join(list, 2, "  ")
    if #text > room and #list == 1 then
      return text:sub(1, room)
    elseif #text > room then
      drop_least(list)
    end
  end
  return text
end

--- Whether update would draw now; to gather what it shows costs more than to ask.
function Bar:due()
  if self.plain then
    return self.now() - math.max(self.drawn, self.started) >= PLAIN_EVERY
  end
  return self.enabled and self.now() - self.drawn >= DRAW_EVERY
end

function Bar:update(state)
  if not self:due() then
    return
  end
  self.drawn = self.now()
  if self.plain then
    self.out:write(join(parts(self, state, self.now()), 1, "   "), "\n")
    return
  end
  local text = self:line(state)
  if self.color then
    text = text:gsub("(%d[%d,]* failed)$", "\27[31m%1\27[0m")
  end
  self.out:write("\r", text, "\27[K")
  self.out:flush()
  self.visible = true
end

function Bar:clear()
  if self.visible then
    self.out:write "\r\27[K"
    self.out:flush()
    self.visible = nil
  end
end
Bar.__close = Bar.clear

return progress
