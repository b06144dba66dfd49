"""A script for acpsgd: a network of linear layers learns handwritten digits.

It is written for the `acpsgd` package. One line makes it run over MPI:

    sed 's/^import acpsgd$/import acidmpi.compat.acpsgd as acpsgd/' \\
        docs/examples/acpsgd_style.py > digits.py
    mpiexec -n 4 python digits.py --epochs 5
"""

import argparse

import acpsgd
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from acidmpi.tasks.digits import load
from acidmpi.tasks.interface import TaskOptions


def arguments(words=None):
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rank", type=int, default=4, help="width of the factors")
    parser.add_argument("--threshold", type=float, default=25, help="MB of a message")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--momentum", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args(words)


def digits():
    """The data sets to train and to test on; they come with acidmpi."""
    images = load(TaskOptions())

    def data_set(pixels, labels):
        inputs = pixels.take(np.arange(len(pixels))).astype(np.float32)
        inputs = (inputs - images.mean[0]) / images.std[0]
        return TensorDataset(torch.from_numpy(inputs), torch.from_numpy(labels).long())

    return (
        data_set(images.train, images.train_labels),
        data_set(images.test, images.test_labels),
    )


def part_of(data_set, batch_size):
    """A loader of this rank's part, and what shuffles it."""
    sampler = DistributedSampler(
        data_set, num_replicas=acpsgd.size(), rank=acpsgd.rank()
    )
    return DataLoader(data_set, batch_size, sampler=sampler), sampler


def evaluate(model, loader):
    """Accuracy, averaged over ranks."""
    right, seen = 0, 0
    with torch.no_grad():
        for images, labels in loader:
            right += (model(images).argmax(1) == labels).sum().item()
            seen += len(labels)
    return acpsgd.allreduce(torch.tensor([right / seen]), name="accuracy").item()


def main(words=None):
    """Train, and return the accuracy on images that were not trained on."""
    args = arguments(words)
    acpsgd.init()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)

    train_set, test_set = digits()
    train_loader, train_sampler = part_of(train_set, args.batch_size)
    test_loader, _ = part_of(test_set, 100)

    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    optimizer = torch.optim.SGD(
        model.parameters(), lr=args.lr * acpsgd.size(), momentum=args.momentum
    )
    acpsgd.broadcast_parameters(model.state_dict(), root_rank=0)
    optimizer = acpsgd.DistributedOptimizer(
        optimizer, model.named_parameters(), rank=args.rank, threshold=args.threshold
    )

    accuracy = 0.0
    for epoch in range(1, args.epochs + 1):
        train_sampler.set_epoch(epoch)
        for images, labels in train_loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        accuracy = evaluate(model, test_loader)
        if acpsgd.rank() == 0:
            print(f"epoch {epoch}: accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
