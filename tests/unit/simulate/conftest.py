"""Small simulations, and the same as a list of events for the float64 reference."""

import pytest

from acidmpi.config.simulate import SimulateConfig
from acidmpi.simulate.asynchronous import PairSimulation
from acidmpi.simulate.course import graph_of
from acidmpi.simulate.workloads import make_workload

SMALL = {"ranks": 6, "units": 20.0, "samples": 10, "dimension": 5}


@pytest.fixture
def pairs():
    """A function that makes a simulation of pairs from options."""

    def make(seed=0, **options):
        config = SimulateConfig(**{**SMALL, **options})
        workload = make_workload(config, seed)
        return PairSimulation(config, seed, workload, graph_of(config))

    return make
