-- moonpool.metrics: what programs have done, as Prometheus reads it (text format 0.0.4).
--
-- Whoever has something to tell puts itself into M.sources: an object with :collect(add), where
-- add(name, kind, help, labels, value) gives one sample. Clients are found by themselves.
local client = require "moonpool.client.client"

local M = { sources = setmetatable({}, { __mode = "k" }) }

local function escape(value)
  return (tostring(value):gsub('[\\"\n]', { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }))
end

--- {a = 1} -> '{a="1"}', in a fixed order.
local function label_text(labels)
  if not labels or next(labels) == nil then
    return ""
  end
  local names = {}
  for name in pairs(labels) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do names[i] = ('%s="%s"'):format(name, escape(labels[name])) end
  return "{" .. table.concat(names, ",") .. "}"
end

local function number(v)
  if v ~= v then
    return "NaN"
  end
  if v == math.huge then
    return "+Inf"
  end
  return math.type(v) == "integer" and tostring(v) or ("%.9g"):format(v)
end

local client_counters = {
  { "calls", "Calls made." }, { "requests", "Requests ended." },
  { "attempts", "Attempts started, retries and hedges among them." },
  { "retries", "Attempts after the first." },
  { "hedges", "Second copies sent." }, { "failed", "Requests that failed in the end." },
  { "throttled", "Replies that said to slow down." }, { "rows", "Rows sent." },
  { "rows_failed", "Rows that failed." }, { "bytes_sent", "Bytes of bodies sent." },
  { "bytes_received", "Bytes of bodies received." }, { "connections_opened", "Connections opened." },
}
local client_gauges = {
  { "in_flight", "Requests under way." }, { "pool_waiting", "Requests that wait for a connection." },
  { "connections_open", "Connections open." }, { "retry_budget", "Retries that may be spent now." },
}

local function collect_client(state, stats, add)
  local labels = { endpoint = state.urls[1], provider = state.provider.name }
  for _, c in ipairs(client_counters) do
    if stats[c[1]] then
      add("moonpool_client_" .. c[1] .. "_total", "counter", c[2], labels, stats[c[1]])
    end
  end
  for _, c in ipairs(client_gauges) do
    if stats[c[1]] then
      add("moonpool_client_" .. c[1], "gauge", c[2], labels, stats[c[1]])
    end
  end
end

-- Families in the order of their names; samples of one family must stand together.
local function collector()
  local families, names = {}, {}
  local function add(name, kind, help, labels, value, suffix)
    local family = families[name]
    if not family then
      family = { kind = kind, help = help }
      families[name], names[#names + 1] = family, name
    end
    local head = name .. (suffix or "") .. label_text(labels)
    if family[head] and kind == "counter" then
      family[head].value = family[head].value + value -- two clients of one endpoint
    else
      family[head] = { head = head, value = value }
      family[#family + 1] = family[head]
    end
  end
  return add, families, names
end

--- The text of all clients of this program and of its gateways.
function M.text()
  local add, families, names = collector()
  client.each(function(object, state)
    local ok, stats = pcall(object.stats, object)
    if ok then
      collect_client(state, stats, add)
    end
  end)
  for source in pairs(M.sources) do source:collect(add) end
  table.sort(names)
  local out = {}
  for _, name in ipairs(names) do
    local family = families[name]
    out[#out + 1] = ("# HELP %s %s\n# TYPE %s %s\n"):format(name, family.help, name, family.kind)
    for _, sample in ipairs(family) do
      out[#out + 1] = ("%s %s\n"):format(sample.head, number(sample.value))
    end
  end
  return table.concat(out)
end

-- ---- histograms -------------------------------------------------------------------------------------

local histogram = {}
histogram.__index = histogram

--- histogram(bounds): bounds ascending.
function M.histogram(bounds)
  local counts = {}
  for i = 1, #bounds + 1 do counts[i] = 0 end
  return setmetatable({ bounds = bounds, counts = counts, sum = 0.0, n = 0 }, histogram)
end

function histogram:add(value)
  local bounds = self.bounds
  local low, high = 1, #bounds + 1
  while low < high do
    local middle = (low + high) // 2
    if value <= bounds[middle] then
      high = middle
    else
      low = middle + 1
    end
  end
  self.counts[low] = self.counts[low] + 1
  self.sum, self.n = self.sum + value, self.n + 1
end

function histogram:collect(add, name, help, labels)
  local sum = 0
  local own = {}
  for k, v in pairs(labels or {}) do own[k] = v end
  for i, count in ipairs(self.counts) do
    sum = sum + count
    own.le = self.bounds[i] and ("%.9g"):format(self.bounds[i]) or "+Inf"
    add(name, "histogram", help, own, sum, "_bucket")
  end
  add(name, "histogram", help, labels, self.sum, "_sum")
  add(name, "histogram", help, labels, self.n, "_count")
end

return M
