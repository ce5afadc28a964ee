-- resty/moonpool/abi.lua - libmoonpool as LuaJIT sees it: declarations, the library, JSON for its options.
local ffi = require "ffi"

ffi.cdef [[
typedef struct mp_bridge mp_bridge;
typedef struct mp_matrix mp_matrix;
struct mp_str { const char *p; size_t n; };
struct mp_header { const char *name; const char *value; };
struct mp_vectors {
  const char *list, *vector, *index;
  uint32_t dtype, dimensions, layout;
  const char *header, *tokens, *cut, *dims, *kind, *usage, *tokens_header;
};
struct mp_timeouts { double connect, read, write, pool, attempt, total; };
struct mp_exchange {
  uint64_t first;
  uint32_t count;
  uint16_t kind;
  int16_t status;
  uint16_t attempts, hedges, endpoint;
  uint8_t retryable, hedge_won;
  float time, retry_after;
  uint32_t head_len, message_len;
  size_t body_len;
  const char *data;
};
struct mp_result {
  uint64_t ticket;
  int kind;
  uint32_t dimensions;
  uint64_t rows, rows_ok;
  mp_matrix *matrix;
  struct mp_exchange *exchanges;
  size_t nexchanges;
  int64_t prompt_tokens, total_tokens;
  uint64_t rows_cut;
  const char *model;
  double total_time;
  int kept;
  uint64_t first_row;
};
struct mp_request {
  size_t size;
  void *client;
  const char *method, *path;
  const struct mp_header *headers;
  size_t nheaders;
  uint32_t mode, row_style, flags, max_concurrent;
  const struct mp_str *rows;
  size_t nrows;
  void *source, *source_arg, *row_headers;
  struct mp_str prefix, suffix, row_prefix, row_suffix, tail;
  const struct mp_vectors *vectors;
  const void *policy;
  const struct mp_timeouts *timeouts;
  void *done;
  void *arg;
  void *head, *chunk;
  const void *hooks;
};
struct mp_gather {
  size_t size;
  struct mp_str group, key;
  int32_t priority;
  uint32_t pad;
  double max_wait;
};
struct mp_completion { uint64_t ticket; void *arg; struct mp_result *result; };
struct mp_reply {
  size_t size;
  mp_matrix *matrix;
  const size_t *rows;
  size_t nrows;
  uint32_t style, format;
  const char *model, *id;
  int64_t prompt_tokens, total_tokens;
  double total_time;
};
const char *mp_version(void);
size_t mp_struct_size(const char *name);
const char *mp_last_error(void);
const char *mp_kind_name(int kind);
const char *mp_exchange_message(const struct mp_exchange *x);
const char *mp_exchange_request_id(const struct mp_exchange *x);
const char *mp_exchange_body(const struct mp_exchange *x);
float *mp_matrix_data(mp_matrix *m);
size_t mp_matrix_rows(const mp_matrix *m);
void mp_result_free(struct mp_result *result);
int mp_reply_write(const struct mp_reply *reply, char **out, size_t *n);
void mp_free(void *p);
int mp_bridge_start_json(const char *json, size_t n, mp_bridge **out);
mp_bridge *mp_bridge_find(const char *name);
const char *mp_bridge_note(mp_bridge *bridge);
void mp_bridge_close(mp_bridge *bridge);
int mp_bridge_submit(mp_bridge *bridge, const struct mp_request *request,
                     const struct mp_gather *gather, uint64_t *ticket);
int mp_bridge_poll(mp_bridge *bridge, struct mp_completion *out, int max);
int mp_bridge_take(mp_bridge *bridge, uint64_t ticket, struct mp_completion *out);
void mp_bridge_cancel(mp_bridge *bridge, uint64_t ticket);
void mp_bridge_drop(mp_bridge *bridge, uint64_t ticket);
int mp_bridge_bell(mp_bridge *bridge, const char *dir, char *path, size_t size);
int mp_bridge_bell_accept(mp_bridge *bridge);
int mp_bridge_stats_text(mp_bridge *bridge, char **out, size_t *n);
unsigned int geteuid(void);
]]

local M = { _VERSION = "0.1.0" }

-- The prefix this file was installed under, whose lib/ has the library.
local function own_prefix()
  local file = debug.getinfo(1, "S").source:match "^@(.*)$" or ""
  return file:match "^(.*)/share/lua/[^/]+/resty/moonpool/[^/]+$"
end

local function load_library(given)
  local prefix, problems = own_prefix(), {}
  local names = { "libmoonpool.so.0", "/usr/local/lib/libmoonpool.so.0" }
  if prefix then table.insert(names, 1, prefix .. "/lib/libmoonpool.so.0") end
  given = given or os.getenv "MOONPOOL_LIBRARY"
  if given then names = { given } end
  for _, name in ipairs(names) do
    local ok, lib = pcall(ffi.load, name)
    if ok then return lib end
    problems[#problems + 1] = tostring(lib)
  end
  error("resty.moonpool: libmoonpool.so.0 is not found: " .. table.concat(problems, "; "), 0)
end

local function check_layout(lib)
  for _, name in ipairs {
    "mp_vectors", "mp_timeouts", "mp_exchange", "mp_result", "mp_request", "mp_gather", "mp_completion",
    "mp_reply",
  } do
    if ffi.sizeof("struct " .. name) ~= tonumber(lib.mp_struct_size(name)) then
      error(("resty.moonpool %s and libmoonpool %s are of different versions (struct %s)"):format(
        M._VERSION, ffi.string(lib.mp_version()), name), 0)
    end
  end
end

local lib

--- The library, loaded on first use; raises where it is missing or of another version. `name`: its file.
function M.library(name)
  if not lib then
    local l = load_library(name)
    check_layout(l)
    lib = l
  end
  return lib
end

-- ---- JSON, as much as requests need ----------------------------------------------------------------

local escapes = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
  ["\t"] = "\\t",
}

local function escape(c)
  return escapes[c] or ("\\u%04x"):format(c:byte())
end

local function quote(s)
  return '"' .. s:gsub('[%z\1-\31\\"]', escape) .. '"'
end

local encode

local function encode_list(t, n)
  local out = {}
  for i = 1, n do out[i] = encode(t[i]) end
  return "[" .. table.concat(out, ",") .. "]"
end

function encode(v)
  local kind = type(v)
  if kind == "string" then return quote(v) end
  if kind == "boolean" then return tostring(v) end
  if kind == "number" then
    if v ~= v or v == math.huge or v == -math.huge then error("a number that JSON does not have", 0) end
    return v == math.floor(v) and math.abs(v) < 2 ^ 53 and ("%d"):format(v) or ("%.17g"):format(v)
  end
  if kind ~= "table" then error("a " .. kind .. " has no JSON form", 0) end
  if #v > 0 then return encode_list(v, #v) end
  local out = {}
  for name, value in pairs(v) do
    if type(name) ~= "string" then error("a table with keys that are no texts", 0) end
    out[#out + 1] = quote(name) .. ":" .. encode(value)
  end
  return "{" .. table.concat(out, ",") .. "}"
end

M.encode, M.quote = encode, quote

return M
