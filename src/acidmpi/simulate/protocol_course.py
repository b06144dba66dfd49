"""`python -m acidmpi.simulate protocol`: ranks with the real protocol, some seeds."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TextIO

import numpy as np

from acidmpi.config.protocol import ProtocolConfig
from acidmpi.simulate.links import read_links
from acidmpi.simulate.network import GradientTimes, Link, Network
from acidmpi.simulate.outcome import Outcome, RankTotals, Sample, floor_of, median
from acidmpi.simulate.pictures import check_figure, draw_distances
from acidmpi.simulate.protocol import Counts, Moment, ProtocolSimulation
from acidmpi.simulate.protocol_members import ProtocolOptions
from acidmpi.simulate.records import finish_records, keep, places
from acidmpi.simulate.tell import Row, number, table
from acidmpi.simulate.workload import Floats, Workload
from acidmpi.simulate.workloads import make_workload
from acidmpi.telemetry import folder
from acidmpi.telemetry.metrics import MetricsWriter
from acidmpi.topology.make import make_topology
from acidmpi.topology.spectrum import spectrum

BYTES = 4
"""Of a number on the wire."""

WARM_SHARE = 0.2
"""Of a run; what pairing costs is counted after it."""


class Learning:
    """Plain SGD on a workload.

    Args:
        workload: the functions of the ranks.
        lr: learning rate.
    """

    def __init__(self, workload: Workload, lr: float) -> None:
        self._workload = workload
        self._lr = lr

    def update(self, rank: int, x: Floats) -> Floats:
        """See `protocol.Learner.update`."""
        _, gradient = self._workload.gradient(rank, x)
        return -self._lr * gradient


def run(config: ProtocolConfig, out: TextIO) -> None:
    """Simulate, print what came of it, and write one folder for each seed.

    Raises:
        ConfigError: options that cannot go together, or a folder that is taken.
        TopologyError: a graph that cannot be.
        DataError: a folder that cannot be written.
    """
    protocol_options(config, config.seed)  # refuse before a folder is made
    check_figure(config.figure, config.output, named=False)
    name, now = f"{config.workload}-{config.method}", datetime.now()
    top = folder.create(config.output, name, config.overwrite, now)
    found: list[tuple[Outcome, Counts]] = []
    for seed, place in places(top, config.seed, config.seeds, config.overwrite):
        one = replace(config, seed=seed, seeds=1, output=place.path)
        folder.write_config(place, one)
        outcome, counts = simulate(config, seed)
        with MetricsWriter(place.metrics(0)) as metrics:
            finish_records(outcome, metrics)
        keep(place, config.ideal(), outcome)
        found.append((outcome, counts))
    if config.figure:
        lines = [(config.method, [outcome for outcome, _ in found])]
        draw_distances(lines, [None], _title(config), top.path / "consensus.png")
    print(table(_rows(config, found)), file=out)
    print(f"folder  {top.path}", file=out, flush=True)


def protocol_options(config: ProtocolConfig, seed: int) -> ProtocolOptions:
    """How the ranks of one run work together.

    Raises:
        ConfigError: options that cannot go together.
        TopologyError: a graph that cannot be.
    """
    averaging = config.workload == "averaging"
    slow = config.stragglers if config.straggler_factor > 1 else 0
    times = GradientTimes.of(
        config.ranks,
        config.gradient_seconds,
        spread=config.gradient_spread,
        straggler=config.straggler_factor,
        stragglers=slow,
    )
    link = Link(config.latency_seconds, config.bytes_per_second)
    links = {} if config.links is None else read_links(config.links, config.ranks)
    return ProtocolOptions(
        topology=make_topology(config.topology, config.ranks, config.seed),
        method=config.method,
        comm_rate=config.comm_rate,
        pairing=config.pairing,
        max_lag=config.max_lag,
        safety=config.safety,
        network=Network(link, links, spread=config.latency_spread),
        gradients=None if averaging else times,
        unit_seconds=config.gradient_seconds if averaging else None,
        message_bytes=BYTES * (config.parameters or config.dimension),
        pieces=config.pieces,
        heartbeat_seconds=max(0.25, times.unit_seconds),
        saturated=config.saturated,
        seed=seed,
    )


def simulate(config: ProtocolConfig, seed: int) -> tuple[Outcome, Counts]:
    """One run with one seed, without files."""
    options = protocol_options(config, seed)
    workload = make_workload(config.ideal(), seed)
    learner = Learning(workload, config.lr) if workload.computes else None
    start = workload.start()
    simulation = ProtocolSimulation(start, options, learner)
    unit = _unit_seconds(options)
    times = (unit * np.linspace(0, config.units, config.samples + 1)).tolist()
    warm = int(WARM_SHARE * config.samples)
    moments = simulation.run(times[: warm + 1])
    since = simulation.totals()
    moments += simulation.run(times[warm + 1 :])
    counts = simulation.counts(since)
    return _outcome(simulation, options, moments, workload, seed), counts


def _unit_seconds(options: ProtocolOptions) -> float:
    if options.unit_seconds is not None:
        return options.unit_seconds
    assert options.gradients is not None
    return options.gradients.unit_seconds


def _outcome(
    simulation: ProtocolSimulation,
    options: ProtocolOptions,
    moments: Sequence[Moment],
    workload: Workload,
    seed: int,
) -> Outcome:
    unit, chi = _unit_seconds(options), spectrum(options.topology)
    totals = [
        RankTotals(
            gradients=m.ledger.gradients,
            exchanges=m.tally.exchanges,
            bytes_sent=m.tally.bytes_sent,
            idle_units=m.ledger.idle_seconds / unit,
            control_messages=simulation.messages_by_rank[m.rank],
        )
        for m in simulation.members
    ]
    outcome = Outcome(
        seed,
        unit,
        totals,
        coefficients=simulation.coefficients,
        chi_1=chi.chi_1,
        chi_2=chi.chi_2,
        pairing=options.pairing,
    )
    for moment in moments:
        scores = workload.evaluate(moment.mean)
        outcome.samples.append(
            Sample(
                moment.units,
                moment.gradients,
                moment.exchanges,
                moment.consensus_distance,
                *scores,
            )
        )
    outcome.floor = floor_of(moments[-1].mean[None])
    outcome.diverged = not np.isfinite(moments[-1].consensus_distance)
    if not outcome.diverged:
        outcome.mean_drift = simulation.drift()
    return outcome


def _rows(config: ProtocolConfig, found: Sequence[tuple[Outcome, Counts]]) -> list[Row]:
    """What was asked for beside what came of it; medians over the seeds."""
    outcomes, counts = [o for o, _ in found], [c for _, c in found]
    last = [o.samples[-1] for o in outcomes]
    rate = median([c.comm_rate for c in counts])
    asked = "always due" if config.saturated else number(config.comm_rate)
    rows: list[Row] = [
        (
            _title(config),
            "asked",
            "measured",
        ),
        ("exchanges per rank and unit", asked, number(rate)),
        ("exchanges a second, of one rank", "", _of(counts, "exchanges_per_second")),
        ("control messages per exchange", "", _of(counts, "messages_per_exchange")),
        ("repeated pairs", "", _of(counts, "repeated")),
        ("share of time waited for exchanges", "", _of(counts, "idle_share")),
        ("eta", "", number(median([o.coefficients.eta for o in outcomes]))),
        (
            "consensus distance",
            "",
            number(median([s.consensus_distance for s in last])),
        ),
        ("error of the mean", "", number(max(o.mean_drift for o in outcomes))),
    ]
    if config.workload == "averaging":
        decays = median([o.decay() for o in outcomes])
        return [*rows, ("decay of the distance per unit", "", number(decays))]
    return [
        *rows,
        ("test loss", "", number(median([s.test_loss for s in last]))),
        ("test accuracy", "", number(median([s.test_accuracy for s in last]))),
    ]


def _title(config: ProtocolConfig) -> str:
    return (
        f"{config.workload}, {config.method}, {config.ranks} ranks, "
        f"{config.topology}, {config.pairing}"
    )


def _of(counts: Sequence[Counts], name: str) -> str:
    return number(median([getattr(c, name) for c in counts]))
