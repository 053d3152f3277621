#!/usr/bin/env bash
# Fetches the public GDN kernels that cuda_peers.py compares with, without their dependencies, in the
# versions that were measured.
#
#   fetch_peers.sh FOLDER [--python=3.12] [--pip=PROGRAM] [--pack]
#
# They are importable from FOLDER:FOLDER/nvidia_cutlass_dsl/dsl_packages. With --pack FOLDER is left
# as small as it can be and also packed into FOLDER.part0, 1, 2 of 41 MB each, for a machine without
# a network: cat FOLDER.part? | tar -xJ -C SOMEWHERE.
set -euo pipefail

readonly packages=(
  fla-core==0.6.0 flash-linear-attention==0.6.0
  flash-qla==0.1.3 tilelang==0.1.15 apache-tvm-ffi==0.1.12 torch-c-dlpack-ext==0.1.5
  z3-solver==4.15.4.0
  flashinfer-python==0.7.2.post1 nvidia-cutlass-dsl==4.8.1 nvidia-cutlass-dsl-libs-base==4.8.1
  nvidia-cutlass-dsl-libs-core==4.8.1 nvidia-cutlass-dsl-libs-cu13==4.8.1)

# pip matches the number of a manylinux platform exactly.
platforms() {
  local glibc
  for glibc in 2_17 2_24 2_27 2_28; do echo "--platform=manylinux_${glibc}_x86_64"; done
  echo --platform=manylinux2014_x86_64
}

fetch() {
  local platform
  mapfile -t platform < <(platforms)
  "$pip" install --quiet --disable-pip-version-check --root-user-action=ignore \
    --target "$folder" --upgrade --no-compile --no-deps --only-binary=:all: --implementation cp \
    --python-version "$python" --abi "cp${python/./}" --abi abi3 --abi none "${platform[@]}" \
    "${packages[@]}"
}

# What the kernels do without: FlashInfer's other kernels, and a program and a second copy of z3.
trim() {
  local library
  rm -rf "$folder"/flashinfer/{data,experimental,moe_ep,fused_moe} "$folder"/bin
  for library in "$folder"/z3/lib/libz3.so.*; do ln -sf libz3.so "$library"; done
  find "$folder" -name '*.so' -size +500k -type f -exec strip {} +
}

folder=
python=3.12
pip=pip3
pack=
for argument in "$@"; do
  case $argument in
    --python=*) python=${argument#*=} ;;
    --pip=*) pip=${argument#*=} ;;
    --pack) pack=1 ;;
    *) folder=$argument ;;
  esac
done
[[ -n $folder ]] || { echo "usage: fetch_peers.sh FOLDER [--python=3.12] [--pip=PROGRAM] [--pack]" >&2; exit 2; }
fetch
if [[ -n $pack ]]; then
  trim
  tar -C "$folder" -c . | xz -3 -T0 >"$folder.tar.xz"
  split -n 3 -d -a 1 "$folder.tar.xz" "$folder.part"
  rm "$folder.tar.xz"
fi
