-- moonpool.job.difference: what an input that changed means for a job, before anything is asked: so
-- many rows are new, so many changed, so many gone.
local core = require "moonpool.core"
local progress = require "moonpool.progress"

local difference = {}

-- Whether the byte ends a line, so that what follows are rows of their own.
local function ends_line(path, bytes)
  local file = io.open(path, "rb")
  if not file then
    return false
  end
  file:seek("set", bytes - 1)
  local last = file:read(1)
  file:close()
  return last == "\n"
end

--- Whether the input is what it was with more lines behind it. Waits.
function difference.appended(input, before)
  local path = input.list and #input.list == 1 and input.list[1]
  return path and type(before) == "table" and before.files == 1 and (before.bytes or 0) > 0
    and (input.bytes or 0) > before.bytes and (input.form == "text" or input.form == "jsonl")
    and not path:find "%.gz$" and not path:find "%.zst$" and ends_line(path, before.bytes)
    and input:identity(before.bytes).sum == before.sum
end

--- The figures of a plan: old rows, rows that stay, rows found elsewhere, rows that no old one is like.
function difference.figures(old, kept, moved, unmatched)
  local left = math.max(0, old - kept - moved)
  local changed = math.min(left, unmatched)
  return { kept = kept, moved = moved, new = unmatched - changed, changed = changed, gone = left - changed }
end

--- Looks at every row of the input once: the figures of the plan.
function difference.plan(input, earlier)
  local kept, moved, unmatched, row = 0, 0, 0, 0
  for item in function() return input:next() end do
    item.row = row
    row = row + 1
    local how, why, at = earlier:look(item)
    if how == "copy" and at ~= item.row then
      moved = moved + 1
    elseif how or why == "failed" then
      kept = kept + 1
    else
      unmatched = unmatched + 1
    end
    if row % 65536 == 0 and core.in_task() then
      core.sleep(0)
    end
  end
  return difference.figures(earlier:rows(), kept, moved, unmatched)
end

--- For an input that only grew: the same without looking at the old rows.
function difference.growth(input, old_rows)
  local rows = 0
  repeat
    local n = input:skip(1 << 20)
    rows = rows + n
  until n == 0
  return difference.figures(old_rows, old_rows, 0, rows - old_rows)
end

--- "+1,200 new, 31 changed, 4 gone"
function difference.text(figures)
  return ("+%s new, %s changed, %s gone"):format(progress.thousands(figures.new),
    progress.thousands(figures.changed), progress.thousands(figures.gone))
end

return difference
