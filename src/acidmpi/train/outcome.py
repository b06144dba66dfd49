"""The figures of a run, put together for `summary.json` and for the table on screen."""

import platform
import sys
import time
from collections.abc import Sequence
from typing import Any

from acidmpi.config.launched import version_of
from acidmpi.config.train import ASYNCHRONOUS, CLOCKED, TrainConfig
from acidmpi.mpi.library import mpi_library
from acidmpi.telemetry.summary import RankFigures, RunFigures, StopReason
from acidmpi.train.course import Figures, Scores
from acidmpi.train.display import Row, number
from acidmpi.train.lost import Lost
from acidmpi.worker.membership import Death, merged

PACKAGES = ("acidmpi", "mpi4py", "numba", "numpy", "torch")


def rank_figures(statistics: Figures) -> RankFigures:
    """What this rank reports of itself.

    Args:
        statistics: its course's.
    """
    return RankFigures(
        device=statistics.device,
        device_uuid=statistics.device_uuid,
        gradients=statistics.gradients,
        exchanges=statistics.exchanges,
        control_messages=statistics.control_messages,
        bytes_sent=statistics.bytes_sent,
        idle_seconds=statistics.idle_seconds,
    )


def run_figures(
    config: TrainConfig,
    size: int,
    statistics: Figures | None,
    scores: Scores | None,
    wall_seconds: float,
    stop_reason: StopReason,
) -> RunFigures:
    """What holds for the run as a whole.

    Args:
        config: the resolved options.
        size: number of ranks.
        statistics: a course's, or None when there was none yet.
        scores: of the final average, or the latest there are.
        wall_seconds: duration.
        stop_reason: why it ended.
    """

    def known(name: str) -> Any:
        return getattr(statistics, name, None)

    loss, accuracy = scores or (None, None)
    pairs = config.method in ASYNCHRONOUS
    return RunFigures(
        task=config.task,
        model=config.model or config.task,
        method=config.method,
        pairing=_pairing(config),
        compression=config.compression,
        topology=config.topology,
        size=size,
        seed=config.seed,
        batch_size=config.batch_size or 0,
        comm_rate=config.comm_rate if pairs else None,
        comm_rate_measured=known("comm_rate_measured"),
        chi_1=known("chi_1"),
        chi_2=known("chi_2"),
        eta=known("eta"),
        alpha_tilde=known("alpha_tilde"),
        transport=known("transport"),
        mpi_library=mpi_library(),
        versions=versions(),
        wall_seconds=wall_seconds,
        consensus_distance=known("consensus_distance"),
        mean_drift=known("mean_drift"),
        train_loss=known("train_loss"),
        test_loss=loss,
        test_accuracy=accuracy,
        dead_ranks=[death.described() for death in known("deaths") or ()],
        stop_reason=stop_reason,
    )


def _pairing(config: TrainConfig) -> str | None:
    """How peers find each other; `roles` is no choice, but what AD-PSGD is."""
    if config.method in CLOCKED:
        return config.pairing
    return "roles" if config.method in ASYNCHRONOUS else None


def all_deaths(
    told: Sequence[Sequence[Death] | None],
    dead: Sequence[int],
    seconds: float,
    lost: Lost | None = None,
) -> list[dict[str, Any]]:
    """What all survivors know together of those who have died, by rank.

    Args:
        told: each rank's own knowledge, None for the dead.
        dead: ranks that are missing now; some may have died after all training.
        seconds: since the start of the run.
        lost: those who died before the start.
    """
    deaths = merged([list(each) for each in told if each is not None])
    late = set(dead) - {death.rank for death in deaths}
    last = "it finished training"
    deaths += [Death(rank, seconds, time.time(), 0, last, seconds) for rank in late]
    early = [] if lost is None else list(lost.deaths)
    deaths = early + sorted(deaths, key=lambda death: death.rank)
    return [death.described() for death in deaths]


def versions() -> dict[str, str]:
    """What ran: Python, and those packages that this run has loaded."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        if sys.modules.get(name) is not None:
            found[name] = version_of(name)
    return found


def result_rows(
    run: RunFigures, everyone: Sequence[RankFigures | None], where: str
) -> list[Row]:
    """The results for people: names and values.

    Args:
        run: figures of all ranks together.
        everyone: figures of each rank, None for the dead.
        where: the run's folder.
    """
    ranks = [rank for rank in everyone if rank is not None]
    accuracy = run.test_accuracy
    return [
        ("run", _title(run)),
        ("ranks", _ranks(run)),
        ("ended", f"{run.stop_reason} after {run.wall_seconds:.1f} s"),
        ("test accuracy", "-" if accuracy is None else f"{accuracy:.2%}"),
        ("test loss", number(run.test_loss)),
        ("training loss", number(run.train_loss)),
        ("gradients", _spread([rank.gradients for rank in ranks])),
        *_exchange_rows(run, ranks),
        ("data sent", f"{sum(rank.bytes_sent for rank in ranks) / 1e6:.1f} MB"),
        ("time waited", f"{max(rank.idle_seconds for rank in ranks):.2f} s at most"),
        ("distance before the average", number(run.consensus_distance)),
        ("folder", where),
    ]


def _ranks(run: RunFigures) -> str:
    early = [death["rank"] for death in run.dead_ranks if death["at_start"]]
    late = [death["rank"] for death in run.dead_ranks if not death["at_start"]]
    told = f"{run.size}, of which died: {_listed(late)}" if late else str(run.size)
    if not early:
        return told
    return f"{told}; before the start died of {run.size + len(early)}: {_listed(early)}"


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(str(rank) for rank in ranks)


def _title(run: RunFigures) -> str:
    how = (
        f"on {run.topology}" if run.topology else f"with compression {run.compression}"
    )
    return f"{run.task}, {run.model}, {run.method} {how}"


def _exchange_rows(run: RunFigures, ranks: Sequence[RankFigures]) -> list[Row]:
    """What there is to tell of exchanges, where the method has them."""
    if run.comm_rate_measured is None:
        return []
    exchanges = sum(rank.exchanges for rank in ranks)
    messages = sum(rank.control_messages for rank in ranks)
    asked = "" if run.comm_rate is None else f" of {run.comm_rate:g}"
    return [
        ("exchanges", _spread([rank.exchanges for rank in ranks])),
        ("exchange rate", f"{number(run.comm_rate_measured)}{asked}"),
        ("messages per exchange", number(2 * messages / max(exchanges, 1))),
    ]


def _spread(values: Sequence[int]) -> str:
    """The sum, and over ranks the least and the most."""
    if len(values) == 1:
        return str(values[0])
    return f"{sum(values)} ({min(values)} to {max(values)} a rank)"
