"""Pure averaging on real ranks beside the simulator, given the rates that were measured.

    source jobs/local/common.sh; acidmpi_use .venv        # the switches that MPI needs
    python jobs/experiments/simulator_beside_ranks.py [--topologies ring,exponential]

Runs `mpiexec -n RANKS python -m acidmpi.bench consensus` for each graph, both methods, then
lets as many simulated ranks follow the real protocol at the rate of exchanges that was
measured, and prints both decays. Status 1 where they differ by more than a quarter.

The machine need not be quiet, because the rate is measured; but the unit of time must be
long beside the delay of a message, or real ranks are late for what the simulator knows
nothing of (`--latency-seconds` tells it).
"""

import argparse
import json
import shlex
import subprocess
import sys
from typing import NamedTuple

try:
    import numpy as np

    from acidmpi.dynamics.decay import decay, rounding_floor
    from acidmpi.simulate.network import Link, Network
    from acidmpi.simulate.protocol import ProtocolSimulation
    from acidmpi.simulate.protocol_members import ProtocolOptions
    from acidmpi.topology.make import make_topology
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; activate the environment: source .venv/bin/activate")

METHODS = ("a2cid2", "async")
SAMPLES = 60
TOLERANCE = 0.25


class Row(NamedTuple):
    """One graph and method."""

    topology: str
    method: str
    comm_rate: float
    measured: float
    simulated: float

    @property
    def difference(self):
        return self.measured / self.simulated - 1


def main():
    options = read_options()
    rows = []
    for topology in options.topologies.split(","):
        for method, (found, rate) in measure(topology, options).items():
            rows.append(
                Row(
                    topology,
                    method,
                    rate,
                    found,
                    simulate(topology, method, rate, options),
                )
            )
            tell(rows[-1])
    return 1 if any(abs(row.difference) > TOLERANCE for row in rows) else 0


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, default=16)
    parser.add_argument("--topologies", default="ring,exponential")
    parser.add_argument("--unit-seconds", type=float, default=0.2)
    parser.add_argument("--units", type=float, default=60.0)
    parser.add_argument("--since", type=float, default=15.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--latency-seconds", type=float, default=2e-3)
    parser.add_argument("--mpiexec", default="mpiexec", help="with options of its own")
    return parser.parse_args()


def measure(topology, options):
    """Decay per unit and rate of exchanges of real ranks, by method."""
    command = [
        *shlex.split(options.mpiexec),
        *("-n", str(options.ranks), sys.executable, "-m", "acidmpi.bench", "consensus"),
        *("--topology", topology, "--method", "both", "--exchanges", "0"),
        *("--unit-seconds", str(options.unit_seconds), "--dtype", "float64"),
        *("--units", str(options.units), "--since", str(options.since)),
        *("--seeds", str(options.seeds), "--size", str(options.size)),
    ]
    print("$", shlex.join(command), flush=True)
    allowed = (
        120 + 3 * len(METHODS) * options.seeds * options.units * options.unit_seconds
    )
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=allowed, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stderr}\nthe benchmark ended with {done.returncode}")
    results = json.loads(done.stdout.strip().splitlines()[-1])["results"]
    values = {result["name"]: result["value"] for result in results}
    found = {
        method: (
            values[f"decay of the distance, {method}"],
            values[f"exchanges per rank and unit, {method}"],
        )
        for method in METHODS
    }
    if any(slope is None for slope, _ in found.values()):
        raise SystemExit(
            f"the ranks agreed to the last bit before --since {options.since:g}; make it "
            "smaller, or use more ranks"
        )
    return found


def simulate(topology, method, rate, options):
    """Mean decay of simulated ranks, looked at as the benchmark looks at real ones."""
    units = np.linspace(options.since, options.units, SAMPLES)
    found = []
    for seed in range(options.seeds):
        chosen = ProtocolOptions(
            topology=make_topology(topology, options.ranks),
            method=method,
            comm_rate=rate,
            network=Network(Link(options.latency_seconds)),
            unit_seconds=options.unit_seconds,
            seed=seed,
        )
        chance = np.random.default_rng([seed, 1])
        start = chance.standard_normal((options.ranks, 100))
        simulation = ProtocolSimulation(start, chosen)
        moments = simulation.run((options.unit_seconds * units).tolist())
        floor = rounding_floor(simulation.members[0].read(), "float64")
        found.append(decay(units, [m.consensus_distance for m in moments], floor))
    return float(np.mean(found))


def tell(row):
    print(
        f"{row.topology}, {row.method}: {row.comm_rate:.3f} exchanges a unit, decay "
        f"{row.measured:.4f} measured, {row.simulated:.4f} simulated "
        f"({row.difference:+.1%})",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
