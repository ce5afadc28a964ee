-- moonpool.cli.summary: how the commands that work on many rows tell what they did.
local json = require "moonpool.json"
local progress = require "moonpool.progress"

local summary = {}

local function counted(n, what)
  return ("%s %s"):format(progress.thousands(n), n == 1 and what:gsub("ies$", "y"):gsub("s$", "") or what)
end
summary.counted = counted

--- The figures of a job: rows and failed, seconds, and the client's counters.
function summary.figures(rows, failed, seconds, stats)
  return {
    rows = rows, failed = failed, seconds = seconds,
    rows_per_second = seconds > 0 and rows / seconds or 0, requests = stats.requests or 0,
    attempts = stats.attempts or 0, retries = stats.retries or 0, hedges = stats.hedges or 0,
  }
end

--- `what` says what was done, for example "embedded 12 rows into out"; first_error = {row, kind, message}.
function summary.text(what, s, first_error)
  local text = ("%s in %s: %s rows/s, %s, %s%s\n"):format(what, progress.duration(s.seconds),
    progress.thousands(math.floor(s.rows_per_second + 0.5)), counted(s.requests, "requests"),
    counted(s.retries, "retries"), s.hedges > 0 and ", " .. counted(s.hedges, "hedges") or "")
  if first_error then
    text = text .. ("%s of %s failed; the first is row %d: %s: %s\n"):format(counted(s.failed, "rows"),
      progress.thousands(s.rows), first_error.row, first_error.kind, first_error.message)
  end
  return text
end

--- One line of JSON.
function summary.json(s)
  return json.encode(s, { sort_keys = true }) .. "\n"
end

return summary
