"""Whether messages between machines have a way that is not TCP.

MPI does not tell by which way it sends. It can be no other than TCP where the machine has
no adapter for remote memory access, or where this process has loaded none of the libraries
that drive one.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from acidmpi.mpi.loaded import loaded

ADAPTERS = (Path("/sys/class/infiniband"), Path("/sys/class/cxi"))
"""Where the kernel lists them: InfiniBand, RoCE, Omni-Path and EFA; Slingshot."""

LIBRARIES = ("libucp", "libfabric", "libpsm")


@cache
def has_fabric() -> bool:
    """Whether this process could send by anything but TCP to another machine."""
    return has_adapter() and any(loaded(name) for name in LIBRARIES)


def has_adapter(folders: Sequence[Path] = ADAPTERS) -> bool:
    """Whether one of the folders lists an adapter."""
    return any(any(folder.iterdir()) for folder in folders if folder.is_dir())
