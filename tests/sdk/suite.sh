#!/usr/bin/env bash
# curl, as people try things with it, against the proxy at POINTSMAN_URL.
set -uo pipefail
passed=0 failed=0 key=sdk-key

# check NAME PATTERN curl-arguments...: the answer, head included, must match.
check() {
  local name=$1 pattern=$2 answer
  shift 2
  answer=$(curl -sS --max-time 30 -i -H "authorization: Bearer $key" "$@" 2>&1)
  if grep -qE "$pattern" <<<"$answer"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAILED %s: no %s in\n%s\n' "$name" "$pattern" "$answer"
  fi
}

chat=$POINTSMAN_URL/v1/chat/completions json="content-type: application/json"
check chat 'hello from the provider' "$chat" -H "$json" -d '{"model":"m","messages":[]}'
check "response headers" '^x-pointsman-backend: ' "$chat" -H "$json" -d '{"model":"m","messages":[]}'
check stream '^data: \[DONE\]' -N "$chat" -H "$json" -d '{"model":"m","stream":true,"messages":[]}'
check models '"id": ?"m"' "$POINTSMAN_URL/v1/models"
check "HTTP/2" '^HTTP/2 200' --http2-prior-knowledge "$chat" -H "$json" -d '{"model":"m","messages":[]}'
check "expect: 100-continue" 'hello from the provider' "$chat" -H "$json" -H "expect: 100-continue" -d '{"model":"m","messages":[]}'
check "chunked body" 'hello from the provider' "$chat" -H "$json" -H "transfer-encoding: chunked" -d '{"model":"m","messages":[]}'
check "HTTP/1.0" 'hello from the provider' --http1.0 "$chat" -H "$json" -d '{"model":"m","messages":[]}'
key=wrong check "a wrong key" '^HTTP/1.1 401' "$chat" -H "$json" -d '{}'

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
