"""Horovod on ranks, from its beginning to its end: models that are trained with it."""

import warnings

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import nn

import acidmpi.compat.horovod as hvd
from acidmpi.errors import ConfigError
from acidmpi.tasks.lean import leave_out_compiler

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
FIRST = [sum(range(k + 1)) for k in range(SIZE)]
"""Where rank k's part begins, when it holds k + 1 entries."""

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module", autouse=True)
def crowded():
    leave_out_compiler()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def horovod():
    hvd.init()
    yield
    hvd.shutdown()


# -- starting and ending ------------------------------------------------------------


def test_it_begins_and_ends_and_begins_again():
    assert not hvd.is_initialized()
    with pytest.raises(ConfigError, match="call init"):
        hvd.rank()
    for _ in range(2):
        hvd.init()
        hvd.init()
        assert hvd.is_initialized()
        assert (hvd.rank(), hvd.size()) == (RANK, SIZE)
        assert (hvd.local_rank(), hvd.local_size()) == (RANK, SIZE)
        assert (hvd.cross_rank(), hvd.cross_size()) == (0, 1)
        assert hvd.is_homogeneous()
        assert hvd.global_process_set.ranks == list(range(SIZE))
        hvd.allreduce_async(torch.ones(3))  # nobody waits for it but the end
        hvd.shutdown()
        assert not hvd.is_initialized()
    assert not MPI.Is_finalized()


def test_a_part_of_the_ranks_can_work_for_itself():
    team = COMM.Split(RANK % 2)
    hvd.init(comm=team)
    total = hvd.allreduce(torch.tensor(float(RANK)), op=hvd.Sum)
    assert hvd.size() == team.size
    hvd.shutdown()
    assert total.item() == sum(range(RANK % 2, SIZE, 2))
    team.Free()


# -- training -----------------------------------------------------------------------


def network(seed=0):
    torch.manual_seed(seed)
    layers = nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)
    return nn.Sequential(*layers).double()


def batch(rank, step):
    chance = np.random.default_rng([rank, step])
    return torch.tensor(chance.normal(size=(6, 4))), torch.tensor(
        chance.normal(size=(6, 3))
    )


def loss_of(model, rank, step):
    inputs, targets = batch(rank, step)
    return (model(inputs) - targets).square().mean()


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
}


def trained_alone(make, steps, *, passes=1, factor=1.0, clip=None):
    """One process with everyone's batches."""
    model = network()
    optimizer = make(model.parameters())
    for step in range(steps):
        optimizer.zero_grad()
        for k in range(passes):
            losses = [loss_of(model, rank, step * passes + k) for rank in range(SIZE)]
            (factor * sum(losses) / SIZE).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return model


def assert_equal_models(mine, right, rtol=1e-10):
    for ours, theirs in zip(mine.parameters(), right.parameters(), strict=True):
        np.testing.assert_allclose(
            ours.detach().numpy(), theirs.detach().numpy(), rtol=rtol, atol=rtol
        )


def trained_together(make, steps, *, passes=1, clip=None, **options):
    model = network()
    optimizer = hvd.DistributedOptimizer(
        make(model.parameters()),
        named_parameters=model.named_parameters(),
        backward_passes_per_step=passes,
        **options,
    )
    for step in range(steps):
        optimizer.zero_grad()
        for k in range(passes):
            loss_of(model, RANK, step * passes + k).backward()
        if clip is None:
            optimizer.step()
        else:
            optimizer.synchronize()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            with optimizer.skip_synchronize():
                optimizer.step()
    return model, optimizer


@pytest.mark.usefixtures("horovod")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_one_big_batch(name):
    model, optimizer = trained_together(OPTIMIZERS[name], 4)
    assert isinstance(optimizer, type(OPTIMIZERS[name](network().parameters())))
    assert_equal_models(model, trained_alone(OPTIMIZERS[name], 4))


@pytest.mark.usefixtures("horovod")
@pytest.mark.parametrize("clip", [None, 0.05], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("passes", [1, 2])
def test_passes_add_up_and_gradients_can_be_clipped(passes, clip):
    make = OPTIMIZERS["sgd"]
    model, _ = trained_together(make, 3, passes=passes, clip=clip)
    assert_equal_models(model, trained_alone(make, 3, passes=passes, clip=clip))


@pytest.mark.usefixtures("horovod")
def test_sums_halves_and_our_own_compressors():
    make = OPTIMIZERS["sgd"]
    model, _ = trained_together(make, 3, op=hvd.Sum, groups=2)
    assert_equal_models(model, trained_alone(make, 3, factor=SIZE))
    right = trained_alone(make, 3)
    model, _ = trained_together(make, 3, compression=hvd.Compression.fp16)
    assert_equal_models(model, right, rtol=2e-3)
    all_of_it = hvd.Compression.named("topk", density=1.0)
    model, _ = trained_together(make, 3, compression=all_of_it)
    assert_equal_models(model, right, rtol=1e-5)


@pytest.mark.usefixtures("horovod")
def test_the_number_of_passes_can_change_and_is_watched():
    make = OPTIMIZERS["sgd"]
    model, optimizer = trained_together(make, 1)
    optimizer.set_backward_passes_per_step(2)
    assert optimizer.backward_passes_per_step == 2
    optimizer.zero_grad()
    before = [p.detach().clone() for p in model.parameters()]
    for step in (1, 2):
        loss_of(model, RANK, step).backward()
    with pytest.raises(ConfigError, match="backward_passes_per_step"):
        loss_of(model, RANK, 3).backward()
    optimizer.step()
    assert not torch.equal(before[0], next(model.parameters()))


@pytest.mark.usefixtures("horovod")
def test_a_step_may_have_fewer_passes_and_be_begun_anew():
    make = OPTIMIZERS["sgd"]
    model = network()
    optimizer = hvd.DistributedOptimizer(
        make(model.parameters()), backward_passes_per_step=2
    )
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, RANK, 99).backward()
        optimizer.zero_grad()
        loss_of(model, RANK, step).backward()
        optimizer.step()
    assert_equal_models(model, trained_alone(make, 3))


@pytest.mark.usefixtures("horovod")
def test_a_gradient_that_is_not_finite_skips_the_step_everywhere():
    make = OPTIMIZERS["sgd"]
    model, optimizer = trained_together(make, 1)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.zero_grad()
    scale = torch.inf if SIZE - 1 == RANK else 1.0
    (loss_of(model, RANK, 1) * scale).backward()
    with pytest.warns(RuntimeWarning, match="skipped"):
        optimizer.synchronize()
    assert all(p.grad.isinf().all() for p in model.parameters())
    with optimizer.skip_synchronize():
        optimizer.step()
    for now, then in zip(model.parameters(), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.usefixtures("horovod")
def test_mixed_precision_as_horovods_documentation_has_it():
    make = OPTIMIZERS["sgd"]
    model = network()
    optimizer = hvd.DistributedOptimizer(make(model.parameters()))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    overflow = 1
    for step in range(4):
        optimizer.zero_grad()
        last = overflow == step and SIZE - 1 == RANK
        loss = loss_of(model, RANK, step - (step > overflow)) * (
            torch.inf if last else 1
        )
        scaler.scale(loss).backward()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            optimizer.synchronize()
        assert len(told) == (step == overflow)
        scaler.unscale_(optimizer)
        with optimizer.skip_synchronize():
            scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == (8.0 if step < overflow else 4.0)
    assert_equal_models(model, trained_alone(make, 3))


@pytest.mark.usefixtures("horovod")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_models_and_optimizers_begin_alike(name):
    root = SIZE - 1
    model = network(RANK)
    plain = OPTIMIZERS[name](model.parameters())
    if root == RANK:
        loss_of(model, 0, 0).backward()
        plain.step()
        plain.param_groups[0]["lr"] = 0.5
    hvd.broadcast_parameters(model.state_dict(), root_rank=root)
    hvd.broadcast_optimizer_state(plain, root_rank=root)
    assert plain.param_groups[0]["lr"] == 0.5
    assert plain.state_dict()["state"]
    plain.zero_grad()
    loss_of(model, 0, 1).backward()
    plain.step()
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(hvd.broadcast(flat, root), flat)
    for params in (list(model.parameters()), model.named_parameters()):
        hvd.broadcast_parameters(params, root_rank=0)


@pytest.mark.usefixtures("horovod")
def test_two_optimizers_take_turns_until_all_have_joined():
    models = [network(1), network(2)]
    optimizers = [
        hvd.DistributedOptimizer(OPTIMIZERS["sgd"](model.parameters()), op=hvd.Sum)
        for model in models
    ]
    for step in range(RANK // 2 + 1):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss_of(model, RANK, step).backward()
            optimizer.step()
    last = hvd.join()
    assert last == SIZE - 1
    alone = network(2)
    plain = OPTIMIZERS["sgd"](alone.parameters())
    for step in range((SIZE - 1) // 2 + 1):
        plain.zero_grad()
        sum(loss_of(alone, rank, step) for rank in range(2 * step, SIZE)).backward()
        plain.step()
    hvd.broadcast_parameters(models[1].state_dict(), root_rank=last)
    assert_equal_models(models[1], alone)


@pytest.mark.usefixtures("horovod")
def test_a_rank_with_fewer_batches_joins():
    model = network()
    optimizer = hvd.DistributedOptimizer(OPTIMIZERS["sgd"](model.parameters()))
    for step in range(RANK + 1):
        optimizer.zero_grad()
        loss_of(model, RANK, step).backward()
        optimizer.step()
    assert hvd.join() == SIZE - 1

    alone = network()
    plain = OPTIMIZERS["sgd"](alone.parameters())
    for step in range(SIZE):
        plain.zero_grad()
        busy = range(step, SIZE)
        (sum(loss_of(alone, rank, step) for rank in busy) / SIZE).backward()
        plain.step()
    hvd.broadcast_parameters(model.state_dict(), root_rank=SIZE - 1)
    assert_equal_models(model, alone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hvd.join() == SIZE - 1
