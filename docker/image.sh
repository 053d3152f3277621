#!/usr/bin/env bash
# Builds an image and runs the example orchestrator, in an image of its own, against the server in it.
#
#   image.sh cpu|cuda MODEL [ARGUMENT…]
#
# MODEL is the folder of a checkpoint. The arguments go to the engine's build, for example
# --build-arg=CPU_BASE=IMAGE. Engines, the first that works: docker, podman, buildah.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly run_buildah=(buildah run --isolation=chroot --user=65532:65532)

say() { echo "image: $*" >&2; }

die() {
  say "$*"
  exit 1
}

find_engine() {
  local name
  for name in docker podman; do
    ! "$name" info >/dev/null 2>&1 || { echo "$name" && return; }
  done
  command -v buildah >/dev/null && echo buildah
}

# build TARGET NAME ARGUMENT…
build() {
  local command=("$engine" build)
  # OCI's own image format has no word for the health check.
  [[ $engine != podman ]] || command+=(--format=docker)
  [[ $engine != buildah ]] || command=(buildah bud --isolation=chroot --format=docker --layers)
  say "$engine builds $2"
  "${command[@]}" --file=docker/Dockerfile --target="$1" --tag="$2" "${@:3}" .
}

# ---- docker and podman

# The orchestrator shares the server's network, so that no port of this machine is needed.
try_in_engine() {
  local gpus=() status=0
  if [[ $target == cuda && -e /dev/nvidia0 ]]; then
    if [[ $engine == docker ]]; then gpus=(--gpus=all); else gpus=(--device=nvidia.com/gpu=all); fi
  fi
  server=$("$engine" run --detach "${gpus[@]}" --volume="$model:/model:ro" "gdn-server:$target")
  trap '"$engine" rm --force "$server" >/dev/null' EXIT
  grep -m1 '^ready: ' <("$engine" logs --follow "$server" 2>&1) || die "the server is not ready"
  "$engine" exec "$server" /opt/gdn/gdn-ctl health
  "$engine" run --rm --network="container:$server" --volume="$model:/model:ro" gdn-orchestrator \
    --target=127.0.0.1:50051 --model=/model
  "$engine" stop -t 60 "$server" >/dev/null
  status=$("$engine" inspect --format='{{.State.ExitCode}}' "$server")
  ((status == 0)) || die "the server ended with status $status"
}

# ---- buildah, which runs a program but keeps no container: in this machine's network

try_in_buildah() {
  local out pid line address status=0
  server=$(buildah from "gdn-server:$target")
  client=$(buildah from gdn-orchestrator)
  trap 'buildah rm "$server" "$client" >/dev/null' EXIT
  exec {out}< <(exec "${run_buildah[@]}" --volume="$model:/model:ro" "$server" -- sh -c \
    'echo $$; exec /opt/gdn/gdn-server --model=/model --listen=127.0.0.1:0')
  runner=$!
  read -r pid <&"$out"
  read -r line <&"$out" || die "the server is not ready"
  echo "$line"
  address=$(grep -o '127[.0-9]*:[0-9]*' <<<"$line")
  "${run_buildah[@]}" "$server" -- /opt/gdn/gdn-ctl --target="$address" health || status=$?
  "${run_buildah[@]}" --volume="$model:/model:ro" "$client" -- /opt/venv/bin/python \
    /src/client/python/examples/orchestrator.py --target="$address" --model=/model || status=$?
  kill -TERM "$pid"
  wait "$runner" || die "the server ended with status $?"
  return "$status"
}

main() {
  target=$1
  model=$(cd "$2" && pwd)
  engine=$(find_engine) || die "neither docker, podman nor buildah works here; apt has buildah"
  build orchestrator gdn-orchestrator "${@:3}"
  build "$target" "gdn-server:$target" "${@:3}"
  if [[ $engine == buildah ]]; then try_in_buildah; else try_in_engine; fi
  say "gdn-server:$target: the orchestrator agreed, the server drained and ended with 0"
}

main "$@"
