-- moonpool.cli.repl: the command `repl`.
local endpoint = require "moonpool.cli.endpoint"
local parser = require "moonpool.cli.parser"

return {
  name = "repl",
  summary = "Try things at a prompt where whatever waits just works.",
  epilog = [[
From a pipe it prints results to standard output and errors to standard error, goes on after an error,
and exits with 1 if any line failed.]],
  configure = function(p)
    endpoint.configure(p)
    p:option("--price", "US dollars for a million tokens, for :time."):argname "USD":convert(parser.positive)
  end,
  run = function(args)
    local opts = { price = args.price }
    if args.url or args.provider then
      opts.client = endpoint.options("repl", args)
    end
    return require "moonpool.repl".run(opts)
  end,
}
