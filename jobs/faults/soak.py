"""Very many exchanges under random delays: nothing stands still, drifts or grows.

    mpiexec -n 8 python jobs/faults/soak.py [--exchanges 1000000] [--fault-tolerant]

Every rank adds random updates to a vector and averages it with its neighbours as fast as
messages go, while each message and each chunk is late by a random time. In the end the
vector must be the mean of all that was ever added, to rounding, and no rank may have
grown. Rank 0 prints a table and ends with 1 where that does not hold.
"""

import argparse
import os
import sys
import time
from pathlib import Path

try:
    import numpy as np
    from checks import check
    from mpi4py import MPI

    import acidmpi
    from acidmpi.config.command_line import Parser
    from acidmpi.config.options import above, at_least
    from acidmpi.errors import ConfigError, TopologyError
    from acidmpi.mpi.survival import check_survivable
    from acidmpi.topology.make import make_topology
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; activate the environment: source .venv/bin/activate")

PLAN = (
    "rank=all at=message:1- do=delay:0~{delay}; rank=all at=chunk:1- do=delay:0~{delay}"
)
LOOKS = 20
"""So often memory is looked at."""

WARM = LOOKS // 4
"""Looks before memory is expected to stand still."""

MOST_GROWTH = 0.03
MOST_DRIFT = 1e-10
UPDATE = 1e-3


BOUNDS = {
    "exchanges": at_least(1),
    "delay": at_least(0),
    "elements": at_least(1),
    "comm_rate": above(0),
    "seed": at_least(0),
}


def main() -> int:
    """Run the command: 0 where all holds, 1 where it does not, 2 for a mistake."""
    comm = MPI.COMM_WORLD
    try:  # all ranks have the same arguments and come to the same error
        chosen = checked(parsed(), comm.size)
    except (ConfigError, TopologyError) as error:
        if comm.rank == 0:
            print(f"soak: error: {error}", file=sys.stderr)
        return 2
    return judged(chosen, comm)


def judged(chosen: argparse.Namespace, comm: MPI.Comm) -> int:
    """Run, gather, judge; 0 where all holds."""
    began = time.monotonic()
    x, added, sizes, made = soak(chosen, comm)
    seconds = time.monotonic() - began
    asked = sum_over(comm, added) / comm.size
    drift = float(np.abs(x - asked).max() / np.abs(asked).max())
    growth = sizes[-1] / sizes[WARM] - 1 if len(sizes) > WARM else float("nan")
    told = comm.gather((drift, growth, sizes[-1], made), 0)
    return report(chosen, told, seconds) if comm.rank == 0 else 0


def parsed() -> argparse.Namespace:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--exchanges", type=int, default=1_000_000)
    parser.add_argument("--delay", type=float, default=1e-3, help="largest, seconds")
    parser.add_argument("--elements", type=int, default=1000)
    parser.add_argument("--topology", default="ring")
    parser.add_argument("--comm-rate", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault-tolerant", action="store_true")
    return parser.parse_args()


def checked(chosen: argparse.Namespace, ranks: int) -> argparse.Namespace:
    """The options, which all can be; so many ranks can make exchanges.

    Raises:
        ConfigError: an option cannot be, there is one rank, or no death can be survived.
        TopologyError: the graph cannot be.
    """
    check(chosen, BOUNDS)
    if ranks < 2:
        raise ConfigError("one rank makes no exchanges; start more: mpiexec -n 8 …")
    make_topology(chosen.topology, ranks)
    if chosen.fault_tolerant:
        check_survivable()
    return chosen


def soak(chosen: argparse.Namespace, comm: MPI.Comm):
    """The average, this rank's own sum, its memory over time, and its exchanges."""
    chance = np.random.default_rng([chosen.seed, comm.rank])
    x = chance.standard_normal(chosen.elements)
    added, sizes = x.copy(), []
    with acidmpi.Gossip(x, comm=comm, **options(chosen)) as gossip:
        while not gossip.finished:
            update = UPDATE * chance.standard_normal(chosen.elements)
            gossip.apply(update)
            added += update
            if gossip.progress * LOOKS >= len(sizes) + 1:
                sizes.append(resident_bytes())
                tell(comm, len(sizes), gossip)
    sizes.append(resident_bytes())
    return x, added, sizes, gossip.statistics().exchanges


def options(chosen: argparse.Namespace) -> dict:
    # Two ranks take part in an exchange: as many gradients as make so many of them.
    gradients = max(1, round(2 * chosen.exchanges / chosen.comm_rate))
    tolerant = {"fault_tolerant": True} if chosen.fault_tolerant else {}
    plan = {"fault": PLAN.format(delay=chosen.delay)} if chosen.delay else {}
    return {
        "topology": chosen.topology,
        "comm_rate": chosen.comm_rate,
        "total_gradients": gradients,
        "seed": chosen.seed,
        **tolerant,
        **plan,
    }


def tell(comm: MPI.Comm, looks: int, gossip: acidmpi.Gossip) -> None:
    """A sign of life."""
    if comm.rank == 0:
        share, made = looks / LOOKS, gossip.statistics().total_exchanges
        size = resident_bytes() / 2**20
        text = f"{share:.0%}: {made:,} exchanges of all ranks, {size:.0f} MiB here"
        print(text, file=sys.stderr, flush=True)


def sum_over(comm: MPI.Comm, values: np.ndarray) -> np.ndarray:
    total = np.empty_like(values)
    comm.Allreduce(values, total)
    return total


def resident_bytes() -> int:
    """Memory that this process really has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def report(chosen: argparse.Namespace, told: list, seconds: float) -> int:
    """Print what all ranks came to; 1 where a promise is broken."""
    drift = max(row[0] for row in told)
    growth = max(row[1] for row in told)
    exchanges = sum(row[3] for row in told) // 2
    good = exchanges > 0 and drift <= MOST_DRIFT and not growth > MOST_GROWTH
    print(f"exchanges         {exchanges:,} in {seconds:.0f} s, {len(told)} ranks")
    print(f"delays            up to {chosen.delay:g} s, of each message and chunk")
    print(f"drift             {drift:.2g} of the largest element (≤ {MOST_DRIFT:g})")
    print(f"growth of memory  {growth:.2%} at most (≤ {MOST_GROWTH:.0%})")
    print(f"memory of a rank  {max(row[2] for row in told) / 2**20:.0f} MiB at most")
    print("all holds" if good else "BROKEN")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
