"""Scripts for the foreign packages, on ranks: what they get is what they asked for."""

import warnings

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import nn

import acidmpi.compat.horovod as hvd
from acidmpi.compat.unsupported import UnsupportedError
from acidmpi.errors import ConfigError, DisagreementError
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


def everyone(make):
    """What all ranks hold, made here."""
    return [make(rank) for rank in range(SIZE)]


def close(mine, right, rtol=1e-6, atol=1e-12):
    """Without torch.testing, which takes a second to import."""
    assert mine.dtype is right.dtype
    np.testing.assert_allclose(
        mine.detach().numpy(), right.detach().numpy(), rtol=rtol, atol=atol
    )


def values(rank, dtype=torch.float64):
    chance = torch.Generator().manual_seed(rank)
    return (torch.rand(3, 2, generator=chance, dtype=torch.float64) * 8).to(dtype)


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


# -- single operations --------------------------------------------------------------

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
]


@pytest.mark.usefixtures("horovod")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reductions(dtype):
    held = torch.stack(everyone(lambda rank: values(rank, dtype))).double()
    mine = values(RANK, dtype)
    expected = {
        hvd.Sum: held.sum(0),
        hvd.Min: held.amin(0),
        hvd.Max: held.amax(0),
        hvd.Average: held.mean(0),
    }
    for op, right in expected.items():
        result = hvd.allreduce(mine, op=op)
        assert result.dtype is dtype
        wanted = right.to(dtype).double()
        close(result.double(), wanted, rtol=1e-2)
        assert torch.equal(mine, values(RANK, dtype))
        if dtype.is_floating_point and dtype.itemsize > 2:
            close(result, right.to(dtype))
    ones = torch.full((2,), 2, dtype=dtype)
    assert hvd.allreduce(ones, op=hvd.Product).tolist() == [2**SIZE] * 2


@pytest.mark.usefixtures("horovod")
def test_factors_and_the_old_argument():
    mine = torch.tensor(RANK + 1.0)
    total = SIZE * (SIZE + 1) / 2
    scaled = hvd.allreduce(mine, op=hvd.Sum, prescale_factor=3.0, postscale_factor=0.5)
    assert scaled.item() == total * 1.5
    with pytest.warns(DeprecationWarning, match="op="):
        assert hvd.allreduce(mine, average=False).item() == total
    with pytest.warns(DeprecationWarning, match="op="):
        mean = hvd.allreduce(mine, True)
    assert mean.item() == pytest.approx(total / SIZE)
    with pytest.raises(ConfigError, match="both"):
        hvd.allreduce(mine, average=True, op=hvd.Sum)
    half = hvd.allreduce(mine / 3, compression=hvd.Compression.fp16, op=hvd.Sum)
    assert half.dtype is torch.float32
    assert half.item() == pytest.approx(total / 3, rel=2e-3)


@pytest.mark.usefixtures("horovod")
def test_in_place_and_in_groups():
    mine = values(RANK)
    total = sum(everyone(values))
    strided = mine.clone().T
    assert hvd.allreduce_(strided, op=hvd.Sum) is strided
    close(strided, total.T)
    group = hvd.grouped_allreduce([mine, mine * 2], op=hvd.Sum)
    close(group[0], total)
    close(group[1], total * 2)
    pair = [mine.clone(), mine * 2]
    assert hvd.grouped_allreduce_(pair, op=hvd.Sum)[1] is pair[1]
    assert all(map(torch.equal, pair, group))


@pytest.mark.usefixtures("horovod")
def test_operations_overlap_and_end_in_any_order():
    handles = [
        hvd.allreduce_async(torch.full((5,), RANK + k), name=f"n{k}", op=hvd.Sum)
        for k in range(6)
    ]
    for k in reversed(range(6)):
        result = hvd.synchronize(handles[k])
        assert result.tolist() == [sum(range(SIZE)) + SIZE * k] * 5
        assert hvd.poll(handles[k])
    handle = hvd.broadcast_async_(torch.tensor([RANK]), SIZE - 1)
    while not hvd.poll(handle):
        pass
    assert hvd.synchronize(handle).item() == SIZE - 1


@pytest.mark.usefixtures("horovod")
@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool, torch.complex64], ids=str)
def test_gathering_parts_of_different_lengths(dtype):
    def part(rank):
        return (torch.arange(2 * (rank + 1)).reshape(-1, 2) % 3).to(dtype)

    whole = hvd.allgather(part(RANK))
    assert torch.equal(whole, torch.cat(everyone(part)))
    none = hvd.allgather(part(RANK)[: RANK % 2])
    assert torch.equal(none, torch.cat([part(r)[: r % 2] for r in range(SIZE)]))


@pytest.mark.usefixtures("horovod")
def test_broadcasts():
    root = SIZE - 1
    mine = values(RANK, torch.bfloat16)
    assert torch.equal(hvd.broadcast(mine, root), values(root, torch.bfloat16))
    assert torch.equal(mine, values(RANK, torch.bfloat16))
    flag = torch.tensor(root == RANK)
    assert hvd.broadcast_(flag, root) is flag
    assert flag.item()
    assert hvd.broadcast_object({"epoch": RANK, "of": [RANK]}) == {
        "epoch": 0,
        "of": [0],
    }
    assert hvd.allgather_object((RANK, "x" * RANK)) == everyone(lambda r: (r, "x" * r))
    with pytest.raises(ConfigError, match="root_rank"):
        hvd.broadcast(mine, SIZE)
    hvd.barrier()


@pytest.mark.usefixtures("horovod")
def test_slices_go_where_they_should():
    mine = torch.arange(2 * SIZE) + 100 * RANK
    here = torch.tensor([2 * RANK, 2 * RANK + 1])
    expected = torch.cat(everyone(lambda rank: here + 100 * rank))
    assert torch.equal(hvd.alltoall(mine), expected)
    # Rank r sends k + 1 entries, all equal to r, to rank k.
    splits = [k + 1 for k in range(SIZE)]
    uneven, counts = hvd.alltoall(torch.full((sum(splits), 1), RANK), splits=splits)
    assert counts.tolist() == [RANK + 1] * SIZE
    assert uneven.flatten().tolist() == [
        r for r in range(SIZE) for _ in range(RANK + 1)
    ]


@pytest.mark.usefixtures("horovod")
def test_each_keeps_its_part_of_a_reduction():
    mine = torch.arange(SIZE + 1.0)
    right = (mine * SIZE).tensor_split(SIZE)[RANK]
    assert torch.equal(hvd.reducescatter(mine, op=hvd.Sum), right)
    handle = hvd.reducescatter_async(mine, op=hvd.Sum)
    pair = hvd.grouped_reducescatter([mine, mine], op=hvd.Max)
    assert torch.equal(hvd.synchronize(handle), right)
    assert torch.equal(pair[1], mine.tensor_split(SIZE)[RANK])
    pair = hvd.synchronize(hvd.grouped_reducescatter_async([mine, mine]))
    close(pair[0], right / SIZE)
    both = hvd.synchronize(hvd.grouped_allgather_async([mine[:1], mine[1:]]))
    assert torch.equal(both[1], mine[1:].repeat(SIZE))
    # Nobody waits for this one: the end does.
    hvd.allreduce_async(mine)


@pytest.mark.usefixtures("horovod")
def test_gradients_flow_through():
    x = values(RANK).requires_grad_()
    weights = values(100 + RANK)
    (hvd.allreduce(x, op=hvd.Sum) * weights).sum().backward()
    close(x.grad, sum(everyone(lambda r: values(100 + r))))
    x.grad = None
    root = SIZE - 1
    (hvd.broadcast(x, root) * weights).sum().backward()
    mean = sum(everyone(lambda r: values(100 + r))) / SIZE
    close(x.grad, mean if root == RANK else mean * 0)
    x.grad = None
    (hvd.allgather(x) * (1.0 + RANK)).sum().backward()
    close(x.grad, torch.full_like(x, (SIZE + 1) / 2))
    y = torch.arange(SIZE * 2.0).requires_grad_()
    (hvd.alltoall(y) * (RANK + 1)).sum().backward()
    assert y.grad.tolist() == [k + 1 for k in range(SIZE) for _ in range(2)]


@pytest.mark.skipif(SIZE == 1, reason="one rank agrees with itself")
@pytest.mark.usefixtures("horovod")
def test_ranks_that_do_different_things_are_told():
    odd = RANK == 1
    with pytest.raises(DisagreementError, match=r"rank 1 has .*allreduce\('b'\)"):
        hvd.allreduce(torch.zeros(2), name="b" if odd else "a")
    with pytest.raises(DisagreementError, match=r"\(3,\)"):
        hvd.allreduce(torch.zeros(3 if odd else 2))
    with pytest.raises(DisagreementError, match="barrier"):
        hvd.barrier() if odd else hvd.allgather(torch.zeros(1))
    assert hvd.allreduce(torch.ones(()), op=hvd.Sum).item() == SIZE


@pytest.mark.usefixtures("horovod")
def test_what_is_not_offered_says_what_to_do():
    one = torch.ones(1)
    with pytest.raises(UnsupportedError, match="use op=Average"):
        hvd.allreduce(one, op=hvd.Adasum)
    with pytest.raises(UnsupportedError, match="split a communicator"):
        hvd.ProcessSet([0])
    with pytest.raises(UnsupportedError, match="GroupNorm"):
        hvd.SyncBatchNorm(3)
    with pytest.raises(UnsupportedError, match="to_dense"):
        hvd.allreduce(one.to_sparse())
    with pytest.raises(UnsupportedError, match="checkpoints"):
        hvd.elastic.run(print)


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
        close(ours, theirs, rtol=rtol, atol=rtol)


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
@pytest.mark.parametrize("passes", [1, 2, 3])
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
