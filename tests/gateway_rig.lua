-- What the gateway's specs share: a gateway in this process, and requests to it as they stand on the wire.

local moonpool = require "moonpool"
local rig = require "client_rig"

local M = {}

--- A gateway for the configuration, listening: {url=, server=, gateway=, ask=, post=}.
function M.start(config)
  local made = rig.keep(moonpool.gateway(config))
  made.on_error = function(_, err) io.stderr:write("gateway: ", tostring(err), "\n") end
  local server = rig.keep(assert(moonpool.serve(made:options "127.0.0.1:0")))
  local client = rig.client(server.url, { preset = "none", accept_encoding = false })
  local self = { gateway = made, server = server, url = server.url, client = client }

  --- One request: status, decoded body, headers, whatever the status.
  function self.ask(method, path, body, headers)
    local o = { method = method, path = path, headers = headers }
    if type(body) == "table" then o.json = body else o.body = body end
    local row, err = client:request(o)
    if row then return row.status, row.data, row.headers end
    if not err.status then error(tostring(err), 2) end
    local doc = err.body and moonpool.json.decode(err.body)
    return err.status, doc or err.body, err
  end

  function self.post(path, body, headers)
    return self.ask("POST", path, body, headers)
  end

  return self
end

--- The rows of a list of lists as packed float32, to compare with matrix:bytes().
function M.packed(lists)
  return moonpool.matrix.from(lists):bytes()
end

return M
