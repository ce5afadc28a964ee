-- moonpool.client: the client with all of its calls.
local client = require "moonpool.client.client"
local call = require "moonpool.client.call"
require "moonpool.client.embed"
require "moonpool.client.batcher"
require "moonpool.client.each"
require "moonpool.client.fingerprint"
require "moonpool.client.post"
require "moonpool.client.ranking"
require "moonpool.client.several"
require "moonpool.client.stream"

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
