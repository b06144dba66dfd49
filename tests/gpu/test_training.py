"""A small model on GPUs: ranks agree at the end, and learn what one on the CPU learns."""

import pytest
import torch
from mpi4py import MPI
from torch import nn

from acidmpi.arrays.cuda.choice import choose_device
from acidmpi.errors import AcidError
from acidmpi.mpi.nodes import find_node
from acidmpi.worker.torch.worker import Worker

COMM = MPI.COMM_WORLD
STEPS = 200
INPUTS = 50

pytestmark = [pytest.mark.mpi, pytest.mark.limit(120)]


@pytest.fixture(scope="module")
def device():
    index = choose_device("cuda", find_node(COMM, 60.0).local_rank)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def task(device):
    """A linear function to be found, the same on all ranks; data of this rank."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(INPUTS, 1, generator=generator).to(device)
    generator.manual_seed(1 + COMM.rank)
    inputs = torch.randn(512, INPUTS, generator=generator).to(device)
    return inputs, inputs @ truth


def train(device, make, **options):
    torch.manual_seed(7)
    module = nn.Linear(INPUTS, 1).to(device)
    inputs, targets = task(device)
    with Worker(module, make(module.parameters()), comm=COMM, **options) as worker:
        for _ in range(STEPS):
            worker.zero_grad()
            loss = nn.functional.mse_loss(module(inputs), targets)
            loss.backward()
            worker.step()
    with torch.no_grad():
        return module, float(nn.functional.mse_loss(module(inputs), targets))


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.05, momentum=0.9)


def adamw(parameters):
    return torch.optim.AdamW(parameters, 0.05)


@pytest.mark.parametrize("make", [sgd, adamw])
@pytest.mark.parametrize("transport", ["auto", "staged"])
@pytest.mark.parametrize("method", ["a2cid2", "async"])
def test_ranks_learn_together_and_end_equal(device, make, transport, method):
    module, loss = train(device, make, transport=transport, method=method)
    assert loss < 0.05
    mine = nn.utils.parameters_to_vector(module.parameters()).detach().cpu().numpy()
    first = COMM.bcast(mine, 0)
    assert mine.tobytes() == first.tobytes()


def test_one_rank_follows_torch_on_the_same_gpu(device):
    """Without exchanges, the fused step is torch's."""
    if COMM.size > 1:
        pytest.skip("ranks exchange")
    module, _ = train(device, sgd)
    torch.manual_seed(7)
    other = nn.Linear(INPUTS, 1).to(device)
    inputs, targets = task(device)
    optimizer = sgd(other.parameters())
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.mse_loss(other(inputs), targets).backward()
        optimizer.step()
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.fixture(name="silent")
def torch_may_not_wait():
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


def spoilt(device, bad, steps, silent, **options):
    """Gradients that are all ones, but infinite in some steps of every rank."""
    module = nn.Linear(INPUTS, 1).to(device)
    optimizer = sgd(module.parameters())
    worker = Worker(module, optimizer, comm=COMM, unit_seconds=1e-3, **options)
    for number in range(1, steps + 1):
        worker.zero_grad()
        sum(p.sum() for p in module.parameters()).backward()
        if number in bad:
            module.bias.grad[0] = float("inf")
        silent()
        worker.step()
        torch.cuda.set_sync_debug_mode("default")
    worker.close()
    assert all(torch.isfinite(p).all() for p in module.parameters())
    return worker


def test_a_gradient_that_is_not_finite_is_left_out(device, silent):
    worker = spoilt(device, (1, 8, 40), 40, silent, nonfinite="skip")
    assert worker.skipped == 3
    assert worker.statistics().gradients == 40


def test_an_error_names_the_parameter_even_if_it_is_the_last(device, silent):
    with pytest.raises(AcidError, match=r"'bias' is not finite in gradient 9 of rank"):
        spoilt(device, (9,), 9, silent)
