"""`python -m acidmpi.simulate race`: time to a fixed loss in four settings.

All ways take plain SGD at one learning rate on the same workload. A step of all-reduce
SGD is one update with the mean of all gradients; elsewhere each rank takes its own.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TextIO

import numpy as np

from acidmpi.config.protocol import ProtocolConfig, RaceConfig
from acidmpi.simulate.network import GradientTimes, Link, Network
from acidmpi.simulate.plan_times import pairs_intervals, step_seconds
from acidmpi.simulate.protocol import ProtocolSimulation
from acidmpi.simulate.protocol_course import BYTES, Learning
from acidmpi.simulate.protocol_members import ProtocolOptions
from acidmpi.simulate.protocol_rounds import Costs, Together, first_below, run_together
from acidmpi.simulate.tell import table
from acidmpi.simulate.workload import Workload
from acidmpi.simulate.workloads import make_workload
from acidmpi.topology.make import make_topology

LOSSES = {"digits": 0.3, "quadratic": 1.0}

LOOKS = 80

Pairwise = Literal["async", "a2cid2"]

TOGETHER: tuple[Together, ...] = ("allreduce", "localsgd", "gossip")
PAIRS: tuple[tuple[Pairwise, float], ...] = (
    ("async", 0.25),
    ("async", 1.0),
    ("async", 2.0),
    ("a2cid2", 0.25),
    ("a2cid2", 1.0),
)


class Setting(NamedTuple):
    """One column of the table."""

    name: str
    straggler_factor: float
    gigabits: float


def run(config: RaceConfig, out: TextIO) -> None:
    """Let all race and print one table; medians over the seeds.

    Raises:
        TopologyError: a graph that cannot be.
    """
    make_topology(config.topology, config.ranks)
    settings = _settings(config)
    loss = config.loss or LOSSES[config.workload]
    rows = [(f"seconds to a test loss of {loss:g}", *(s.name for s in settings))]
    for name, racer in _racers(config):
        cells = []
        for setting in settings:
            found = [
                racer(setting, seed, loss)
                for seed in range(config.seed, config.seed + config.seeds)
            ]
            middle = float(np.median(found))
            cells.append("not reached" if np.isinf(middle) else f"{middle:.3g}")
        rows.append((name, *cells))
    print(table(rows), file=out, flush=True)


def _settings(config: RaceConfig) -> list[Setting]:
    slow = config.straggler_factor
    return [
        Setting(f"{kind}{config_gigabits:g} Gbit/s", factor, config_gigabits)
        for config_gigabits in (config.fast_gigabits, config.thin_gigabits)
        for kind, factor in (("", 1.0), (f"a rank {slow:g}x slower, ", slow))
    ]


Racer = Callable[[Setting, int, float], float]


def _racers(config: RaceConfig) -> list[tuple[str, Racer]]:
    """Names, and functions that say how long they take."""
    local = f"localsgd, {config.local_steps} steps"
    names: dict[Together, str] = {"localsgd": local}
    return [
        *((names.get(m, m), _together(config, m)) for m in TOGETHER),
        *(
            (f"{m}, {config.topology}, rate {rate:g}", _pairs(config, m, rate))
            for m, rate in PAIRS
        ),
    ]


def _together(config: RaceConfig, method: Together) -> Racer:
    def seconds(setting: Setting, seed: int, loss: float) -> float:
        workload = _workload(config, seed)
        costs = Costs(
            _times(config, setting),
            _link(config, setting),
            BYTES * config.parameters,
            max(1, -(-BYTES * config.parameters // config.bucket_bytes)),
            config.local_steps,
        )
        looks = run_together(
            method,
            workload.start(),
            Learning(workload, config.lr),
            costs,
            config.steps,
            max(1, config.steps // LOOKS),
            seed,
        )
        losses = [_loss(workload, look.mean) for look in looks]
        return first_below([look.seconds for look in looks], losses, loss)

    return seconds


def _pairs(config: RaceConfig, method: Pairwise, rate: float) -> Racer:
    def seconds(setting: Setting, seed: int, loss: float) -> float:
        workload = _workload(config, seed)
        times = _times(config, setting)
        options = ProtocolOptions(
            topology=make_topology(config.topology, config.ranks),
            method=method,
            comm_rate=rate,
            network=Network(_link(config, setting)),
            gradients=times,
            message_bytes=BYTES * config.parameters,
            heartbeat_seconds=max(0.25, times.unit_seconds),
            seed=seed,
        )
        learner = Learning(workload, config.lr)
        simulation = ProtocolSimulation(workload.start(), options, learner)
        intervals = pairs_intervals(
            times,
            options.topology,
            rate,
            _transfer(config, setting),
            options.network.link,
        )
        step = step_seconds(intervals)
        return _first_below(simulation, config, workload, step, loss)

    return seconds


def _first_below(
    simulation: ProtocolSimulation,
    config: RaceConfig,
    workload: Workload,
    step_seconds: float,
    loss: float,
) -> float:
    """When simulated ranks reach `loss`, looked at every few steps."""
    seconds: list[float] = []
    losses: list[float] = []
    gradients = 0
    while gradients < config.steps * config.ranks:
        until = (len(seconds) + 1) * step_seconds * max(1, config.steps // LOOKS)
        moment = simulation.run([until])[0]
        gradients = moment.gradients
        seconds.append(until)
        losses.append(_loss(workload, moment.mean))
        if losses[-1] <= loss:
            break
    return first_below(seconds, losses, loss)


def _transfer(config: RaceConfig, setting: Setting) -> float:
    return BYTES * config.parameters / _link(config, setting).bytes_per_second


def _workload(config: RaceConfig, seed: int) -> Workload:
    shared = ProtocolConfig(
        workload=config.workload,
        ranks=config.ranks,
        lr=config.lr,
        batch_size=config.batch_size,
        dirichlet=config.dirichlet,
    ).ideal()
    return make_workload(shared, seed)


def _times(config: RaceConfig, setting: Setting) -> GradientTimes:
    slow = 1 if setting.straggler_factor > 1 else 0
    return GradientTimes.of(
        config.ranks,
        config.gradient_seconds,
        spread=config.gradient_spread,
        straggler=setting.straggler_factor,
        stragglers=slow,
    )


def _link(config: RaceConfig, setting: Setting) -> Link:
    return Link(config.latency_seconds, setting.gigabits * 1e9 / 8)


def _loss(
    workload: Workload, x: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> float:
    found, _ = workload.evaluate(x)
    return float("inf") if found is None else found
