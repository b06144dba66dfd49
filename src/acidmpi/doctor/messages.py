"""The MPI library, what it grants, and whether bytes arrive between these ranks."""

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from mpi4py import MPI

from acidmpi.clocks import WallClock
from acidmpi.doctor.findings import Finding, State
from acidmpi.doctor.options import DoctorOptions
from acidmpi.mpi.collectives import allgather
from acidmpi.mpi.communicators import duplicate
from acidmpi.mpi.library import mpi_library
from acidmpi.mpi.loaded import loaded, mpi_library_file, mpiexec_beside
from acidmpi.mpi.nodes import Node, find_node
from acidmpi.mpi.threads import thread_level
from acidmpi.progress import Deadline
from acidmpi.testing.transports import delivers_both_directions, run_alone
from acidmpi.transport.host import HostTransport
from acidmpi.transport.pieces import longest_of_all
from acidmpi.transport.protocol import Transport
from acidmpi.transport.trial.parent import trial

SIZES_OF_JOBS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")
ROUNDS = 5
MARK = "UCX  INFO"


def library(comm: MPI.Comm, seconds: float) -> Iterator[Finding]:
    """What MPI is, and what it grants; collective."""
    mine = (mpi_library(), thread_level(), MPI.Get_processor_name())
    told = allgather(comm, mine, seconds, "the versions of all ranks")
    hosts = len({host for _, _, host in told})
    yield _same("library", [name for name, _, _ in told])
    yield Finding("mpi", "file", str(mpi_library_file() or "not found"))
    yield Finding("mpi", "mpiexec beside it", str(mpiexec_beside() or "none"))
    yield Finding("mpi", "standard", ".".join(map(str, MPI.Get_version())))
    yield _threads([level for _, level, _ in told])
    yield _ranks(comm.size, hosts, os.environ)
    yield from between_machines(find_node(comm, seconds), mpi_library())


def _same(name: str, values: list[str]) -> Finding:
    if len(set(values)) == 1:
        return Finding("mpi", name, values[0])
    cure = "start all ranks with the same environment"
    return Finding("mpi", name, "; ".join(sorted(set(values))), "bad", cure)


def _threads(levels: list[str]) -> Finding:
    if set(levels) == {"MPI_THREAD_MULTIPLE"}:
        return Finding("mpi", "threads", levels[0], "good")
    cure = "use --progress inline, or an MPI with MPI_THREAD_MULTIPLE"
    return Finding("mpi", "threads", ", ".join(sorted(set(levels))), "advice", cure)


def _ranks(size: int, hosts: int, variables: Mapping[str, str]) -> Finding:
    told = f"{size} on {hosts} machine{'s' if hosts > 1 else ''}"
    planned = next((variables[v] for v in SIZES_OF_JOBS[:2] if v in variables), "")
    if planned.isdecimal() and int(planned) != size:
        cure = (
            "mpiexec belongs to another MPI than mpi4py: take "
            f"{mpiexec_beside() or 'the one of this library'}"
        )
        told += f", but the launcher started {planned}"
        return Finding("mpi", "ranks", told, "bad", cure)
    return Finding("mpi", "ranks", told)


def between_machines(node: Node, library: str) -> Iterator[Finding]:
    """What leads to other machines, if there are any, and what follows for messages."""
    if all(node.beside):
        return
    told = "an adapter for more than TCP" if node.fabric else "TCP"
    longest = longest_of_all(node, library)
    if longest is not None:
        told += f", parameters in messages of {longest} bytes (--message-bytes)"
    yield Finding("mpi", "between machines", told)


def ucx() -> Iterator[Finding]:
    """Which UCX is loaded, if any, and with which of its modules."""
    core = loaded("libucp")
    if not core:
        yield Finding("mpi", "UCX", "not loaded")
        return
    modules = [path.name.split(".")[0] for path in loaded("libuct_")]
    yield Finding("mpi", "UCX", f"{core[0]}; modules {', '.join(modules) or 'none'}")


def ucx_transports(output: str) -> str:
    """Which transports UCX took, from what it prints at log level info."""
    lines = [line.partition(MARK)[2] for line in output.splitlines() if MARK in line]
    taken = [
        line.split("cfg#", 1)[1].split(None, 1)[1] for line in lines if "cfg#" in line
    ]
    return "; ".join(dict.fromkeys(" ".join(text.split()) for text in taken))


def host_messages(comm: MPI.Comm, options: DoctorOptions) -> Iterator[Finding]:
    """Exchanges of host memory, with bytes compared; collective.

    Ranks alone have processes of their own made for it.
    """
    if comm.size == 1:
        yield from _in_a_trial(options)
        return
    copy = duplicate(comm, "doctor", options.deadline_seconds)
    transport = HostTransport(copy)
    fault = _checked(copy, transport)
    faults = allgather(copy, fault, options.deadline_seconds, "the exchanges' results")
    told = [f"rank {rank}: {text}" for rank, text in enumerate(faults) if text]
    if told:
        cure = "this MPI does not work; try the other one from PyPI"
        yield Finding("transports", "host", "; ".join(told), "bad", cure)
    else:
        yield from _measured(copy, transport, options)
    copy.Free()


def _in_a_trial(options: DoctorOptions) -> Iterator[Finding]:
    verdict = trial(
        "host",
        seconds=options.deadline_seconds,
        variables={"UCX_LOG_LEVEL": "info"},
    )
    state: State = "good" if verdict.moved else "bad"
    told = verdict.text.replace("device memory", "host memory")
    cure = "" if verdict.moved else "look with mpiexec -n 2 python -m acidmpi.doctor"
    yield Finding("transports", "host", told, state, cure)
    taken = ucx_transports(verdict.output)
    if taken:
        yield Finding("transports", "UCX takes", taken)


def _peer(comm: MPI.Comm) -> int | None:
    """Ranks are in pairs; the last of an odd number has none."""
    peer = comm.rank ^ 1
    return peer if peer < comm.size else None


def _checked(comm: MPI.Comm, transport: Transport) -> str:
    """What is wrong with exchanges of all sizes and types; nothing where all is right."""
    peer = _peer(comm)
    if peer is None:
        return ""
    try:
        run_alone(delivers_both_directions(transport, comm.rank, peer))
    except AssertionError as error:
        return f"wrong bytes for {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _measured(
    comm: MPI.Comm, transport: Transport, options: DoctorOptions
) -> Iterator[Finding]:
    seconds = _fastest(comm, transport, options)
    every = allgather(comm, seconds, options.deadline_seconds, "the bandwidths")
    slowest = max(one for one in every if one is not None)
    speed = options.size_bytes / slowest * 1e-9
    told = f"right bytes; {speed:.2f} GB/s each way at once, {options.size_bytes:,} B"
    yield Finding("transports", transport.name, told, "good")


def _fastest(
    comm: MPI.Comm, transport: Transport, options: DoctorOptions
) -> float | None:
    peer = _peer(comm)
    if peer is None:
        return None
    sent = np.random.default_rng(comm.rank).integers(
        0, 256, options.size_bytes, "uint8"
    )
    received = np.zeros_like(sent)
    return min(_once(transport, peer, sent, received, options) for _ in range(ROUNDS))


def _once(
    transport: Transport, peer: int, sent: Any, received: Any, options: DoctorOptions
) -> float:
    deadline = Deadline(options.deadline_seconds, WallClock(), "a message")
    began = time.perf_counter()
    pending = transport.post(peer, sent, received)
    while not pending.test():
        deadline.check()
        time.sleep(0)
    return time.perf_counter() - began
