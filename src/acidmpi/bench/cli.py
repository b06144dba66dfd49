"""`python -m acidmpi.bench NAME`: from arguments to a table, a JSON line and a status.

Every rank of the job calls `main`, and all of them return the same status. Only rank 0
prints, but for the traceback of an error that nobody foresaw.
"""

import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from textwrap import fill
from typing import Any

from acidmpi.bench import gpu_options, options
from acidmpi.config.command_line import make_parser, parse
from acidmpi.config.launched import printed_once, speaks, version_of
from acidmpi.config.options import did_you_mean
from acidmpi.errors import AcidError, ConfigError, RemoteError, TopologyError

COMMAND = "python -m acidmpi.bench"
FINISHED, FAILED, USAGE = 0, 1, 2

LAST_WORD_SECONDS = 30.0
"""How long a rank that failed waits for the others before it ends the job."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as the command knows it."""

    options: type
    ranks: str
    """How many it needs, in words."""


BENCHMARKS = {
    "kernels": Benchmark(options.KernelsOptions, "1"),
    "exchange": Benchmark(options.ExchangeOptions, "2"),
    "pairing": Benchmark(options.PairingOptions, "2 or more"),
    "consensus": Benchmark(options.ConsensusOptions, "2 or more"),
    "step": Benchmark(options.StepOptions, "1"),
    "idle": Benchmark(options.IdleOptions, "any number"),
    "checkpoint": Benchmark(options.CheckpointOptions, "any number"),
    "fault-tolerance": Benchmark(options.FaultToleranceOptions, "2 or more"),
    "iteration": Benchmark(options.IterationOptions, "any number"),
    "gpu-kernels": Benchmark(gpu_options.GpuKernelsOptions, "1"),
    "gpu-exchange": Benchmark(gpu_options.GpuExchangeOptions, "2"),
    "gpu-step": Benchmark(gpu_options.GpuStepOptions, "any number"),
}


def main(arguments: list[str] | None = None, comm: Any = None) -> int:
    """Run the command on this rank.

    Args:
        arguments: those of the command line.
        comm: the ranks; by default all that the launcher started.

    Returns:
        The exit status, the same on every rank.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        name, chosen = _read(given)
    except ConfigError as error:  # the same on all ranks: MPI need not start for it
        if speaks() if comm is None else comm.rank == 0:
            tell(error)
        return USAGE
    except SystemExit as asked:
        return int(asked.code or 0)
    return _run(name, chosen, given, _all_ranks() if comm is None else comm)


def overview() -> str:
    """What `--help` prints without a benchmark's name."""
    lines = [
        f"usage: mpiexec -n RANKS {COMMAND} NAME [OPTION ...]",
        "",
        "Each benchmark prints a table and, on its last line, one JSON object.",
        "",
    ]
    for name, benchmark in BENCHMARKS.items():
        text = f"(ranks: {benchmark.ranks}) {about(benchmark)}"
        margin = f"  {name:<13}"
        indent = " " * len(margin)
        lines.append(fill(text, 79, initial_indent=margin, subsequent_indent=indent))
    return "\n".join([*lines, "", f"`{COMMAND} NAME --help` shows its options."])


def about(benchmark: Benchmark) -> str:
    """What it measures, on one line."""
    return " ".join((benchmark.options.__doc__ or "").split())


def _read(arguments: list[str]) -> tuple[str, Any]:
    """The benchmark's name and its options; prints help on one rank only."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    with printed_once():
        if name in ("-h", "--help"):
            print(overview())
            raise SystemExit(FINISHED if arguments else USAGE)
        if name not in BENCHMARKS:
            hint = did_you_mean(name, BENCHMARKS) or "; see --help"
            known = ", ".join(BENCHMARKS)
            raise ConfigError(
                f"the benchmark must be one of {known}, got {name!r}{hint}"
            )
        kind = BENCHMARKS[name].options
        text = fill(about(BENCHMARKS[name]), 79)
        parser = make_parser(
            kind, f"{COMMAND} {name}", text, f"acidmpi {version_of('acidmpi')}"
        )
        return name, parse(parser, kind, rest)


def _run(name: str, chosen: Any, arguments: list[str], comm: Any) -> int:
    from acidmpi.bench.report import report
    from acidmpi.mpi.collectives import agree

    found: list[Any] = []
    mistake: Exception | None = None
    try:
        found = _runner(name)(chosen, comm)
    except Exception as error:
        mistake = error
    try:
        agree(comm, mistake, LAST_WORD_SECONDS)
    except Exception as error:
        agreed = error is mistake or isinstance(error, RemoteError)
        return _end(mistake or error, comm, alone=not agreed)
    if comm.rank == 0:
        command = [*COMMAND.split(), *arguments]
        print(report(name, command, comm.size, found), flush=True)
    return FINISHED


def _runner(name: str) -> Callable[[Any, Any], list[Any]]:
    """`run(options, comm)` of the benchmark: figures on every rank."""
    if name == "kernels":
        return _run_kernels
    module = import_module(f"acidmpi.bench.{name.replace('-', '_')}")
    run: Callable[[Any, Any], list[Any]] = module.run
    return run


def _run_kernels(chosen: options.KernelsOptions, comm: Any) -> list[Any]:
    from acidmpi.bench import kernels
    from acidmpi.bench.report import from_kernels

    if comm.size != 1:
        raise ConfigError(f"kernels are measured on 1 rank, got {comm.size}")
    return from_kernels(kernels.run(chosen.size, chosen.rounds))


def _end(error: Exception, comm: Any, alone: bool) -> int:
    """Tell what went wrong, and end the whole job if the others may not know."""
    if not isinstance(error, AcidError):
        print(f"acidmpi: rank {comm.rank} on {platform.node()}:", file=sys.stderr)
        traceback.print_exception(error)
    if comm.rank == 0 or alone:
        tell(error)
    status = USAGE if isinstance(error, ConfigError | TopologyError) else FAILED
    if alone:
        time.sleep(1.0 if comm.rank else 0.0)  # rank 0 speaks first
        comm.Abort(status)
    return status


def tell(error: Exception) -> None:
    """Print `error` on one line."""
    own = isinstance(error, AcidError)
    text = str(error) if own else f"{type(error).__name__}: {error}"
    print(f"acidmpi: error: {text}", file=sys.stderr, flush=True)


def _all_ranks() -> Any:
    """Start MPI; the communicator of all ranks."""
    from acidmpi.mpi.library import world

    return world()
