"""`python -m acidmpi.train`: from arguments to an exit status.

Every rank of the job calls `main`, and all of them return the same status. An error is
told once, by rank 0; one that nobody foresaw is shown with its traceback by the rank
that has it.
"""

import platform
import sys
import time
import traceback
import warnings
from typing import TYPE_CHECKING, Any

from acidmpi.clocks import WallClock
from acidmpi.config.command_line import make_parser, parse
from acidmpi.config.launched import printed_once, version_of
from acidmpi.config.train import DEADLINE_SECONDS, TrainConfig
from acidmpi.errors import (
    AcidError,
    ConfigError,
    DiedAtStart,
    DisagreementError,
    Interrupted,
    PeerDied,
    Preempted,
    RemoteError,
)
from acidmpi.faults.plan import Plan
from acidmpi.train.signals import INTERRUPTED_STATUS, PREEMPTED_STATUS, SignalWatch

if TYPE_CHECKING:
    from acidmpi.train.company import Company

COMMAND = "python -m acidmpi.train"
ABOUT = f"""\
Train one model on all ranks of an MPI job, without a coordinator:

    mpiexec -n 4 {COMMAND} --task digits

Without mpiexec the run has one rank. Its folder holds config.toml, summary.json and
metrics-RANK.jsonl.
OPTIONS
exit status: 0 finished, 1 failed, 2 wrong usage, 130 interrupted, 75 stopped by a
signal that asks for a checkpoint: start again with --resume, 76 a rank died before MPI
was ready (--fault-tolerant): start again"""

FINISHED, FAILED, USAGE = 0, 1, 2

END_SECONDS = 10
"""How long MPI may take to end once all is done and written."""

END_AFTER_DEATHS_SECONDS = 2
"""The same where somebody has died: then it waits for ever at times (Open MPI 5.0.11)."""

BEFORE_ABORT_SECONDS = 2.0
"""Time to say what happened before another rank ends the job."""


def main(arguments: list[str] | None = None, comm: Any = None) -> int:
    """Run the command on this rank.

    Args:
        arguments: those of the command line.
        comm: the ranks; by default all that the launcher started.

    Returns:
        The exit status, the same on every rank.
    """
    config: TrainConfig | None = None
    mistake: ConfigError | None = None
    try:
        config = _read(sys.argv[1:] if arguments is None else arguments)
    except ConfigError as error:
        mistake = error
    except SystemExit as asked:  # --help and --version, which must work without MPI
        return int(asked.code or 0)
    if comm is None:
        _leave_divergence_to_us()
    tolerant = config is not None and config.fault_tolerant
    with SignalWatch() as watch:
        ranks = _all_ranks(tolerant) if comm is None else comm
        status = _Command(ranks, watch).run(config, mistake)
    if tolerant and comm is None:
        _bound_the_end(ranks)
    return status


def _leave_divergence_to_us() -> None:
    """NumPy would warn once on each rank of what ends in one error for all."""
    text = "(overflow|invalid value) encountered"
    warnings.filterwarnings("ignore", text, RuntimeWarning)


class _Command:
    """The command on one rank, after its arguments have been read."""

    def __init__(self, comm: Any, watch: SignalWatch) -> None:
        self._comm = comm
        self._watch = watch

    def run(self, config: TrainConfig | None, mistake: ConfigError | None) -> int:
        """Train, or tell why not; returns the exit status."""
        company, died = _company(self._comm, config), False
        while True:
            status = USAGE
            try:
                company = self._again(company) if died else company
                checked = company.together(lambda: _accept(config, mistake))
                status = FAILED
                self._train(checked, company)
            except DiedAtStart:
                died = True
            except Exception as error:
                return self._end(error, company, status)
            else:
                return FINISHED

    def _again(self, company: "Company") -> "Company":
        """Those who live begin again; one of them says so."""
        self._watch.forget()
        fewer = company.without_the_dead()
        if fewer.leads and fewer.lost is not None:
            text = fewer.lost.told()
            print(f"acidmpi: warning: {text}", file=sys.stderr, flush=True)
        return fewer

    def _train(self, config: TrainConfig, company: "Company") -> None:
        from acidmpi.train.display import Display, Heir, make_display
        from acidmpi.train.session import Session

        clock = WallClock()

        def make(rank: int = 0) -> Display:
            return make_display(rank, config.log_seconds, clock, sys.stdout)

        tolerant = config.fault_tolerant
        display = Heir(make, lambda: company.leads) if tolerant else make(company.rank)
        Session(config, company, self._watch, display, clock).run()

    def _end(self, error: Exception, company: "Company", status: int) -> int:
        status = exit_status(error, status)
        common = company.orderly or isinstance(error, PeerDied)
        tell(error, 0 if company.leads else company.rank, alone=not common)
        if not (company.orderly and company.clean) and company.size > 1:
            self._leave_time_to_tell(company)
            company.abort(status)
        return status

    def _leave_time_to_tell(self, company: "Company") -> None:
        """Let every rank say what happened to it before the job is ended."""
        if company.orderly:
            company.meet(BEFORE_ABORT_SECONDS)
        else:
            time.sleep(0.0 if company.leads else BEFORE_ABORT_SECONDS)


def exit_status(error: Exception, otherwise: int) -> int:
    """The status that `error` ends the command with; `otherwise` for the common ones.

    A signal may have reached another rank only, whose text this one then has.
    """
    remote = error.text if isinstance(error, RemoteError) else ""
    if isinstance(error, Preempted) or remote.startswith("preempted"):
        return PREEMPTED_STATUS
    if isinstance(error, Interrupted) or remote.startswith("interrupted"):
        return INTERRUPTED_STATUS
    return USAGE if isinstance(error, DisagreementError) else otherwise


def tell(error: Exception, rank: int, alone: bool) -> None:
    """Print `error`: in one line on rank 0; with its traceback where it was unforeseen.

    Args:
        error: what ended the command here.
        rank: this one.
        alone: whether the other ranks do not know of it.
    """
    from acidmpi.mpi.collectives import describe

    if not isinstance(error, AcidError):
        print(f"acidmpi: rank {rank} on {platform.node()}:", file=sys.stderr)
        traceback.print_exception(error)
    if rank == 0:
        print(f"acidmpi: error: {describe(error)}", file=sys.stderr, flush=True)
    elif alone:
        text = f"rank {rank} cannot go on: {describe(error)}"
        print(f"acidmpi: error: {text}", file=sys.stderr, flush=True)


def _read(arguments: list[str]) -> TrainConfig:
    """The options; what `--help` and `--version` print is printed by one rank only."""
    parser = make_parser(
        TrainConfig, COMMAND, ABOUT, f"acidmpi {version_of('acidmpi')}"
    )
    with printed_once():
        return parse(parser, TrainConfig, arguments)


def _accept(config: TrainConfig | None, mistake: ConfigError | None) -> TrainConfig:
    if mistake is not None:
        raise mistake
    assert config is not None
    if config.fault_tolerant:
        from acidmpi.mpi.survival import check_survivable

        check_survivable()
    Plan.of(config.fault)
    return config


def _all_ranks(tolerant: bool) -> Any:
    """Start MPI; the communicator of all ranks."""
    if tolerant:
        from acidmpi.mpi.start import start_mpi

        start_mpi()
    from acidmpi.mpi.library import world

    return world()


def _bound_the_end(comm: Any) -> None:
    """MPI may wait for the dead when it ends: all is done, so do not wait long."""
    from acidmpi.mpi.survival import Failures, end_within

    sys.stdout.flush()
    end_within(END_AFTER_DEATHS_SECONDS if Failures(comm).news() else END_SECONDS)


def _company(comm: Any, config: TrainConfig | None) -> "Company":
    """All ranks, or those that live."""
    seconds = config.deadline_seconds if config else DEADLINE_SECONDS
    if config is not None and config.fault_tolerant:
        from acidmpi.train.survivors import SurvivingCompany

        return SurvivingCompany(comm, seconds)
    from acidmpi.train.company import Company

    return Company(comm, seconds)
