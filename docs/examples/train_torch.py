"""A training loop of one's own, on any number of ranks.

    mpiexec -n 4 python docs/examples/train_torch.py

The network learns which points of the plane lie in a ring. Each rank draws points of its
own, and all train one model.
"""

from typing import Any

import torch

import acidmpi

GRADIENTS = 300
"""Of each rank, on average: a fast one makes more, and a slow one fewer."""


def sample(count: int, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Points, and whether they lie in the ring."""
    points = torch.rand(count, 2, generator=chance) * 4 - 2
    radius = points.norm(dim=1)
    return points, ((radius > 0.7) & (radius < 1.6)).long()


def main(comm: Any) -> float:
    """Train on all ranks of `comm`; returns the accuracy of the common model."""
    torch.set_num_threads(1)  # ranks share the cores
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    worker = acidmpi.Worker(
        model,
        optimizer,
        comm=comm,
        topology="ring",
        total_gradients=GRADIENTS * comm.size,
    )
    chance = torch.Generator().manual_seed(comm.rank)
    with worker:
        while not worker.finished:
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * (1.0 - 0.9 * worker.progress)
            points, labels = sample(64, chance)
            worker.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(points), labels)
            loss.backward()
            worker.step(loss.item(), samples=len(points))

    # From here on every rank has the same plain model.
    points, labels = sample(4000, torch.Generator().manual_seed(12345))
    with torch.no_grad():
        accuracy = (model(points).argmax(1) == labels).float().mean().item()
    if comm.rank == 0:
        told = worker.statistics()
        print(
            f"accuracy {accuracy:.3f} after {told.total_gradients} gradients of "
            f"{comm.size} ranks and {told.total_exchanges} exchanges"
        )
    return accuracy


if __name__ == "__main__":
    from mpi4py import MPI

    main(MPI.COMM_WORLD)
