"""A script for Horovod: a small convolutional network learns handwritten digits.

It is written for `horovod.torch`. One line makes it run over MPI without Horovod:

    sed 's/import horovod.torch as hvd/import acidmpi.compat.horovod as hvd/' \\
        docs/examples/horovod_style.py > digits.py
    mpiexec -n 4 python digits.py --epochs 5
"""

import argparse

import horovod.torch as hvd
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from acidmpi.tasks.digits import load
from acidmpi.tasks.interface import TaskOptions


class Net(nn.Module):
    """Two convolutions and two linear layers for images of 8x8 pixels."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.fc1 = nn.Linear(128, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, images):
        """Logits of ten digits."""
        hidden = F.max_pool2d(F.relu(self.conv1(images)), 2)
        hidden = F.max_pool2d(F.relu(self.conv2(hidden)), 2)
        return self.fc2(F.relu(self.fc1(hidden.flatten(1))))


def arguments(words=None):
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batches-per-allreduce", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--momentum", type=float, default=0.5)
    parser.add_argument("--clip", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--fp16-allreduce", action="store_true")
    parser.add_argument("--gradient-predivide-factor", type=float, default=1.0)
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


def train_epoch(model, optimizer, loader, batch_size, clip):
    """Go through this rank's part of the data once."""
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            loss = F.cross_entropy(model(images[part]), labels[part], reduction="sum")
            (loss / len(images)).backward()
        optimizer.synchronize()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        with optimizer.skip_synchronize():
            optimizer.step()


def metric_average(value, name):
    """The mean of a number over ranks."""
    return hvd.allreduce(torch.tensor(value), name=name).item()


def evaluate(model, loader):
    """Loss and accuracy, averaged over ranks."""
    model.eval()
    loss, right, seen = 0.0, 0, 0
    with torch.no_grad():
        for images, labels in loader:
            logits = model(images)
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            right += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)
    return metric_average(loss / seen, "loss"), metric_average(right / seen, "accuracy")


def main(words=None):
    """Train, and return the accuracy on images that were not trained on."""
    args = arguments(words)
    hvd.init()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)

    train_set, test_set = digits()
    train_sampler = DistributedSampler(
        train_set, num_replicas=hvd.size(), rank=hvd.rank()
    )
    step_size = args.batch_size * args.batches_per_allreduce
    train_loader = DataLoader(train_set, step_size, sampler=train_sampler)
    test_sampler = DistributedSampler(
        test_set, num_replicas=hvd.size(), rank=hvd.rank()
    )
    test_loader = DataLoader(test_set, 100, sampler=test_sampler)

    model = Net()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=args.lr * hvd.size(), momentum=args.momentum
    )
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    optimizer = hvd.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        compression=hvd.Compression.fp16
        if args.fp16_allreduce
        else hvd.Compression.none,
        backward_passes_per_step=args.batches_per_allreduce,
        op=hvd.Average,
        gradient_predivide_factor=args.gradient_predivide_factor,
    )

    accuracy = 0.0
    for epoch in range(1, args.epochs + 1):
        train_sampler.set_epoch(epoch)
        train_epoch(model, optimizer, train_loader, args.batch_size, args.clip)
        loss, accuracy = evaluate(model, test_loader)
        if hvd.rank() == 0:
            print(f"epoch {epoch}: loss {loss:.3f}, accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
