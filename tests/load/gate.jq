# What a report of ghz must hold: every call OK, and a p99 within the limit that the configuration
# names in its tags.
#
#   jq -r -f gate.jq report.json       says what was found; exit code 1 where it does not hold
((first(.latencyDistribution[]? | select(.percentage == 99) | .latency) // infinite) / 1e6) as $p99
| (.statusCodeDistribution // {} | add // 0) as $calls
| ($calls - (.statusCodeDistribution.OK // 0)) as $errors
| "\(.name): \($calls) calls, \($errors) errors" as $found
| if $calls == 0 or $errors > 0 then "\($found) \(.errorDistribution // {})\n" | halt_error(1)
  elif $p99 > (.tags.p99_limit_ms | tonumber) then
    "\($found), p99 \($p99) ms of \(.tags.p99_limit_ms)\n" | halt_error(1)
  else "\($found), p99 \($p99) ms"
  end
