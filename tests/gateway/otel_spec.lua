-- Spans and metrics by OTLP/HTTP JSON, as a collector gets them.

local gateway = require "gateway_rig"
local rig = require "client_rig"

after_each(rig.close_all)

local function plain(list)
  local t = {}
  for _, a in ipairs(list) do
    t[a.key] = a.value.stringValue or a.value.intValue or a.value.doubleValue
  end
  return t
end

describe("gateway: OpenTelemetry", function()
  it("has a span for the request and one for the model's call, in the caller's trace", function()
    local spans, points = {}, {}
    local collector = rig.serve(function(seen)
      for _, r in ipairs(seen.body.resourceSpans or {}) do
        for _, span in ipairs(r.scopeSpans[1].spans) do spans[#spans + 1] = span end
      end
      for _, r in ipairs(seen.body.resourceMetrics or {}) do
        for _, m in ipairs(r.scopeMetrics[1].metrics) do points[m.name] = m.histogram.dataPoints[1] end
      end
      assert(seen.headers.authorization == nil)
      return { json = {} }
    end)
    local up = rig.embedder()
    local g = gateway.start {
      upstreams = { a = { base_url = up.url } }, batch = { max_batch = 1 },
      otel = { endpoint = collector.url, interval = 60 },
    }
    local trace, parent = ("4bf92f3577b34da6"):rep(2), "00f067aa0ba902b7"
    local status = g.post("/v1/embeddings", { model = "m", input = { "1", "2" } }, {
      traceparent = ("00-%s-%s-01"):format(trace, parent),
    })
    assert.equal(200, status)
    local unsampled = { traceparent = ("00-%s-%s-00"):format(trace, parent) }
    g.post("/v1/embeddings", { model = "m", input = "1" }, unsampled)
    g.post("/v1/embeddings", { model = "m", input = {} }, { traceparent = "rubbish" })
    g.gateway.otel:flush()
    local server, call
    for _, span in ipairs(spans) do
      if span.traceId == trace and span.kind == 2 then server = span end
      if span.traceId == trace and span.kind == 3 then call = span end
    end
    assert.equal(3, #spans)
    assert.equal(parent, server.parentSpanId)
    assert.equal(server.spanId, call.parentSpanId)
    assert.equal("embeddings m", call.name)
    local said = plain(call.attributes)
    assert.equal("embeddings", said["gen_ai.operation.name"])
    assert.equal("openai", said["gen_ai.provider.name"])
    assert.equal("m", said["gen_ai.request.model"])
    assert.equal("2", said["gen_ai.usage.input_tokens"])
    assert.equal("3", said["gen_ai.embeddings.dimension.count"])
    assert.equal("127.0.0.1", said["server.address"])
    assert.equal("200", plain(server.attributes)["http.response.status_code"])
    assert.is_true(tonumber(call.startTimeUnixNano) <= tonumber(call.endTimeUnixNano))
    assert.equal(("00-%s-%s-01"):format(trace, call.spanId), up.log[1].headers.traceparent)
    assert.equal("2", points["gen_ai.client.operation.duration"].count)
    assert.equal(14, #points["gen_ai.client.operation.duration"].explicitBounds)
    assert.equal("2", points["gen_ai.client.token.usage"].count)
  end)
end)
