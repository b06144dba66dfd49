"""Exchanges of device memory by way of the host, between the ranks of a job."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from mpi4py import MPI

from acidmpi.arrays.accelerator import Accelerator, store, to_host
from acidmpi.arrays.device_site import DeviceSite
from acidmpi.clocks import WallClock
from acidmpi.doctor.findings import Finding
from acidmpi.doctor.options import DoctorOptions
from acidmpi.mpi.collectives import allgather
from acidmpi.mpi.communicators import duplicate
from acidmpi.progress import Deadline
from acidmpi.transport.host import HostTransport
from acidmpi.transport.staged import StagedTransport

ROUNDS = 3
PIECES = 8
"""A long vector travels in so many: their copies and messages overlap."""

CURE = "look at cupy above, and at nvidia-smi; --device cpu does without"


def gpu_of(local_rank: int) -> Accelerator:
    """The GPU that a rank of the trainer would take.

    Raises:
        ConfigError: it cannot be used.
    """
    from acidmpi.arrays.cuda.choice import choose_device, make_gpu

    index = choose_device("cuda", local_rank)
    assert index is not None
    gpu: Accelerator = make_gpu(index)
    return gpu


def staged_messages(
    comm: MPI.Comm, options: DoctorOptions, make: Callable[[], Accelerator]
) -> Iterator[Finding]:
    """Whether what one GPU holds arrives in another's memory; collective.

    Args:
        comm: the ranks, which exchange in pairs.
        options: how much, how long.
        make: gives this rank's device; may fail.
    """
    if comm.size == 1:
        told = "to try it: mpiexec -n 2 python -m acidmpi.doctor --device cuda"
        yield Finding("transports", "staged", told)
        return
    copy = duplicate(comm, "staged", options.deadline_seconds)
    found = _attempt(copy, options, make)
    every = allgather(copy, found, options.deadline_seconds, "staged exchanges")
    faults = [f"rank {r}: {one}" for r, one in enumerate(every) if isinstance(one, str)]
    if faults:
        yield Finding("transports", "staged", "; ".join(faults), "bad", CURE)
        return
    copy.Free()
    slowest = max(one for one in every if one is not None)
    told = (
        f"right bytes; {options.size_bytes / slowest * 1e-9:.2f} GB/s each way at once"
    )
    yield Finding("transports", "staged", told, "good")


def _attempt(
    comm: MPI.Comm, options: DoctorOptions, make: Callable[[], Accelerator]
) -> float | str | None:
    """Seconds of an exchange, what is wrong with it, or None without a peer."""
    try:
        device: Accelerator | str = make()
    except Exception as error:
        device = str(error)
    # A rank whose device fails must not leave its peer waiting.
    states = allgather(comm, isinstance(device, str), options.deadline_seconds, "GPUs")
    if isinstance(device, str):
        return device
    peer = comm.rank ^ 1
    if any(states) or peer >= comm.size:
        return None
    try:
        return _exchange(comm, peer, options, device)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _exchange(
    comm: MPI.Comm, peer: int, options: DoctorOptions, device: Accelerator
) -> float | str:
    site = DeviceSite(device)
    transport = StagedTransport(HostTransport(comm), device, site.stream)
    mine, theirs = (_numbers(rank, options.size_bytes) for rank in (comm.rank, peer))
    with device.on(site.stream):
        sent, received = (device.empty(mine.size, np.uint8) for _ in range(2))
        store(sent, mine)
        store(received, ~theirs)
    seconds = min(
        _once(transport, peer, sent, received, options) for _ in range(ROUNDS)
    )
    with device.on(site.stream):
        wrong = int((to_host(received) != theirs).sum())
    return f"{wrong} bytes arrived wrong" if wrong else seconds


def _once(
    transport: StagedTransport,
    peer: int,
    sent: Any,
    received: Any,
    options: DoctorOptions,
) -> float:
    deadline = Deadline(options.deadline_seconds, WallClock(), "a staged exchange")
    step = -(-sent.size // PIECES)
    began = time.perf_counter()
    going = [
        transport.post(peer, sent[k : k + step], received[k : k + step])
        for k in range(0, sent.size, step)
    ]
    while going:
        deadline.check()
        going = [one for one in going if not one.test()]
        time.sleep(0)
    return time.perf_counter() - began


def _numbers(rank: int, size: int) -> Any:
    return np.random.default_rng(rank).integers(0, 256, size, np.uint8)
