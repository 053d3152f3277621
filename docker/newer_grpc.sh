#!/usr/bin/env bash
# Takes gRPC from another of Debian's releases than the base image's, for the image's build.
#
#   newer_grpc.sh RELEASE      # for example experimental, on a base of debian:sid; "" takes none
set -euo pipefail
readonly release=$1
[[ $release ]] || exit 0

echo "deb http://deb.debian.org/debian $release main" >/etc/apt/sources.list.d/grpc.list
apt-get update
# What they need of Abseil is the base's: theirs was built with it.
packages=(libgrpc++-dev libgrpc-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler)
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
  "${packages[@]/%//$release}" libabsl-dev libutf8-range-dev libutf8-validity-dev \
  libre2-dev
rm -rf /var/lib/apt/lists/*
