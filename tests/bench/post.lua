-- wrk's script: the same small JSON request as the other contenders send.
wrk.method = "POST"
wrk.body = '{"input":"The quick brown fox","id":1234567}'
wrk.headers["Content-Type"] = "application/json"
