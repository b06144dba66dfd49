#!/usr/bin/env bash
# The environment in which an MPI from PyPI sends from the memory of a GPU, through the UCX
# of the wheel libucx-cu13 or libucx-cu12 (extras ucx-cu13 and ucx-cu12).
#
#   source jobs/gpu/ucx.sh             set it in this shell
#   bash jobs/gpu/ucx.sh COMMAND…      run a command in it
#   bash jobs/gpu/ucx.sh               print what would be set
#
# The MPIs of PyPI are built without CUDA, but they find UCX by name: that of the wheel,
# once its folder comes first. See docs/cuda_aware_mpi.md for what has been tried.

# Where the wheel's libraries are; asked of Python without importing the package.
acidmpi_ucx_folder() {
    "${PYTHON:-python3}" - <<'PY'
import importlib.util, pathlib, sys

spec = importlib.util.find_spec("libucx")
folders = list(spec.submodule_search_locations or []) if spec else []
found = [f for f in folders if list(pathlib.Path(f, "lib").glob("libucp.so.0*"))]
sys.exit("no libucx here") if not found else print(pathlib.Path(found[0], "lib"))
PY
}

acidmpi_ucx_environment() {
    local folder
    if ! folder=$(acidmpi_ucx_folder 2>/dev/null); then
        printf '%s\n' "acidmpi: error: no UCX from PyPI is installed; take" \
            "pip install 'acidmpi[ucx-cu13]', or [ucx-cu12] for CUDA 12" >&2
        return 2
    fi
    export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    # Open MPI: messages through UCX, also where it sees no network that UCX is for.
    export OMPI_MCA_pml=ucx OMPI_MCA_pml_ucx_tls=any OMPI_MCA_pml_ucx_devices=any
    # MPICH: through UCX within a machine, too, where it would use its own shared memory.
    export MPIR_CVAR_NOLOCAL=1
}

acidmpi_ucx_print() {
    local name
    for name in LD_LIBRARY_PATH OMPI_MCA_pml OMPI_MCA_pml_ucx_tls \
        OMPI_MCA_pml_ucx_devices MPIR_CVAR_NOLOCAL; do
        printf 'export %s=%q\n' "$name" "${!name}"
    done
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    acidmpi_ucx_environment
    if [ "$#" -eq 0 ]; then
        acidmpi_ucx_print
    else
        exec "$@"
    fi
else
    acidmpi_ucx_environment
fi
