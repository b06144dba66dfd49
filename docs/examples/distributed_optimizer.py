"""Plain torch training made synchronous data parallelism, in four lines.

    mpiexec -n 2 python docs/examples/distributed_optimizer.py [compression]

A network learns handwritten digits that come with the package. Each rank draws batches of
its own; all ranks step with the mean of their gradients and keep one model. `compression`
is a name like fp16, topk or powersgd; without it gradients travel as they are.
"""

import sys
from typing import Any

import torch

import acidmpi
from acidmpi.compression import registry
from acidmpi.parallel.torch.functions import allreduce, broadcast_parameters
from acidmpi.tasks.registry import load_task

EPOCHS = 8


def main(comm: Any, compression: str = "none") -> float:
    """Train on all ranks of `comm`; returns the accuracy of the common model."""
    torch.set_num_threads(1)  # ranks share the cores
    task = load_task("digits", model="mlp", rank=comm.rank, size=comm.size)
    torch.manual_seed(comm.rank)
    model = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 96),
        torch.nn.ReLU(),
        torch.nn.Linear(96, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1.0, 0.1, total_iters=EPOCHS
    )

    broadcast_parameters(model.state_dict(), comm)  # 1: all ranks begin alike
    optimizer = acidmpi.DistributedOptimizer(  # 2: step() averages gradients first
        optimizer,
        model.named_parameters(),
        comm=comm,
        compression=registry.make(compression),
    )
    batches = task.batches()
    with optimizer:  # 3: an error on one rank ends all
        for _ in range(EPOCHS):
            for _ in range(task.samples_per_epoch // task.batch_size // comm.size):
                inputs, targets = next(batches)
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(inputs), targets)
                loss.backward()
                optimizer.step()
            schedule.step()
        mean_loss = allreduce(loss.detach(), comm)  # 4: numbers of all ranks
        told = optimizer.statistics()

    _, accuracy = task.evaluate(model)
    if comm.rank == 0:
        print(
            f"accuracy {accuracy:.3f}, last loss {mean_loss:.3f} after {told.steps} steps "
            f"of {comm.size} ranks, {told.bytes_sent / 1e6:.2f} MB sent by each"
        )
    return accuracy


if __name__ == "__main__":
    from mpi4py import MPI

    main(MPI.COMM_WORLD, *sys.argv[1:])
