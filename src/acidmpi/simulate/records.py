"""The files of a simulated run, in the formats of a real one.

`seconds` are those of a machine on which a gradient of a rank that is not slow takes one.
"""

import platform
import sys
from contextlib import ExitStack
from datetime import datetime
from importlib import metadata

from acidmpi.config.simulate import PAIRS, SimulateConfig
from acidmpi.simulate.outcome import Outcome
from acidmpi.telemetry import folder as folders
from acidmpi.telemetry.folder import RunFolder
from acidmpi.telemetry.metrics import Metrics, MetricsWriter
from acidmpi.telemetry.summary import (
    RankFigures,
    RunFigures,
    make_summary,
    write_summary,
)

SIMULATED = "simulated"


def places(
    top: RunFolder, first: int, count: int, overwrite: bool
) -> list[tuple[int, RunFolder]]:
    """Seeds and their folders: the run's own, or one in it for each of several.

    Raises:
        ConfigError: an earlier run is in one of them.
        DataError: one cannot be written.
    """
    if count == 1:
        return [(first, top)]
    return [
        (seed, folders.create(top.path / f"seed-{seed}", "", overwrite, datetime.now()))
        for seed in range(first, first + count)
    ]


def writers(
    folder: RunFolder, config: SimulateConfig, stack: ExitStack
) -> list[Metrics]:
    """Files of events: of all ranks, or of rank 0 for what concerns all.

    Args:
        folder: of the run.
        config: the options.
        stack: closes them.
    """
    count = config.ranks if config.events else 1
    return [
        stack.enter_context(MetricsWriter(folder.metrics(rank)))
        for rank in range(count)
    ]


def finish_records(outcome: Outcome, metrics: Metrics) -> None:
    """Write the samples as heartbeats and evaluations."""
    for sample in outcome.samples:
        seconds = sample.time * outcome.unit_seconds
        passed = len(outcome.totals) * sample.time
        rate = 2 * sample.exchanges / passed if passed else None
        own = sample.gradients // len(outcome.totals)
        metrics.heartbeat(
            seconds, sample.time, own, sample.gradients, rate, sample.consensus_distance
        )
        if sample.test_loss is not None:
            metrics.evaluation(
                seconds, sample.time, own, sample.test_loss, sample.test_accuracy
            )


def keep(folder: RunFolder, config: SimulateConfig, outcome: Outcome) -> None:
    """Write the summary."""
    ranks = [
        RankFigures(
            device=SIMULATED,
            device_uuid=None,
            gradients=totals.gradients,
            exchanges=totals.exchanges,
            control_messages=totals.control_messages,
            bytes_sent=totals.bytes_sent,
            idle_seconds=totals.idle_units * outcome.unit_seconds,
        )
        for totals in outcome.totals
    ]
    write_summary(folder.summary, make_summary(_run_figures(config, outcome), ranks))


def _run_figures(config: SimulateConfig, outcome: Outcome) -> RunFigures:
    pairs = config.method in PAIRS
    last = outcome.samples[-1]
    return RunFigures(
        task=config.workload,
        model=config.workload,
        method=config.method,
        pairing=outcome.pairing if pairs else None,
        compression="none",
        topology=config.topology if pairs else None,
        size=config.ranks,
        seed=outcome.seed,
        batch_size=config.batch_size if config.workload == "digits" else 1,
        comm_rate=config.comm_rate if pairs else None,
        comm_rate_measured=outcome.comm_rate if pairs else None,
        chi_1=outcome.chi_1,
        chi_2=outcome.chi_2,
        eta=outcome.coefficients.eta if pairs else None,
        alpha_tilde=outcome.coefficients.alpha_tilde if pairs else None,
        transport=SIMULATED,
        mpi_library=SIMULATED,
        versions=_versions(),
        wall_seconds=last.time * outcome.unit_seconds,
        consensus_distance=last.consensus_distance,
        mean_drift=outcome.mean_drift,
        train_loss=outcome.train_loss,
        test_loss=last.test_loss,
        test_accuracy=last.test_accuracy,
        dead_ranks=[],
        stop_reason="failed" if outcome.diverged else "finished",
    )


def _versions() -> dict[str, str]:
    """What ran."""
    found = {"python": platform.python_version()}
    for name in ("acidmpi", "numba", "numpy"):
        if sys.modules.get(name) is not None:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "(not installed)"
    return found
