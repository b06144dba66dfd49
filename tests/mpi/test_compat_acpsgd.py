"""The API of acpsgd on ranks, and scripts for both packages with one line replaced."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import nn

import acidmpi.compat.acpsgd as acpsgd
from acidmpi.errors import ConfigError
from acidmpi.tasks.lean import leave_out_compiler

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module", autouse=True)
def crowded():
    leave_out_compiler()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def ended():
    """The package has no function that ends it; a process does so when it exits."""
    yield
    acpsgd.HOLDER.shutdown()


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def loss_of(model, rank, step):
    chance = np.random.default_rng([rank, step])
    inputs, targets = chance.normal(size=(8, 6)), chance.normal(size=(8, 3))
    return (model(torch.tensor(inputs)) - torch.tensor(targets)).square().mean()


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def train(model, optimizer, steps, ranks=(RANK,)):
    for step in range(steps):
        optimizer.zero_grad()
        (sum(loss_of(model, r, step) for r in ranks) / len(ranks)).backward()
        optimizer.step()
    return flat(model)


@pytest.mark.parametrize("early", [False, True], ids=["without-init", "init"])
def test_ranks_are_those_of_the_world(early):
    if early:
        acpsgd.init()
        acpsgd.init()
    assert (acpsgd.rank(), acpsgd.size()) == (RANK, SIZE)


def test_allreduce_leaves_the_sum_and_returns_the_mean():
    tensor = torch.tensor([RANK, 2 * RANK])
    mean = acpsgd.allreduce(tensor, "accuracy")
    total = sum(range(SIZE))
    assert tensor.tolist() == [total, 2 * total]
    assert mean.tolist() == pytest.approx([total / SIZE, 2 * total / SIZE])
    assert mean.dtype is torch.float32


@pytest.mark.parametrize("threshold", [25, 1e-4, 0])
def test_full_width_is_one_big_batch(threshold):
    plain = network()
    right = train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), 6, range(SIZE))
    model = network()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = acpsgd.DistributedOptimizer(sgd, rank=6, threshold=threshold)
    assert isinstance(optimizer, torch.optim.SGD)
    mine = train(model, optimizer, 6)
    np.testing.assert_allclose(mine.numpy(), right.numpy(), rtol=1e-9, atol=1e-12)


def test_the_width_that_is_asked_for_is_used_and_all_ranks_agree():
    steps = 16
    moved = {}
    for rank in (1, 6):
        model = network()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        named = model.named_parameters()
        optimizer = acpsgd.DistributedOptimizer(sgd, named, rank)
        moved[rank] = train(model, optimizer, steps)
        assert np.ptp(COMM.allgather(moved[rank].numpy()), axis=0).max() == 0
    assert not torch.allclose(moved[1], moved[6], rtol=1e-6)


def test_models_begin_alike():
    root = SIZE - 1
    model = network(RANK)
    adam = torch.optim.Adam(model.parameters(), lr=0.01 * (RANK + 1))
    if root == RANK:
        train(model, adam, 1, [0])
    acpsgd.broadcast_parameters(model.state_dict(), root)
    acpsgd.broadcast_optimizer_state(adam, root)
    assert adam.param_groups[0]["lr"] == 0.01 * SIZE
    mine = train(model, adam, 2, [0])
    assert np.ptp(COMM.allgather(mine.numpy()), axis=0).max() == 0


@pytest.mark.parametrize("threshold", [-1, float("nan")])
def test_a_threshold_that_makes_no_sense(threshold):
    sgd = torch.optim.SGD(network().parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="threshold"):
        acpsgd.DistributedOptimizer(sgd, threshold=threshold)


REPLACED = {
    "horovod_style": (
        "import horovod.torch as hvd\n",
        "import acidmpi.compat.horovod as hvd\n",
    ),
    "acpsgd_style": (
        "import acpsgd\n",
        "import acidmpi.compat.acpsgd as acpsgd\n",
    ),
}
"""What the documentation tells users to change, and nothing else."""

FP16 = ["--fp16-allreduce", "--batches-per-allreduce=2"]
RUNS = [
    ("horovod_style", ["--epochs=4", "--lr=0.03"], 0.85),
    ("horovod_style", ["--epochs=1", *FP16], 0.05),
    ("acpsgd_style", ["--epochs=3"], 0.85),
]
"""What a script is given, and an accuracy that it reaches; guessing gives 0.1."""


@pytest.mark.parametrize(
    ("name", "options", "least"), RUNS, ids=["horovod", "fp16", "acpsgd"]
)
def test_scripts_run_with_one_line_replaced(name, options, least, capfd):
    source = (EXAMPLES / f"{name}.py").read_text()
    theirs, ours = REPLACED[name]
    assert source.count(f"\n{theirs}") == 1
    script = {"__name__": "script", "__doc__": "A script."}
    exec(compile(source.replace(f"\n{theirs}", f"\n{ours}"), name, "exec"), script)
    try:
        accuracy = script["main"](options)
    finally:
        if "hvd" in script:
            script["hvd"].shutdown()
    assert accuracy > least
    assert len(set(COMM.allgather(accuracy))) == 1
    assert capfd.readouterr().out.count("epoch") == (
        int(options[0][-1]) if RANK == 0 else 0
    )
