-- Stock nginx with its Lua module and lua/resty/moonpool.lua: the example's configuration under load,
-- through reloads, killed workers and clients that go away.

local moonpool = require "moonpool"
local programs = require "support.programs"
local rig = require "client_rig"

local build = assert(os.getenv "BUILD", "run by scripts/test")
if not build:find "^/" then build = programs.must "pwd":match "^%S+" .. "/" .. build end
local lua_dir = programs.must "pwd":match "^%S+" .. "/lua"

local function has_module()
  local f = io.open "/usr/lib/nginx/modules/ngx_http_lua_module.so"
  if f then f:close() end
  return f ~= nil
end

-- ---- the model behind: the text "12..." has the vector {12, #text} -----------------------------------

local upstream

local function number_of(text)
  return tonumber(text:match "^%d+") or -1
end

-- delay: s a request; hold: requests wait for upstream.go; .batches: rows of each request.
local function start_upstream(options)
  upstream = { batches = {}, aborted = 0, delay = options and options.delay or 0 }
  local function answer(req)
    local body = req:json()
    upstream.batches[#upstream.batches + 1] = #body.input
    upstream.first = upstream.first or moonpool.now()
    if moonpool.now() - upstream.first <= 1 then upstream.early = (upstream.early or 0) + 1 end
    local data = {}
    for i, text in ipairs(body.input) do
      if text:find "poison" then return { status = 400, json = { error = { message = "poison" } } } end
      data[i] = { index = i - 1, embedding = { number_of(text), #text } }
    end
    if upstream.delay > 0 then moonpool.sleep(upstream.delay) end
    local usage = { prompt_tokens = #data, total_tokens = #data }
    return { json = { data = data, model = body.model, usage = usage } }
  end
  upstream.server = rig.keep(assert(moonpool.serve { listen = "127.0.0.1:0", handler = function(req)
    if req.path == "/hang" or upstream.hang then
      upstream.hanging = (upstream.hanging or 0) + 1
      local waited = pcall(moonpool.sleep, 60)
      upstream.aborted = upstream.aborted + (waited and 0 or 1)
    elseif req.path == "/v1/embeddings" then
      return answer(req)
    end
    return { json = { path = req.path, method = req.method, body = req.body, x = req.headers["x-test"] } }
  end }))
  return upstream.server.url
end

-- ---- nginx -------------------------------------------------------------------------------------------

local more_locations = [[
        location = /access {
            access_by_lua_block {
                local res, err = require("resty.moonpool").embed { input = { "7", "8" } }
                ngx.ctx.text = res and ("%g %g"):format(res:row(1)[0], res:row(2)[0]) or tostring(err)
            }
            content_by_lua_block { ngx.print(ngx.ctx.text) }
        }
        location = /rewrite {
            rewrite_by_lua_block {
                local res, err = require("resty.moonpool").embed { input = "9" }
                ngx.print(res and ("%d %d %g"):format(res.rows, res.cols, res:row(1)[0]) or tostring(err))
                ngx.exit(200)
            }
        }
        location = /timer {
            content_by_lua_block {
                local text
                ngx.timer.at(0, function()
                    local res, err = require("resty.moonpool").embed { input = "10" }
                    text = res and tostring(res:row(1)[0]) or tostring(err)
                end)
                while not text do ngx.sleep(0.001) end
                ngx.print(text)
            }
        }
        location = /log {
            content_by_lua_block { ngx.print "ok" }
            log_by_lua_block {
                local res, err = require("resty.moonpool").embed { input = "11" }
                ngx.log(ngx.ERR, "in log: ", tostring(res), " ", tostring(err))
            }
        }
        location = /request {
            content_by_lua_block {
                local mp = require "resty.moonpool"
                local res = assert(mp.request { method = "PUT", path = "/thing", body = "a body",
                    headers = { ["X-Test"] = "yes" } })
                ngx.print(res.status, " ", res.headers["content-type"], " ", res.body)
            }
        }
        location = /errors {
            content_by_lua_block {
                local mp = require "resty.moonpool"
                local res, err = mp.embed { input = "1 poison" }
                ngx.say(tostring(res), " ", err.kind, " ", err.status, " ", err.message)
                res = mp.embed { input = { "1", "2 poison", "3" } }
                ngx.say(tostring(res.ok), " ", #res.errors, " ", res.errors[1].index, " ", res:row(3)[0])
                ngx.say(tostring(select(2, res:json())))
                ngx.say(select(2, pcall(mp.embed, { input = {} })))
                ngx.say(select(2, pcall(mp.embed, { input = { 1 } })))
                ngx.say(select(2, pcall(mp.embed, { input = "x", timeout = "soon" })))
                ngx.say(select(2, pcall(res.row, res, 4)))
            }
        }
        location = /late {
            content_by_lua_block {
                local res, err = require("resty.moonpool").request { path = "/hang", timeout = 0.05 }
                ngx.print(tostring(res), " ", err.kind)
            }
        }
        location = /usage {
            content_by_lua_block {
                local res = assert(require("resty.moonpool").embed { input = { "1", "2", "3" } })
                ngx.print(res.usage.total_tokens, " ", res.model, " ", res:json("base64"))
            }
        }
]]

-- The example's configuration, at a port and upstream of the test's; `change` edits its text.
local function start_nginx(url, change)
  local dir, port = programs.directory(), programs.free_port()
  programs.must("chmod 755 " .. dir)
  local preload = os.getenv "MOONPOOL_SANITIZED" and os.getenv "LD_PRELOAD"
  local text = programs.read "examples/openresty/nginx.conf"
  local function replace(what, with)
    local first, last = text:find(what, 1, true)
    assert(first, what)
    text = text:sub(1, first - 1) .. with .. text:sub(last + 1)
  end
  replace("http://127.0.0.1:8089", url)
  replace("listen 127.0.0.1:8090", "listen 127.0.0.1:" .. port)
  -- Root's nginx would give its workers to nobody, who may not read a checkout below /root.
  local user = programs.output "id -u":match "%d+" == "0" and "user root; " or ""
  replace("daemon on;", user .. "daemon off; env MOONPOOL_LIBRARY;")
  replace("http {", ("http {\n    lua_package_path '%s/lua/?.lua;%s/?.lua;;';"):format(build, lua_dir))
  replace("        location = /stats {", more_locations .. "        location = /stats {")
  if change then text = change(text) end
  local conf = programs.write(dir .. "/nginx.conf", text)
  local sanitizer = preload and ("'LD_PRELOAD=%s' ASAN_OPTIONS=detect_leaks=0"):format(preload) or ""
  local command = "MOONPOOL_LIBRARY='%s/libmoonpool.so' %s %s -e %s/error.log -p %s -c %s"
  local self = programs.start(command:format(build, sanitizer, programs.find "nginx", dir, dir, conf), dir)
  self.dir, self.port = dir, port
  self.url = "http://127.0.0.1:" .. port
  self.errors = function() return programs.read(dir .. "/error.log") end
  local ok, err = pcall(self.ready, self, port)
  if not ok then error(err .. "\n" .. self.errors(), 2) end
  return self
end

local function client_of(nginx, options)
  local o = { pool = { max_connections = 64 }, retry = false, breaker = false, timeout = 30 }
  for name, value in pairs(options or {}) do o[name] = value end
  return rig.client(nginx.url, o)
end

local function get(client, path)
  local res, err = client:request { method = "GET", path = path }
  return res and tostring(res.data) or tostring(err)
end

-- Sends texts "first".."last" as 64 at a time and checks each reply; the replies that failed.
local function load_of(client, first, last)
  local failed = {}
  moonpool.map((function()
    local i = first - 1
    return function()
      i = i + 1
      if i <= last then return i end
    end
  end)(), { window = 64 }, function(i)
    local res, err = client:request { path = "/embed", body = i .. " is a text" }
    if not res then
      failed[#failed + 1] = err
    else
      assert.same({ { i, #(i .. " is a text") } }, res.data)
    end
  end)
  return failed
end

local function workers(nginx)
  local list = {}
  local children = programs.read(("/proc/%s/task/%s/children"):format(nginx.pid, nginx.pid))
  for pid in children:gmatch "%d+" do list[#list + 1] = pid end
  return list
end

local function mean_batch()
  local rows = 0
  for _, n in ipairs(upstream.batches) do rows = rows + n end
  return rows / #upstream.batches
end

local describe_it = has_module() and programs.find "nginx" and describe or function(title)
  describe(title, function()
    it("needs nginx and its Lua module", function()
      pending "not installed: libnginx-mod-http-lua (./scripts/setup test)"
    end)
  end)
end

describe_it("resty.moonpool in stock nginx", function()
  after_each(rig.close_all)

  it("serves what the example says, in every phase that may wait", function()
    local nginx = start_nginx(start_upstream())
    local client = client_of(nginx)
    assert.same({ { 5, 1 } }, assert(client:request { path = "/embed", body = "5" }).data)
    assert.equal("7 8", get(client, "/access"))
    assert.equal("1 2 9", get(client, "/rewrite"))
    assert.equal("10", get(client, "/timer"))
    assert.equal("1 rows of 2, norm 5.099020\n", get(client, "/norm?q=hello"))
    assert.equal("ok", get(client, "/log"))
    rig.until_true("it is refused where nothing may wait", function()
      return nginx.errors():find "in log: nil invalid: API disabled"
    end)
    local answer = get(client, "/request")
    assert.truthy(answer:find '^200 application/json', answer)
    local body = moonpool.json.decode(answer:match "{.*}")
    assert.same({ method = "PUT", path = "/thing", body = "a body", x = "yes" }, body)
    local usage = get(client, "/usage")
    assert.truthy(usage:find '^3 m {"object":"list"', usage)
    assert.truthy(usage:find('"total_tokens":3', 1, true), usage)
    assert.truthy(get(client, "/stats"):find "bridge.taken %d+")
  end)

  it("says what went wrong", function()
    local nginx = start_nginx(start_upstream())
    local client = client_of(nginx)
    local lines = {}
    for line in get(client, "/errors"):gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal("nil http 400 HTTP 400: poison", lines[1])
    assert.equal("false 1 2 3", lines[2])
    assert.truthy(lines[3]:find "^invalid: .*2", lines[3])
    assert.truthy(lines[4]:find "input: empty", lines[4])
    assert.truthy(lines[5]:find "text 1 is a number", lines[5])
    assert.truthy(lines[6]:find "timeout: positive number expected", lines[6])
    assert.truthy(lines[7]:find "row 4 of 3", lines[7])
    assert.equal("nil total_timeout", get(client, "/late"))
  end)

  it("gathers 64 connections into full batches without a timer", function()
    local url = start_upstream { delay = 0.02 }
    local nginx = start_nginx(url, function(text) return (text:gsub("slots = 4", "slots = 2")) end)
    assert.same({}, load_of(client_of(nginx), 1, 1500))
    assert.is_true(mean_batch() >= 8, "rows a request: " .. mean_batch())
    assert.falsy(nginx.errors():find "moonpool:", nginx.errors())
  end)

  it("loses nothing when it is reloaded in the middle", function()
    local nginx = start_nginx(start_upstream { delay = 0.005 })
    local client = client_of(nginx)
    local before = workers(nginx)
    local failed
    moonpool.scope(function(s)
      local work = s:spawn(function() failed = load_of(client, 1, 3000) end)
      rig.until_true("it is under load", function() return #upstream.batches > 20 end)
      assert(nginx:signal "HUP")
      work:await()
    end)
    assert.same({}, failed)
    assert.same({}, load_of(client, 1, 200))
    client:close()
    rig.until_true("the old workers are gone", function()
      for _, pid in ipairs(before) do
        if programs.output("kill -0 " .. pid) == "" then return false end
      end
      return true
    end)
    assert.falsy(nginx.errors():find "%[alert%]", nginx.errors())
  end)

  it("loses with a killed worker that worker's calls only", function()
    local nginx = start_nginx(start_upstream { delay = 0.005 })
    local client = client_of(nginx)
    local victim = assert(workers(nginx)[1])
    local failed
    moonpool.scope(function(s)
      local work = s:spawn(function() failed = load_of(client, 1, 2000) end)
      rig.until_true("it is under load", function() return #upstream.batches > 20 end)
      programs.must("kill -KILL " .. victim)
      work:await()
    end)
    assert.is_true(#failed <= 64, #failed .. " failed")
    for _, err in ipairs(failed) do assert.is_nil(err.status, tostring(err)) end
    assert.same({}, load_of(client, 1, 500))
    assert.equal(2, #workers(nginx))
  end)

  it("takes upstream's rows back when clients go away", function()
    local nginx = start_nginx(start_upstream(), function(text)
      return (text:gsub("worker_processes 2", "worker_processes 1"))
    end)
    local client = client_of(nginx)
    upstream.hang = true
    local token = moonpool.cancel_token()
    moonpool.scope(function(s)
      local work = s:spawn(function()
        return client:request { path = "/embed", body = "1", cancel_token = token }
      end)
      rig.until_true("upstream has it", function() return (upstream.hanging or 0) > 0 end)
      token:cancel()
      work:await()
      rig.until_true("upstream's request is gone", function() return upstream.aborted > 0 end)
    end)
    upstream.hang = false
    assert.same({}, load_of(client, 1, 20))
    rig.until_true("nothing is left open", function() return get(client, "/stats"):find "bridge.open 0\n" end)
  end)

  it("keeps one rate for all workers", function()
    local nginx = start_nginx(start_upstream(), function(text)
      return (text:gsub("hedge = [^\n]+\n", "rate = { rpm = 1200, share = 1 }, retry = false,\n")
        :gsub("max_batch = 128", "max_batch = 1"))
    end)
    assert.same({}, load_of(client_of(nginx), 1, 70))
    -- 20 at once and 20 a second; two workers that did not know of each other would have sent all.
    assert.is_true(upstream.early <= 48, upstream.early .. " in the first second")
  end)

  it("works with lua_code_cache off", function()
    local nginx = start_nginx(start_upstream(), function(text)
      return (text:gsub("access_log off;", "access_log off; lua_code_cache off;", 1))
    end)
    local client = client_of(nginx)
    assert.same({}, load_of(client, 1, 150))
    assert.equal("7 8", get(client, "/access"))
  end)

  it("refuses options that make no sense when it starts", function()
    local url = start_upstream()
    for wrong, message in pairs {
      ["retry = { max_attempts = 0 }"] = "retry.max_attempts: a whole number from 1 expected",
      ["hedge = { after = 'soon' }"] = "hedge.after",
      ["rtry = {}"] = "rtry: no such option",
      ["breaker = { open = 'x' }"] = "breaker.open: a number from 0 expected",
      ["provider = 'nobody'"] = "provider: openai, tei or a table expected",
      ["base_url = 'nonsense://x'"] = "base_url",
    } do
      local nginx = start_nginx(url, function(text)
        local option = wrong:find "^base_url" and "base_url" or "retry"
        return (text:gsub("hedge = [^\n]+\n", ""):gsub(option .. " = [^\n]+\n", wrong .. ",\n", 1))
      end)
      assert.truthy(nginx.errors():find(message, 1, true), wrong .. "\n" .. nginx.errors())
      nginx:close()
    end
  end)
end)
