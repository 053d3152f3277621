#!/usr/bin/env bash
# Prints the path of ghz: that of the PATH, or one that it builds into FOLDER with Go.
#
#   fetch_ghz.sh FOLDER
set -euo pipefail

readonly package=github.com/bojand/ghz/cmd/ghz@v0.121.0
readonly oldest_go=1.23

new_enough() { printf '%s\n' "$oldest_go" "$1" | sort --check=quiet --version-sort; }

# The first Go that is new enough.
installed_go() {
  local go version
  for go in "$(command -v go)" /usr/local/go/bin/go /usr/lib/go-*/bin/go; do
    [[ -x $go ]] || continue
    version=$(cd / && "$go" env GOVERSION)
    new_enough "${version#go}" || continue
    echo "$go"
    return
  done
  return 1
}

# Installs the newest Go that apt has, if that is new enough.
install_go() {
  local name version sudo=()
  command -v apt-get >/dev/null || return
  ((EUID == 0)) || sudo=(sudo)
  "${sudo[@]}" apt-get update >&2
  name=$(apt-cache search --names-only '^golang-1[.][0-9]+-go$' | cut -d' ' -f1 |
    sort --version-sort | tail -n1)
  version=${name#golang-}
  new_enough "${version%-go}" || return
  echo "installing with apt: $name" >&2
  "${sudo[@]}" apt-get install -y --no-install-recommends "$name" >&2
}

help() {
  cat >&2 <<EOF
ghz is not on the PATH, and there is no Go $oldest_go or newer to build it with: neither here nor among
apt's packages. Either install Go (https://go.dev/dl; Debian 12: golang-go of bookworm-backports), or
put ghz on the PATH (https://github.com/bojand/ghz/releases), and run this again.
EOF
}

main() {
  local folder go
  command -v ghz && return
  mkdir -p "$1"
  folder=$(cd "$1" && pwd)
  if [[ ! -x $folder/ghz ]]; then
    go=$(installed_go) || { install_go && go=$(installed_go); } || { help && return 1; }
    echo "building $package in $folder with $go" >&2
    (cd / && GOBIN=$folder "$go" install "$package" >&2)
  fi
  echo "$folder/ghz"
}

main "$@"
