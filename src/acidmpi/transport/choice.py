"""How bytes of a GPU's memory travel between ranks: by which transport, and why.

`auto` asks the library (`transport.awareness`) and believes a yes only after a trial
(`transport.trial`): a wrong guess would be a segmentation fault in the user's job.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mpi4py import MPI

from acidmpi.errors import ConfigError
from acidmpi.mpi.collectives import allgather
from acidmpi.mpi.nodes import find_node
from acidmpi.transport.awareness import Claim, claims
from acidmpi.transport.trial.parent import Verdict, trial

Requested = Literal["auto", "device", "staged"]

TRIAL_SECONDS = 60.0
"""How long a trial may take; where it works it takes about as long as starting MPI."""

MARGIN_SECONDS = 60.0
"""What ranks that wait for one that tries allow it beside."""

CURE = (
    "take --transport staged or auto, or an MPI that is built with CUDA "
    "(docs/cuda_aware_mpi.md; python -m acidmpi.doctor --transport device tells more)"
)


@dataclass(frozen=True)
class Choice:
    """A transport for device memory."""

    name: Literal["device", "staged"]
    reason: str
    """Why, in words, for one line of output."""


@dataclass(frozen=True)
class _Told:
    """What one rank tells the others; those that did not try have no verdict."""

    claimed: bool
    """Its library says that it can."""

    verdict: Verdict | None


def choose(
    requested: Requested,
    comm: MPI.Comm,
    *,
    device: int = 0,
    seconds: float = TRIAL_SECONDS,
    ask: Callable[[MPI.Comm], list[Claim]] = claims,
    attempt: Callable[[], Verdict] | None = None,
) -> Choice:
    """Choose a transport for device memory, the same on all ranks; collective.

    One rank of each machine makes the trial, the others wait for it.

    Args:
        requested: what the user asked for.
        comm: all ranks.
        device: number of this rank's GPU among those it sees.
        seconds: how long a trial may take.
        ask: what the library says of itself.
        attempt: the trial; by default in other processes, from memory of `device`.

    Raises:
        ConfigError: `requested` is none of the three, or `device` and it does not work.
        DeadlineExceeded: some rank did not take part.
    """
    if requested == "staged":
        return Choice("staged", "asked for")
    if requested not in ("auto", "device"):
        raise ConfigError(
            f"transport must be 'auto', 'device' or 'staged' for a GPU, got {requested!r}"
        )
    if requested == "auto" and comm.size == 1:
        return Choice("staged", "a rank alone sends nothing")
    attempt = attempt or partial(trial, "cuda", device, seconds)
    told = _gather(requested, comm, ask(comm), attempt, seconds + MARGIN_SECONDS)
    choice = judged(told, asked=requested == "device")
    if requested == "device" and choice.name != "device":
        raise ConfigError(
            "transport device needs an MPI that sends from device memory, "
            f"got {MPI.Get_library_version().split(',')[0].split(chr(10))[0].strip()}: "
            f"{choice.reason}; {CURE}"
        )
    return choice


def _gather(
    requested: Requested,
    comm: MPI.Comm,
    said: list[Claim],
    attempt: Callable[[], Verdict],
    seconds: float,
) -> list[_Told]:
    first = find_node(comm, seconds).local_rank == 0
    claimed = any(claim.yes for claim in said)
    wanted = requested == "device" or claimed
    verdict = _safely(attempt) if first and wanted else None
    told = _Told(claimed, verdict)
    return allgather(comm, told, seconds, "the trial of messages from device memory")


def _safely(attempt: Callable[[], Verdict]) -> Verdict:
    """A trial that cannot be made is one that has failed: all ranks have to hear of it."""
    try:
        return attempt()
    except Exception as error:
        return Verdict(False, f"the trial failed ({type(error).__name__}: {error})")


def judged(told: list[_Told], asked: bool = False) -> Choice:
    """One choice from what the ranks tell, the same on each of them.

    Where no process of a trial gets as far as starting MPI, as on some clusters, `asked`
    and the library's own yes count.

    Args:
        told: what each rank knows.
        asked: whether the user wants device memory, and not just the best.
    """
    claimed = all(one.claimed for one in told)
    if not (asked or claimed):
        return Choice("staged", "this MPI says nothing of sending from device memory")
    verdicts = [one.verdict for one in told if one.verdict is not None]
    failed = [verdict for verdict in verdicts if not verdict.moved]
    if failed and asked and claimed and not any(one.tried for one in failed):
        text = f"asked for, and the library says yes; not tried: {failed[0].text}"
        return Choice("device", text)
    if failed or not verdicts:
        return Choice("staged", failed[0].text if failed else "nobody has tried it")
    return Choice("device", verdicts[0].text)
