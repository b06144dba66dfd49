"""A solver with its own messages, and a model that learns from it while it runs.

    mpiexec -n 4 python docs/examples/embed.py [--inline]

The solver was there first. Teams of ranks solve Poisson's equation -Δu = f on the unit
square by Jacobi's method, each rank with some of the rows: halos go to the neighbours
above and below, and the residual is summed over the team. The right-hand sides are bumps
at random places. Every line that was added for the training is in `Surrogate` or carries
its name: a small network that learns the mean of u in the four quarters of the square
from the place of the bump. It is trained in between sweeps, by all teams together, each
on what it has solved itself.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import acidmpi

GRID = 10
"""Rows and columns inside the square."""
CASES = 12
"""Right-hand sides that are solved at once."""
BATCHES = 4
SWEEPS = 150
SWEEPS_BETWEEN_STEPS = 2


class Poisson:
    """Jacobi's method for several right-hand sides, the rows divided among the ranks."""

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        column = comm.Create_cart([comm.size])
        self.above, self.below = column.Shift(0, 1)
        self.column = column
        self.rows = np.array_split(np.arange(GRID), comm.size)[comm.rank]

    def solve(self, places: Any, between: Callable[[int], None]) -> Any:
        """u for bumps at `places`; calls `between` after each sweep."""
        f = bumps(places)[:, self.rows]
        u = np.zeros((len(places), len(self.rows) + 2, GRID + 2))
        for sweep in range(SWEEPS):
            self.exchange_halos(u)
            u[:, 1:-1, 1:-1] += self.residual(u, f) / 4
            between(sweep)
        self.exchange_halos(u)
        return u

    def exchange_halos(self, u: Any) -> None:
        """Outermost rows of the neighbours; outside the square u stays zero."""
        for row, to, halo, source in (
            (u[:, 1], self.above, u[:, -1], self.below),
            (u[:, -2], self.below, u[:, 0], self.above),
        ):
            received = np.zeros_like(row)
            self.column.Sendrecv(
                np.ascontiguousarray(row), to, recvbuf=received, source=source
            )
            halo[:] = received

    def residual(self, u: Any, f: Any) -> Any:
        """f + Δu at each of this rank's points, times the square of their distance."""
        sides = u[:, :-2, 1:-1] + u[:, 2:, 1:-1] + u[:, 1:-1, :-2] + u[:, 1:-1, 2:]
        return f / (GRID + 1) ** 2 + sides - 4 * u[:, 1:-1, 1:-1]

    def relative_residual(self, u: Any, places: Any) -> float:
        """Norm of the residual, of all ranks, in units of the right-hand side's."""
        f = bumps(places)[:, self.rows]
        squares = [np.sum(self.residual(u, f) ** 2), np.sum((f / (GRID + 1) ** 2) ** 2)]
        above, below = self.total(np.array(squares))
        return float(np.sqrt(above / below))

    def quarters(self, u: Any) -> Any:
        """Mean of u in each quarter of the square, for each case."""
        whole = np.zeros((len(u), GRID, GRID))
        whole[:, self.rows] = u[:, 1:-1, 1:-1]
        half = GRID // 2
        blocks = self.total(whole).reshape(-1, 2, half, 2, half)
        return blocks.mean(axis=(2, 4)).reshape(-1, 4)

    def total(self, mine: Any) -> Any:
        """Sum over the team."""
        result = np.empty_like(mine)
        self.comm.Allreduce(mine, result)
        return result


def bumps(places: Any) -> Any:
    """Right-hand sides: a bump at each place."""
    points = np.arange(1, GRID + 1) / (GRID + 1)
    rows, columns = np.exp(-30 * (places.T[:, :, None] - points) ** 2)
    return 100 * rows[:, :, None] * columns[:, None, :]


class Surrogate:
    """A network from the place of a bump to the means of u, trained by all ranks.

    Args:
        comm: those who train together; the worker duplicates it, so that its messages
            and the solver's never meet.
        inline: communicate in this thread only, when `poll` is called.
    """

    def __init__(self, comm: Any, inline: bool) -> None:
        import torch

        torch.manual_seed(0)
        self.comm = comm
        self.torch = torch
        self.model = torch.nn.Sequential(
            torch.nn.Linear(2, 24), torch.nn.Tanh(), torch.nn.Linear(24, 4)
        )
        optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.chance = np.random.default_rng(comm.rank)
        self.known: list[tuple[Any, Any]] = []
        self.worker = acidmpi.Worker(
            self.model,
            optimizer,
            comm=comm,
            progress="inline" if inline else "thread",
            # A step must not wait for ranks that wait for their team in a blocking call:
            # inline, they cannot answer from there.
            max_lag=None if inline else 4,
        )

    def learn(self, places: Any, features: Any) -> None:
        """Remember solutions."""
        data = [
            self.torch.tensor(a, dtype=self.torch.float32) for a in (places, features)
        ]
        self.known.append((data[0], data[1]))

    def step(self) -> None:
        """One gradient, from a random part of what is known."""
        if self.known:
            inputs, targets = self.known[self.chance.integers(len(self.known))]
            self.worker.zero_grad()
            loss = self.error(inputs, targets)
            loss.backward()
            self.worker.step(loss.item())

    def poll(self) -> None:
        """Let communication go on; does nothing where a thread does it."""
        self.worker.poll()

    def loss(self) -> float:
        """Mean over all that is known."""
        with self.torch.no_grad():
            losses = [self.error(*pair).item() for pair in self.known]
        return float(np.mean(losses))

    def error(self, inputs: Any, targets: Any) -> Any:
        """Mean square, in units of the targets' own."""
        difference = self.model(inputs) - targets
        return difference.square().mean() / targets.square().mean()


@dataclass(frozen=True)
class Result:
    """What a rank has in the end."""

    solutions: list[Any]
    residual: float
    loss: float | None = None
    exchanges: int = 0


def main(comm: Any, *, train: bool = True, inline: bool = False) -> Result:
    """The whole program; collective over `comm`.

    Args:
        comm: all ranks; whoever started MPI ends it.
        train: have the surrogate beside the solver.
        inline: for an MPI that does not allow threads.
    """
    number = comm.rank % max(1, comm.size // 2)
    team = comm.Split(number, key=comm.rank)
    # This order of the ranks makes neighbours on the ring come from different teams.
    everyone = comm.Split(0, key=team.rank)
    solver = Poisson(team)
    if train:
        result = with_surrogate(solver, number, Surrogate(everyone, inline))
    else:
        result = solve_all(solver, number)
    for used in (solver.column, everyone, team):
        used.Free()
    return result


def with_surrogate(solver: Poisson, number: int, surrogate: Surrogate) -> Result:
    """The solver's work, and the surrogate's beside it."""
    comm = surrogate.comm
    with surrogate.worker:
        result = solve_all(solver, number, surrogate)
    loss = comm.allreduce(surrogate.loss()) / comm.size
    told = surrogate.worker.statistics()
    if comm.rank == 0:
        print(
            f"solver: relative residual {result.residual:.1e}; surrogate: loss "
            f"{loss:.4f} after {told.total_gradients} gradients and "
            f"{told.total_exchanges} exchanges"
        )
    return replace(result, loss=loss, exchanges=told.exchanges)


def solve_all(
    solver: Poisson, number: int, surrogate: Surrogate | None = None
) -> Result:
    """Every batch of a team, and some training after every few sweeps."""

    def between(sweep: int) -> None:
        if surrogate:
            surrogate.poll()
            if sweep % SWEEPS_BETWEEN_STEPS == 0:
                surrogate.step()

    solutions, residual = [], 0.0
    for places in batches(number):
        u = solver.solve(places, between)
        residual = max(residual, solver.relative_residual(u, places))
        features = solver.quarters(u)
        if surrogate:
            surrogate.learn(places, features)
        solutions.append(u)
    return Result(solutions, residual)


def batches(number: int) -> Iterator[Any]:
    """Where the bumps are; teams have different ones."""
    chance = np.random.default_rng([7, number])
    for _ in range(BATCHES):
        yield chance.uniform(0.2, 0.8, size=(CASES, 2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inline", action="store_true", help="use no second thread")
    options = parser.parse_args()
    if options.inline:
        import mpi4py

        # Only to show that this is enough.
        mpi4py.rc.thread_level = "funneled"
    from mpi4py import MPI

    main(MPI.COMM_WORLD, inline=options.inline)
