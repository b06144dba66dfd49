"""Which libraries this process has loaded, and where they lie.

Several builds of MPI and of UCX may be installed on one machine; what counts is the one
that the dynamic linker has taken.
"""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

MAPS = Path("/proc/self/maps")


def loaded(beginning: str, maps: Path = MAPS) -> list[Path]:
    """Shared objects of this process whose file names begin so, in order of path.

    Args:
        beginning: such as `libmpi`.
        maps: the list that the kernel keeps; empty where there is none.
    """
    names = {Path(name) for name in _mapped(maps)}
    return sorted(
        path
        for path in names
        if path.name.startswith(beginning) and ".so" in path.suffixes
    )


def mpi_library_file() -> Path | None:
    """The MPI library of this process: the loaded object that has `MPI_Init`."""
    for path in loaded("libmpi"):
        if hasattr(ctypes.CDLL(str(path)), "MPI_Init"):
            return path
    return None


def mpi_functions() -> ctypes.CDLL:
    """A handle through which functions of the MPI library are found by name."""
    path = mpi_library_file()
    return ctypes.CDLL(None if path is None else str(path))


def mpiexec_beside() -> Path | None:
    """The launcher that was installed together with the MPI library of this process."""
    path = mpi_library_file()
    if path is None:
        return None
    folders = [folder / "bin" for folder in path.resolve().parents[1:3]]
    # A link to the library may lie in an environment that has a launcher.
    folders += [path.parent.parent / "bin", Path(sys.prefix) / "bin"]
    return next((f / "mpiexec" for f in folders if (f / "mpiexec").exists()), None)


def ucx_cuda_module() -> Path | None:
    """The CUDA transports of the UCX that this process has loaded, if it has them."""
    for library in loaded("libuct"):
        for folder in (library.parent, library.resolve().parent):
            found = sorted((folder / "ucx").glob("libuct_cuda.so*"))
            if found:
                return found[0]
    return None


def _mapped(maps: Path) -> Iterator[str]:
    if not maps.exists():
        return
    for line in maps.read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/"):
            yield fields[5]
