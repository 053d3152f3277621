# What a report of ghz must hold: every call OK, and a p99 within the limit that the configuration
# names in its tags.
#
#   jq -r -f gate.jq report.json       says what was found; exit code 1 where it does not hold
def p99_ms: (first(.latencyDistribution[]? | select(.percentage == 99) | .latency) // infinite) / 1e6;

(.statusCodeDistribution // {} | add // 0) as $calls
| ($calls - (.statusCodeDistribution.OK // 0)) as $errors
| "\(.name): \($calls) calls, \($errors) errors, p99 \(p99_ms) ms of \(.tags.p99_limit_ms)" as $found
| if $calls > 0 and $errors == 0 and p99_ms <= (.tags.p99_limit_ms | tonumber)
  then $found
  else "\($found) \(.errorDistribution // {})\n" | halt_error(1)
  end
