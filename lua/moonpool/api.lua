-- api.lua - the client with all of its calls.
local client = require "moonpool.client"
local call = require "moonpool.call"
require "moonpool.embed"
require "moonpool.each"
require "moonpool.post"
require "moonpool.ranking"
require "moonpool.stream"

return {
  client = client.new,
  pool = client.pool,
  preference = call.preference,
  timeouts = {
    llm = { connect = 10, read = 1200 },
    embedding = { connect = 10, read = 60 },
    submit = { connect = 10, read = 30 },
    stream = { connect = 10, read = 1200 },
  },
}
