-- Real server programs for the specs: started by path on a free port with a configuration of their
-- own in a directory that goes with them. Nothing outlives programs.close_all().

local moonpool = require "moonpool"
local rig = require "client_rig"

local M = {}

-- A shell word.
local function word(s)
  return "'" .. tostring(s):gsub("'", "'\\''") .. "'"
end

local function shell(command)
  local pipe = assert(io.popen(command .. " 2>&1", "r"))
  local text = pipe:read "a"
  local ok, _, code = pipe:close()
  return ok and code == 0, text
end

--- Runs a command line to its end; its output, or an error that shows it.
function M.must(command)
  local ok, text = shell(command)
  if not ok then
    error(command .. " failed:\n" .. text, 2)
  end
  return text
end

--- What a command line prints, whatever becomes of it.
function M.output(command)
  return select(2, shell(command))
end

--- The path of an installed program, or nil.
function M.find(name)
  for dir in (os.getenv "PATH" .. ":/usr/sbin:/usr/local/sbin:/sbin"):gmatch "[^:]+" do
    local f = io.open(dir .. "/" .. name, "rb")
    if f then
      f:close()
      return dir .. "/" .. name
    end
  end
end

--- busted's describe() (of the spec's environment), or one skipped test that says what is not installed.
function M.describe(busted, names, title, body)
  local missing = {}
  for name in names:gmatch "%S+" do
    if not M.find(name) then
      missing[#missing + 1] = name
    end
  end
  if #missing == 0 then
    return busted.describe(title, body)
  end
  busted.describe(title, function()
    busted.it("needs " .. table.concat(missing, ", "), function()
      busted.pending("not installed: " .. table.concat(missing, ", ") .. " (./scripts/setup test)")
    end)
  end)
end

--- A temporary directory, removed by close_all.
function M.directory()
  local path = M.must("mktemp -d /tmp/moonpool-wire-XXXXXX"):match "^(%S+)"
  rig.keep { close = function() M.must("rm -rf " .. word(path)) end }
  return path
end

function M.write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
  return path
end

function M.read(path)
  local file <close> = io.open(path, "rb")
  return file and file:read "a" or ""
end

--- A port that was free a moment ago.
function M.free_port()
  local server = assert(moonpool.serve { listen = "127.0.0.1:0", handler = function() end })
  local port = server.port
  server:close()
  return port
end

-- ---- processes ----------------------------------------------------------------------------------

local process = {}
process.__index = process

--- Starts a command; .log is the file with what it prints. The sanitizers of the test stay out of it.
function M.start(command, dir)
  local log = dir .. "/output.log"
  local pipe = assert(io.popen(("echo $$; exec env -u LD_PRELOAD -u ASAN_OPTIONS -u UBSAN_OPTIONS "
    .. "-u http_proxy -u https_proxy %s >>%s 2>&1"):format(command, word(log)), "r"))
  local self = setmetatable({ pid = pipe:read "l", pipe = pipe, log = log, command = command }, process)
  return rig.keep(self)
end

function process:signal(name)
  return shell(("kill -%s %s"):format(name, self.pid))
end

function process:alive()
  return self.pipe and shell("kill -0 " .. self.pid) and not M.read("/proc/" .. self.pid
    .. "/stat"):find "%) Z "
end

--- Ends it, by SIGTERM or the signal named, and waits.
function process:close(name)
  if self.pipe then
    self:signal(name or "TERM")
    self.pipe:close()
    self.pipe = nil
  end
end

--- Waits until `port` (or a unix socket's path) accepts.
function process:ready(where)
  local base = type(where) == "number" and ("http://127.0.0.1:%d"):format(where) or "unix:" .. where
  local client <close> = moonpool.client { base_url = base, retry = false, proxy = false, timeout = 5,
    breaker = false }
  local stop = moonpool.now() + 10
  repeat
    local res, err = client:request { method = "GET", path = "/" }
    local up = res or err.status or not (err.message:find "refused" or err.message:find "connect to"
      or err.message:find "resolve")
    if up and err and not err.status and not self:alive() then
      up = false
    end
    if not up and (not self:alive() or moonpool.now() > stop) then
      error(("%s does not serve at %s: %s\n%s"):format(self.command, base, err.message, M.read(self.log)), 2)
    end
    if not up then
      moonpool.sleep(0.01)
    end
  until up
  return self
end

-- ---- nginx --------------------------------------------------------------------------------------

local nginx_conf = [[
daemon off; master_process off; worker_processes 1; pid $dir/nginx.pid; error_log $dir/output.log $level;
events { worker_connections 2048; }
http {
  access_log off;
  client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fastcgi;
  uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi; client_max_body_size 0;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
  proxy_read_timeout 60; proxy_set_header Host $http_host;
  add_header X-Connection $connection always; add_header X-Requests $connection_requests always;
  add_header X-Protocol $server_protocol always;
  $body
}
]]

--- nginx with these lines inside http {}. $port, $dir and the names of `vars` are replaced. .port, .dir;
--- restart() starts it again at the same place.
function M.nginx(body, vars)
  local dir = vars and vars.dir or M.directory()
  local port = M.free_port()
  local known = { dir = dir, port = port, level = "error" }
  for name, value in pairs(vars or {}) do
    known[name] = value
  end
  known.body = body:gsub("%$(%a+)", known)
  M.write(dir .. "/nginx.conf", (nginx_conf:gsub("%$(%a+)", known)))
  local command = ("%s -e %s/output.log -p %s -c %s/nginx.conf"):format(M.find "nginx", dir, dir, dir)
  local self = M.start(command, dir):ready(vars and vars.socket or port)
  self.port, self.dir, self.url = port, dir, ("http://127.0.0.1:%d"):format(port)
  self.restart = function()
    self:close "KILL"
    local again = M.start(command, dir):ready(port)
    self.pipe, self.pid = again.pipe, again.pid
    again.pipe = nil
  end
  return self
end

-- ---- nghttpx ------------------------------------------------------------------------------------

--- nghttpx in front of `upstream` (a port); tls: {cert=, key=} or nil for clear text. spoken(name) counts
--- the answers by protocol, "h2", "h2c" or "http/1.1"; restart() as nginx.
function M.nghttpx(upstream, tls, more)
  local dir = M.directory()
  local port = M.free_port()
  local front = ("-f'127.0.0.1,%d%s'"):format(port, tls and "" or ";no-tls")
  local log = ("--accesslog-file=%s/access.log --accesslog-format='$alpn $status'"):format(dir)
  local command = ("%s --conf=/dev/null -n1 --no-ocsp -LWARN %s %s -b'127.0.0.1,%d' %s %s"):format(
    M.find "nghttpx", log, front, upstream, more or "", tls and word(tls.key) .. " " .. word(tls.cert) or "")
  local self = M.start(command, dir):ready(port)
  self.port, self.dir = port, dir
  self.spoken = function(protocol)
    local n = 0
    for line in M.read(dir .. "/access.log"):gmatch "[^\n]+" do
      n = n + (line == protocol .. " 200" and 1 or 0)
    end
    return n
  end
  self.restart = function()
    self:close "KILL"
    local again = M.start(command, dir):ready(port)
    self.pipe, self.pid = again.pipe, again.pid
    again.pipe = nil
  end
  return self
end

-- ---- tinyproxy ----------------------------------------------------------------------------------

--- tinyproxy; user and password if given. .url without them, :requests() the lines of its log.
function M.tinyproxy(user, password)
  local dir = M.directory()
  local port = M.free_port()
  local auth = user and ("BasicAuth %s %s\n"):format(user, password) or ""
  local log = dir .. "/tinyproxy.log"
  M.write(dir .. "/conf", ("Port %d\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\nLogLevel Connect\n"
    .. "LogFile \"%s\"\nPidFile \"%s/pid\"\n%s"):format(port, log, dir, auth))
  local self = M.start(("%s -d -c %s/conf"):format(M.find "tinyproxy", dir), dir):ready(port)
  self.port, self.url, self.host = port, ("http://127.0.0.1:%d"):format(port), "127.0.0.1:" .. port
  self.requests = function()
    local list = {}
    for line in M.read(log):gmatch "Request %(file descriptor %d+%): ([^\n]+)" do
      list[#list + 1] = line
    end
    return list
  end
  return self
end

-- ---- small servers of our own, in perl, which every Debian has ----------------------------------

-- A script that first prints the port it chose.
function M.perl(dir, name)
  local self = M.start(("perl %s/%s"):format(dir, name), dir)
  rig.until_true(name .. " listens", function() return M.read(self.log):find "^%d+\n" end)
  self.port = tonumber(M.read(self.log):match "%d+")
  return self
end

--- A relay in front of 127.0.0.1:port that resets the first `breaks`
--- connections as soon as they have said something.
function M.breaking_relay(port, breaks)
  local dir = M.directory()
  M.write(dir .. "/relay.pl", ([[
    use IO::Socket::INET; use IO::Select; use Socket; $| = 1; $SIG{CHLD} = "IGNORE";
    my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 64); print $l->sockport, "\n";
    my $n = 0;
    while (my $c = $l->accept) {
      if ($n++ < %d) {
        sysread($c, my $some, 100);
        setsockopt($c, SOL_SOCKET, SO_LINGER, pack("ii", 1, 0)); close $c; next;
      }
      next if fork;
      my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:%d") or exit; my $both = IO::Select->new($c, $s);
      while (my @ready = $both->can_read) {
        for my $from (@ready) {
          sysread($from, my $data, 65536) or exit; my $to = $from == $c ? $s : $c; syswrite($to, $data);
        }
      }
    }]]):format(breaks, port))
  return M.perl(dir, "relay.pl")
end

--- A server that writes what it hears into .log, gives this reply to each connection and closes it.
function M.recorder(reply)
  local dir = M.directory()
  M.write(dir .. "/reply", reply)
  M.write(dir .. "/recorder.pl", ([[
    use IO::Socket::INET; $| = 1; open(my $r, "<", "%s/reply"); my $reply = do { local $/; <$r> };
    my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 64); print $l->sockport, "\n";
    while (my $c = $l->accept) {
      my ($all, $some) = ("", "");
      while ($all !~ /\r\n\r\n/ && sysread($c, $some, 65536)) { $all .= $some; }
      print $all; syswrite($c, $reply); close $c;
    }]]):format(dir))
  return M.perl(dir, "recorder.pl")
end

-- ---- certificates -------------------------------------------------------------------------------

local function authority(dir, name)
  M.must(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout %s/%s.key "
    .. "-out %s/%s.pem -subj '/CN=moonpool test %s'"):format(dir, name, dir, name, name))
end

-- OpenSSL 3.5 refuses an end before the start; older ones cannot be told the start.
local function validity(expired)
  if not expired then
    return "-days 2"
  elseif M.must("openssl x509 -help 2>&1"):find("-not_before", 1, true) then
    return "-not_before 20200101000000Z -not_after 20200102000000Z"
  end
  return "-days -1"
end

local function issue(dir, ca, name, subject, alt, expired)
  local base = dir .. "/" .. name
  M.must(("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s.key -out %s.csr "
    .. "-subj '/CN=%s'"):format(base, base, subject))
  M.write(base .. ".ext", alt and "subjectAltName=" .. alt .. "\n" or "extendedKeyUsage=clientAuth\n")
  M.must(("openssl x509 -req -in %s.csr -CA %s/%s.pem -CAkey %s/%s.key -CAcreateserial %s "
    .. "-extfile %s.ext -out %s.pem"):format(base, dir, ca, dir, ca, validity(expired), base, base))
  return { cert = base .. ".pem", key = base .. ".key" }
end

--- A private authority and what it issued, made anew: .ca (file), .dir; .server for localhost and
--- 127.0.0.1, .other for another name, .expired, .client, .stranger (a client of another authority).
function M.certificates()
  local dir = M.must("mktemp -d /tmp/moonpool-wire-ca-XXXXXX"):match "^(%S+)"
  local here = "DNS:localhost,IP:127.0.0.1"
  authority(dir, "ca")
  authority(dir, "foreign")
  return {
    dir = dir, ca = dir .. "/ca.pem", foreign = dir .. "/foreign.pem",
    server = issue(dir, "ca", "server", "localhost", here),
    other = issue(dir, "ca", "other", "elsewhere.example", "DNS:elsewhere.example"),
    expired = issue(dir, "ca", "expired", "localhost", here, true),
    client = issue(dir, "ca", "client", "a client"),
    stranger = issue(dir, "foreign", "stranger", "a stranger"),
    remove = function() M.must("rm -rf " .. word(dir)) end,
  }
end

return M
