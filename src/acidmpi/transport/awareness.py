"""What an MPI library says about messages from the memory of a GPU.

Three sources, in this order: the memory kinds of MPI 4.1, the library's own function, and
the UCX that it has loaded. None of them is believed without a trial (`transport.trial`): a
library built with CUDA may run where CUDA does not work, and one built without it may
hand device pointers to a UCX that knows them.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI

from acidmpi.mpi.loaded import loaded, mpi_functions, ucx_cuda_module

KINDS_KEY = "mpi_memory_alloc_kinds"
CUDA_OF_MPICH = 0
"""MPIX_GPU_SUPPORT_CUDA."""


@dataclass(frozen=True)
class Claim:
    """One source's answer."""

    source: str
    yes: bool | None
    """None: it does not say."""

    text: str
    """The answer as it was given."""


def claims(comm: MPI.Comm) -> list[Claim]:
    """What the library says of itself; MPI must be running.

    Args:
        comm: whose memory kinds are asked for.
    """
    return [memory_kinds(comm), own_query(mpi_functions()), ucx()]


def memory_kinds(comm: MPI.Comm) -> Claim:
    """The standard's way, since MPI 4.1."""
    info = comm.Get_info()
    try:
        kinds = info.Get(KINDS_KEY)
    finally:
        info.Free()
    if kinds is None:
        return Claim(KINDS_KEY, None, "not set")
    # A kind that nobody asked for at the start may be left out, so this is no "no".
    named = [kind.strip().split(":")[0] for kind in kinds.split(",")]
    return Claim(KINDS_KEY, True if "cuda" in named else None, kinds)


def own_query(library: ctypes.CDLL) -> Claim:
    """`MPIX_GPU_query_support` of MPICH and its kin, else `MPIX_Query_cuda_support`."""
    asked: list[tuple[str, Callable[[ctypes.CDLL], bool | None]]] = [
        ("MPIX_GPU_query_support", _gpu_query),
        (
            "MPIX_Query_cuda_support",
            lambda found: bool(found.MPIX_Query_cuda_support()),
        ),
    ]
    for name, ask in asked:
        answer = ask(library) if hasattr(library, name) else None
        if answer is not None:
            return Claim(name, answer, "yes" if answer else "no")
    return Claim("the library's own query", None, "it has none")


def ucx() -> Claim:
    """Whether UCX is loaded and has its CUDA transports beside it."""
    module = ucx_cuda_module()
    if module is not None:
        return Claim("UCX", True, f"it has CUDA transports ({module})")
    told = "it has no CUDA transports" if loaded("libuct") else "not loaded"
    return Claim("UCX", None, told)


def _gpu_query(library: ctypes.CDLL) -> bool | None:
    answer = ctypes.c_int(0)
    status = library.MPIX_GPU_query_support(CUDA_OF_MPICH, ctypes.byref(answer))
    return None if status else bool(answer.value)
