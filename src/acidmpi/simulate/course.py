"""`python -m acidmpi.simulate` itself: one set of options, some seeds, one folder each."""

from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TextIO

from acidmpi.config.simulate import PAIRS, SimulateConfig
from acidmpi.errors import ConfigError
from acidmpi.simulate.asynchronous import PairSimulation
from acidmpi.simulate.graph import Graph, make_graph
from acidmpi.simulate.outcome import Outcome
from acidmpi.simulate.pictures import check_figure, draw_distances
from acidmpi.simulate.prediction import predict
from acidmpi.simulate.records import finish_records, keep, places, writers
from acidmpi.simulate.synchronous import RoundSimulation
from acidmpi.simulate.tell import tell_run
from acidmpi.simulate.workloads import make_workload
from acidmpi.telemetry import folder
from acidmpi.telemetry.metrics import Metrics

MOST_FILES = 256
"""Ranks that may have a file of events each."""


def run(config: SimulateConfig, out: TextIO) -> None:
    """Simulate, print what came of it, and write one folder for each seed.

    Raises:
        ConfigError: options that cannot go together, or a folder that is taken.
        TopologyError: a graph that cannot be.
        DataError: a folder that cannot be written.
    """
    _check(config)
    check_figure(config.figure, config.output, named=False)
    graph = graph_of(config)
    name = f"{config.workload}-{config.method}"
    top = folder.create(config.output, name, config.overwrite, datetime.now())
    outcomes = []
    for seed, place in places(top, config.seed, config.seeds, config.overwrite):
        one = replace(config, seed=seed, seeds=1, output=place.path)
        folder.write_config(place, one)
        with ExitStack() as stack:
            metrics = writers(place, config, stack)
            outcome = simulate(config, seed, graph, metrics if config.events else ())
            finish_records(outcome, metrics[0])
        keep(place, config, outcome)
        outcomes.append(outcome)
    if config.figure:
        _draw(config, graph, outcomes, top.path / "consensus.png")
    tell_run(config, graph, outcomes, top.path, out)


def _draw(
    config: SimulateConfig, graph: Graph | None, outcomes: list[Outcome], path: Path
) -> None:
    pure = graph is not None and config.workload == "averaging"
    slope = predict(config, graph).mean_square if graph and pure else None
    where = f" on {config.topology}" if graph else ""
    title = f"{config.workload}, {config.method}, {config.ranks} ranks{where}"
    draw_distances([(config.method, outcomes)], [slope], title, path)


def simulate(
    config: SimulateConfig,
    seed: int,
    graph: Graph | None = None,
    metrics: list[Metrics] | tuple[()] = (),
) -> Outcome:
    """One run with one seed, without files.

    Args:
        config: the options.
        seed: of this run; the options' own is not looked at.
        graph: from `graph_of`, where several runs share it.
        metrics: by rank, where to record gradients and exchanges; none: they are not.
    """
    workload = make_workload(config, seed)
    if config.method not in PAIRS:
        return RoundSimulation(config, seed, workload, metrics).run()
    used = graph or make_graph(config.topology, config.ranks, config.seed)
    return PairSimulation(config, seed, workload, used, metrics).run()


def graph_of(config: SimulateConfig) -> Graph | None:
    """The graph, where the method has one."""
    if config.method not in PAIRS:
        return None
    return make_graph(config.topology, config.ranks, config.seed)


def _check(config: SimulateConfig) -> None:
    if config.events and config.ranks > MOST_FILES:
        raise ConfigError(
            f"--events writes a file for each rank, for at most {MOST_FILES} of them, got "
            f"--ranks {config.ranks}; leave out --events"
        )
    if config.transfer_units and config.order != "exact":
        raise ConfigError(
            f"--order {config.order} is for exchanges that take no time, got "
            f"--transfer-units {config.transfer_units:g}; leave out one of the two"
        )
    if config.overlap and not config.transfer_units:
        raise ConfigError(
            "--overlap needs exchanges that take time, got --transfer-units 0; set it"
        )
