-- time_of_day - slow while people work, fast at night.
--
--   local hours = require "examples.policies.time_of_day" {
--     { from = 8, to = 20, rpm = 300 },    -- by day
--     { from = 20, to = 8, rpm = 3000 },   -- by night
--   }
--   local client = moonpool.client { base_url = url, policy = hours }
--
-- A token bucket whose rate is that of the hour, with a burst of one second. Hours that no line names
-- are not limited; rpm = 0 closes them until the next line begins. The client's own `rate` table stands
-- beside it: this one only slows down further.
--
-- Options in the same table: clock = function() returning the hour with its fraction (local time).

local function local_hour()
  local t = os.date "*t"
  return t.hour + t.min / 60 + t.sec / 3600
end

local function covers(line, hour)
  if line.from <= line.to then return hour >= line.from and hour < line.to end
  return hour >= line.from or hour < line.to
end

local function line_of(lines, hour)
  for _, line in ipairs(lines) do
    if covers(line, hour) then return line end
  end
end

local function refill(s, now, per_second)
  local burst = math.max(1, per_second)
  if s.at then s.level = math.min(burst, s.level + (now - s.at) * per_second) end
  s.at, s.level = now, math.min(s.level, burst)
end

return function(lines)
  for i, line in ipairs(lines) do
    assert(line.from and line.to and line.rpm,
      ("time_of_day: line %d: from, to and rpm are needed"):format(i))
  end
  local clock = lines.clock or local_hour
  local s = { level = 1 }
  return {
    name = "time_of_day",
    rate = function(view)
      local line = line_of(lines, clock())
      if not line then return end
      local per_second = line.rpm / 60
      refill(s, view.now, per_second)
      if s.level >= 1 then
        s.level = s.level - 1
        return
      end
      if per_second == 0 then return 30 end -- looked at again twice a minute
      return (1 - s.level) / per_second
    end,
  }
end
