-- moonpool.job.cache: vectors that were paid for once, in a file of SQLite that jobs share: by
-- provider, model, options and text.
local core = require "moonpool.core"
local matrix = require "moonpool.matrix"

local cache = {}

local SIZE = 1 << 30 -- bytes of the file unless told otherwise
local PRUNE_EVERY = 20000 -- vectors put

local Cache = {}
Cache.__index = Cache

local function check(rows, err)
  if not rows then
    error(core.error("file", "the cache: " .. tostring(err)), 0)
  end
  return rows
end

local schema = {
  "PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL",
  "CREATE TABLE IF NOT EXISTS spaces (id INTEGER PRIMARY KEY, name BLOB UNIQUE NOT NULL)",
  "CREATE TABLE IF NOT EXISTS vectors (space INTEGER NOT NULL, key BLOB NOT NULL, vector BLOB NOT NULL, "
    .. "used INTEGER NOT NULL, PRIMARY KEY (space, key))",
  "CREATE INDEX IF NOT EXISTS vectors_used ON vectors (used)",
}

--- cache.open(path, {size=}) -> cache, or nil and the reason.
function cache.open(path, o)
  local db, err = core.sqlite_open(path)
  if not db then
    return nil, err
  end
  for _, sql in ipairs(schema) do
    local rows, why = db:query(sql)
    if not rows then
      db:close()
      return nil, ("%s: %s"):format(path, why)
    end
  end
  return setmetatable({ db = db, size = o and o.size or SIZE, put_since = 0, hits = 0 }, Cache)
end

--- From now on vectors of that name, which says all that makes them what they are.
function Cache:use(name)
  check(self.db:query("INSERT OR IGNORE INTO spaces (name) VALUES (?)", name))
  self.space = check(self.db:query("SELECT id FROM spaces WHERE name = ?", name))[1][1]
end

local function key_of(text)
  return core.sum(text)
end

--- The vector of a text as a matrix of one row, or nil.
function Cache:get(text)
  local key = key_of(text)
  local row = check(self.db:query("SELECT vector, used FROM vectors WHERE space = ? AND key = ?",
    self.space, key))[1]
  if not row then
    return nil
  end
  local now = os.time()
  if now - row[2] > 3600 then
    check(self.db:query("UPDATE vectors SET used = ? WHERE space = ? AND key = ?", now, self.space, key))
  end
  self.hits = self.hits + 1
  return matrix.from(row[1], #row[1] // 4)
end

--- Keeps the vectors of a batch that came whole.
function Cache:put_batch(batch)
  local failed, now = {}, os.time()
  for _, e in ipairs(batch.errors) do
    failed[e.index] = true
  end
  check(self.db:query "BEGIN IMMEDIATE")
  for i, item in ipairs(batch.items) do
    if not failed[i] then
      check(self.db:query("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", self.space, key_of(item.text),
        batch.matrix[i]:bytes(), now))
    end
  end
  check(self.db:query "COMMIT")
  self.put_since = self.put_since + #batch.items
  if self.put_since >= PRUNE_EVERY then
    self.put_since = 0
    self:prune(self.size)
  end
end

local function bytes_of(self)
  local pages = check(self.db:query "PRAGMA page_count")[1][1]
  local free = check(self.db:query "PRAGMA freelist_count")[1][1]
  return (pages - free) * check(self.db:query "PRAGMA page_size")[1][1]
end

--- Drops what was not used for longest until the rest fits; how many vectors went.
function Cache:prune(size)
  local dropped = 0
  while bytes_of(self) > size do
    local n = check(self.db:query "SELECT count(*) FROM vectors")[1][1]
    local share = math.max(1, n // 10)
    check(self.db:query("DELETE FROM vectors WHERE rowid IN "
      .. "(SELECT rowid FROM vectors ORDER BY used LIMIT ?)", share))
    dropped = dropped + math.min(share, n)
    if n <= share then
      break
    end
  end
  return dropped
end

--- Gives the room of what was dropped back to the disk.
function Cache:compact()
  check(self.db:query "VACUUM")
end

--- {vectors=, bytes=, spaces = list of {name=, vectors=, bytes=}}
function Cache:stats()
  local rows = check(self.db:query("SELECT s.name, count(v.key), coalesce(sum(length(v.vector)), 0) "
    .. "FROM spaces s LEFT JOIN vectors v ON v.space = s.id GROUP BY s.id ORDER BY s.id"))
  local stats = { vectors = 0, bytes = bytes_of(self), spaces = {} }
  for i, row in ipairs(rows) do
    stats.spaces[i] = { name = row[1], vectors = row[2], bytes = row[3] }
    stats.vectors = stats.vectors + row[2]
  end
  return stats
end

function Cache:close()
  if self.db then
    self.db:close()
    self.db = nil
  end
end
Cache.__close = Cache.close

return cache
