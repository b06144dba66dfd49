"""Torch training with averaged gradients: equal to one process with all ranks' data."""

import copy
import io
import time
import warnings

import numpy as np
import pytest
import torch
from mpi4py import MPI
from support.apart import Apart, pretend
from torch import nn

from acidmpi.compression.dense import Cast, NoCompression
from acidmpi.compression.lowrank import ACPSGD, PowerSGD
from acidmpi.compression.sparse import TopK
from acidmpi.errors import (
    ConfigError,
    DisagreementError,
    NonFiniteError,
    RemoteError,
)
from acidmpi.parallel.torch.functions import (
    allreduce,
    broadcast_object,
    broadcast_optimizer_state,
    broadcast_parameters,
)
from acidmpi.parallel.torch.optimizer import DistributedOptimizer
from acidmpi.tasks.lean import leave_out_compiler

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
LAST = SIZE - 1
STEPS = 3
EXACT = {"rtol": 1e-12, "atol": 1e-12}

OPTIMIZERS = {
    "momentum": lambda g: torch.optim.SGD(g, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda g: torch.optim.Adam(g, lr=0.01),
    "lbfgs": lambda g: torch.optim.LBFGS(
        g, lr=0.5, max_iter=4, line_search_fn="strong_wolfe"
    ),
}

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True, scope="module")
def crowded():
    """Ranks share the machine: one thread each, and nothing that is not needed."""
    leave_out_compiler()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Network(nn.Module):
    """A convolution, a branch that is optional, and one that is idle."""

    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(3, 4, 2)
        self.side = nn.Linear(36, 2)
        self.head = nn.Linear(36, 2)
        self.idle = nn.Linear(2, 2)

    def forward(self, x, side=False):
        x = torch.tanh(self.image(x)).flatten(1)
        return self.head(x) + self.side(x) if side else self.head(x)


def network(seed=0, memory_format=torch.channels_last):
    torch.manual_seed(seed)
    return Network().double().to(memory_format=memory_format)


def groups(model, count):
    """Every parameter in one of `count` groups with options of their own."""
    held = list(model.parameters())
    return [{"params": held[k::count], "lr": 0.02 * (k + 1)} for k in range(count)]


def batch(step, rank, part=0):
    chance = torch.Generator().manual_seed(1000 * step + 10 * rank + part)
    x = torch.randn(2, 3, 4, 4, generator=chance, dtype=torch.float64)
    return x, torch.randn(2, 2, generator=chance, dtype=torch.float64)


def loss_of(model, step, rank, part=0, side=False):
    x, y = batch(step, rank, part)
    return (model(x, side) - y).square().mean()


def wrap(model, optimizer, **options):
    usual = {"comm": COMM, "deadline_seconds": 30.0, "bucket_bytes": 400}
    return DistributedOptimizer(optimizer, model.named_parameters(), **usual | options)


def pair(name="momentum", count=1, **options):
    """A model to be trained by all ranks, and one that sees all their data itself."""
    layout = torch.contiguous_format if name == "lbfgs" else torch.channels_last
    ours, alone = network(0, layout), network(0, layout)
    make = OPTIMIZERS[name]
    opt = wrap(ours, make(groups(ours, count)), **options)
    return ours, opt, alone, make(groups(alone, count))


def step_alone(model, optimizer, step, parts=1, side=()):
    """One step with the data of all ranks."""
    optimizer.zero_grad()
    for part in range(parts):
        for rank in range(SIZE):
            aside = (rank, part) in side
            (loss_of(model, step, rank, part, aside) / SIZE).backward()
    optimizer.step()


def assert_close(model, other, tolerance=EXACT):
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(
            mine.detach().numpy(), theirs.detach().numpy(), **tolerance
        )


def assert_same_everywhere(model):
    mine = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()
    first = COMM.bcast(mine)
    np.testing.assert_array_equal(mine, first)


def saved(state):
    """Through a file, as a checkpoint goes."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    ("name", "count", "parts"),
    [("momentum", 1, 1), ("momentum", 3, 2), ("adam", 2, 1), ("adam", 1, 4)],
)
def test_training_equals_one_process_with_all_data(name, count, parts):
    ours, opt, alone, plain = pair(name, count)
    with opt:
        for step in range(STEPS):
            opt.zero_grad()
            with opt.no_sync():
                for part in range(parts - 1):
                    loss_of(ours, step, RANK, part).backward()
            loss_of(ours, step, RANK, parts - 1).backward()
            opt.step()
            step_alone(alone, plain, step, parts)
            assert_close(ours, alone)
    assert ours.idle.weight.grad is None
    assert_same_everywhere(ours)


@pytest.mark.parametrize(("name", "count", "parts"), [("momentum", 2, 2)])
def test_factors_of_full_width_lose_nothing(name, count, parts):
    full = PowerSGD(matrix_rank=100, start_step=1, min_compression_rate=0.01)
    ours, opt, alone, plain = pair(name, count, compression=full)
    with opt:
        for step in range(STEPS):
            opt.zero_grad()
            with opt.no_sync():
                for part in range(parts - 1):
                    loss_of(ours, step, RANK, part, side=RANK == LAST).backward()
            loss_of(ours, step, RANK, parts - 1).backward()
            opt.step()
            step_alone(alone, plain, step, parts, side=[(LAST, 0)])
            assert_close(ours, alone, {"rtol": 1e-9, "atol": 1e-10})
    assert_same_everywhere(ours)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_branch_that_one_rank_uses(set_to_none):
    ours, opt, alone, plain = pair()
    with opt:
        for step in range(STEPS):
            opt.zero_grad(set_to_none)
            loss_of(ours, step, RANK, side=RANK == LAST and step != 1).backward()
            opt.step()
            plain.zero_grad(set_to_none)
            for rank in range(SIZE):
                side = rank == LAST and step != 1
                (loss_of(alone, step, rank, side=side) / SIZE).backward()
            plain.step()
            assert (ours.side.weight.grad is None) == (alone.side.weight.grad is None)
            assert_close(ours, alone)


def test_a_closure_is_averaged_each_time():
    ours, opt, alone, plain = pair("lbfgs")

    def closure(model, optimizer, ranks, step):
        optimizer.zero_grad()
        loss = sum(loss_of(model, step, rank) for rank in ranks) / len(ranks)
        loss.backward()
        return loss

    with opt:
        for step in range(2):
            opt.step(lambda step=step: closure(ours, opt, [RANK], step))
            plain.step(lambda step=step: closure(alone, plain, range(SIZE), step))
            assert_close(ours, alone, {"rtol": 1e-7, "atol": 1e-9})
    assert_same_everywhere(ours)


@pytest.mark.parametrize("skips", [True, False])
def test_clipping_sees_the_mean(skips):
    ours, opt, alone, plain = pair()
    with opt:
        for step in range(STEPS):
            opt.zero_grad()
            loss_of(ours, step, RANK).backward()
            opt.synchronize()
            norm = nn.utils.clip_grad_norm_(ours.parameters(), 0.1)
            if skips:
                with opt.skip_synchronize():
                    opt.step()
            else:
                opt.step()
            plain.zero_grad()
            for rank in range(SIZE):
                (loss_of(alone, step, rank) / SIZE).backward()
            expected = nn.utils.clip_grad_norm_(alone.parameters(), 0.1)
            plain.step()
            assert norm.item() == pytest.approx(expected.item(), rel=1e-12)
            assert_close(ours, alone)


def test_a_gradient_that_is_not_finite_is_raised_by_all_ranks():
    ours, opt, alone, plain = pair()
    with opt:
        loss = loss_of(ours, 0, RANK)
        (loss * float("nan") if RANK == LAST else loss).backward()
        with pytest.raises(NonFiniteError, match=rf"on rank {LAST} is not finite"):
            opt.step()
        opt.zero_grad()
        loss_of(ours, 0, RANK).backward()
        opt.step()
        step_alone(alone, plain, 0)
        assert_close(ours, alone)


SKIPPERS = [
    NoCompression(),
    TopK(density=0.2),
    PowerSGD(matrix_rank=1, start_step=0),
    ACPSGD(matrix_rank=1, start_step=0),
]


@pytest.mark.parametrize("compression", SKIPPERS, ids=lambda c: c.name)
def test_a_skipped_step_leaves_no_trace(compression):
    ours, opt, *_ = pair("adam", compression=compression, nonfinite="skip")
    with opt:
        for step in range(3):
            opt.zero_grad()
            loss = loss_of(ours, step, RANK)
            before = copy.deepcopy((opt.state_dict(), ours.state_dict()))
            bad = step == 1
            (loss * float("inf") if bad and RANK == LAST else loss).backward()
            opt.step()
            if bad:
                after = [flat(v) for v in (opt.state_dict(), ours.state_dict())]
                before = [flat(v) for v in before]
                if compression == NoCompression():  # it has nothing but a count
                    forget(before[0], after[0])
                assert after == before
                assert all(p.grad is None for p in ours.parameters())
        assert opt.skipped == 1
    assert_same_everywhere(ours)


def forget(*states):
    for state in states:
        for section in state["acidmpi"]["sections"]:
            for rank in section["ranks"]:
                del rank["step"]


def flat(value):
    """Nested tensors as something that can be compared bit for bit."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [flat(item) for item in value]
    return value


@pytest.mark.parametrize("compression", [NoCompression(), TopK(density=1.0)], ids=str)
def test_a_loss_scaler_learns_of_any_ranks_overflow(compression):
    ours, opt, alone, plain = pair(compression=compression, nonfinite="skip")
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    with opt:
        for step in range(STEPS):
            opt.zero_grad()
            loss = scaler.scale(loss_of(ours, step, RANK))
            bad = step == 1
            (loss * float("inf") if bad and RANK == LAST else loss).backward()
            opt.synchronize(scaler)
            scaler.step(opt)
            scaler.update()
            if not bad:
                step_alone(alone, plain, step)
            assert_close(ours, alone)
            assert scaler.get_scale() == [8.0, 4.0, 4.0][step]


def test_what_a_compressor_remembers_is_not_scaled():
    ends = []
    for scaled in (False, True):
        # A power of two, which grows in every step: unscaling is exact.
        scaler = torch.amp.GradScaler(
            "cpu", init_scale=8.0, growth_interval=1, enabled=scaled
        )
        ours, opt, *_ = pair(compression=TopK(density=0.2), nonfinite="skip")
        with opt:
            for step in range(STEPS):
                opt.zero_grad()
                scaler.scale(loss_of(ours, step, RANK)).backward()
                opt.synchronize(scaler)
                scaler.step(opt)
                scaler.update()
        ends.append(flat(ours.state_dict()))
    assert ends[0] == ends[1]


def test_a_loss_scaler_that_was_not_handed_over_is_an_error():
    ours, opt, *_ = pair(nonfinite="skip")
    scaler = torch.amp.GradScaler("cpu")
    with opt:
        scaler.scale(loss_of(ours, 0, RANK)).backward()
        with pytest.raises(ConfigError, match=r"synchronize\(scaler\)"):
            scaler.step(opt)
        opt.step()


@pytest.mark.parametrize("progress", ["thread", "inline"])
def test_delays_in_the_backward_pass_stop_nobody(progress):
    ours, opt, alone, plain = pair(progress=progress, bucket_bytes=0)
    chance = np.random.default_rng(RANK)
    for parameter in ours.parameters():
        parameter.register_hook(lambda _: time.sleep(chance.uniform(0, 3e-3)))
    with opt:
        for step in range(STEPS):
            opt.zero_grad()
            loss_of(ours, step, RANK).backward()
            opt.step()
            step_alone(alone, plain, step)
        assert_close(ours, alone)


def test_every_rank_may_come_along_in_an_order_of_its_own():
    chance = np.random.default_rng(RANK)
    held = nn.ParameterList([torch.zeros(k + 1) for k in range(6)])
    opt = wrap(held, torch.optim.SGD(held.parameters(), lr=1.0), bucket_bytes=12)
    with opt:
        for _ in range(STEPS):
            opt.zero_grad()
            for k in chance.permutation(6):
                (held[k].sum() * (k + RANK)).backward()
            opt.step()
    for k, p in enumerate(held):
        expected = -STEPS * np.float32(k + (SIZE - 1) / 2)
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-6)


def test_two_optimizers_train_two_models_by_one_loss():
    models, alone = [network(1), network(2)], [network(1), network(2)]
    make = OPTIMIZERS["momentum"]
    opts = [wrap(model, make(model.parameters())) for model in models]
    plain = [make(model.parameters()) for model in alone]
    with opts[0], opts[1]:
        for step in range(STEPS):
            for opt in reversed(opts):
                opt.zero_grad()
            sum(loss_of(model, step, RANK) for model in models).backward()
            for opt in opts:
                opt.step()
        for model, other, optimizer in zip(models, alone, plain, strict=True):
            for step in range(STEPS):
                step_alone(other, optimizer, step)
            assert_close(model, other)


def test_parameters_that_come_later():
    ours, opt, alone, plain = pair(compression=TopK(density=1.0))
    extra = [nn.Linear(2, 2).double() for _ in range(2)]
    with torch.no_grad():
        for p, q in zip(*(e.parameters() for e in extra), strict=True):
            p.fill_(0.5)
            q.copy_(p)
    with opt:
        for step in range(STEPS):
            if step == 1:
                opt.add_param_group({"params": extra[0].parameters(), "lr": 0.1})
                plain.add_param_group({"params": extra[1].parameters(), "lr": 0.1})
            opt.zero_grad()
            x, y = batch(step, RANK)
            (extra[0](ours(x)) - y).square().mean().backward()
            opt.step()
            plain.zero_grad()
            for rank in range(SIZE):
                x, y = batch(step, rank)
                ((extra[1](alone(x)) - y).square().mean() / SIZE).backward()
            plain.step()
            assert_close(ours, alone)
            if step:
                assert_close(*extra)
        assert opt.statistics().steps == STEPS


def test_a_parameter_that_is_frozen_at_first():
    ours, alone = network(), network()
    for model in (ours, alone):
        model.image.requires_grad_(False)
    make = OPTIMIZERS["momentum"]
    opt, plain = wrap(ours, make(ours.parameters())), make(alone.parameters())
    with opt:
        for step in range(STEPS):
            for model in (ours, alone):
                model.image.requires_grad_(step >= 1)
                model.head.requires_grad_(step != 2)
            opt.zero_grad()
            loss_of(ours, step, RANK).backward()
            opt.step()
            step_alone(alone, plain, step)
            assert_close(ours, alone)


@pytest.mark.skipif(SIZE == 1, reason="one rank agrees with itself")
def test_a_parameter_that_is_added_on_one_rank_only():
    ours, opt, *_ = pair()
    if RANK == LAST:
        opt.add_param_group({"params": [nn.Parameter(torch.zeros(2).double())]})
    with opt:
        loss_of(ours, 0, RANK).backward()
        with pytest.raises(DisagreementError, match="added or unfrozen"):
            opt.step()


@pytest.mark.skipif(SIZE == 1, reason="one rank agrees with itself")
def test_ranks_that_differ_cannot_start():
    model = network()
    with pytest.raises(DisagreementError, match="compression"):
        wrap(
            model,
            OPTIMIZERS["adam"](model.parameters()),
            compression=Cast() if RANK == LAST else NoCompression(),
        )


def test_a_loaded_run_goes_on_bit_for_bit():
    def train(model, opt, steps):
        for step in steps:
            opt.zero_grad()
            loss_of(model, step, RANK).backward()
            opt.step()

    straight, opt, *_ = pair("adam", compression=TopK(density=0.3))
    with opt:
        train(straight, opt, range(2))
        weights = straight.state_dict()
        own = saved({"model": weights, "optimizer": opt.state_dict()})
        gathered = saved({"model": weights, "optimizer": opt.gather_state_dict()})
        train(straight, opt, range(2, 4))
    loaded, opt, *_ = pair("adam", compression=TopK(density=0.3))
    with opt:
        train(loaded, opt, [9])
        for checkpoint in (own, gathered):
            loaded.load_state_dict(checkpoint["model"])
            opt.load_state_dict(checkpoint["optimizer"])
            train(loaded, opt, range(2, 4))
            assert flat(loaded.state_dict()) == flat(straight.state_dict())


def test_a_run_goes_on_with_another_number_of_ranks():
    compression = TopK(density=0.3)
    ours, opt, *_ = pair(compression=compression, comm=MPI.COMM_SELF)
    with opt:
        loss_of(ours, 0, 0).backward()
        opt.step()
        state = saved(opt.gather_state_dict())
    ours, opt, *_ = pair(compression=compression)
    with opt:
        opt.load_state_dict(state)
        loss_of(ours, 0, RANK).backward()
        opt.step()
        [section] = opt.state_dict()["acidmpi"]["sections"]
        assert section["ranks"][0]["step"] == 2
    assert_same_everywhere(ours)


@pytest.mark.skipif(SIZE == 1, reason="there must be another rank")
def test_one_ranks_checkpoint_is_good_for_all_if_nothing_is_remembered():
    for compression, good in [(NoCompression(), True), (TopK(), False)]:
        _, opt, *_ = pair(compression=compression)
        with opt:
            state = broadcast_object(opt.state_dict(), COMM, LAST)
            if good or RANK == LAST:
                opt.load_state_dict(state)
            else:
                with pytest.raises(ConfigError, match=rf"fits rank {LAST} of {SIZE}"):
                    opt.load_state_dict(state)


@pytest.mark.skipif(SIZE == 1, reason="there must be another rank")
def test_an_error_of_one_rank_ends_all():
    ours, opt, *_ = pair()

    def train():
        with opt:
            for step in range(3):
                opt.zero_grad()
                loss_of(ours, step, RANK).backward()
                if RANK == LAST and step == 1:
                    raise KeyError("my own mistake")
                opt.step()

    expected = KeyError if RANK == LAST else RemoteError
    with pytest.raises(expected, match="my own mistake"):
        train()


def test_a_scheduler_may_be_made_before_or_after_of_either():
    rates = []
    for when in ("before", "after", "after, of the plain one"):
        model = network()
        plain = OPTIMIZERS["momentum"](model.parameters())
        early = (
            torch.optim.lr_scheduler.StepLR(plain, 1, 0.5) if when == "before" else None
        )
        opt = wrap(model, plain)
        base = opt if when == "after" else plain
        schedule = early or torch.optim.lr_scheduler.StepLR(base, 1, 0.5)
        with opt, warnings.catch_warnings():
            warnings.simplefilter("error")
            for step in range(2):
                opt.zero_grad()
                loss_of(model, step, RANK).backward()
                opt.step()
                schedule.step()
            opt.load_state_dict(opt.state_dict())
            schedule.step()
            rates.append(opt.param_groups[0]["lr"])
            assert_same_everywhere(model)
    assert rates == [0.05 / 8] * 3


def test_types_side_by_side():
    types = (torch.float64, torch.bfloat16, torch.float32, torch.float16)
    model = nn.ParameterList([torch.ones(3, 2, dtype=dtype) for dtype in types])
    opt = wrap(model, torch.optim.SGD(model.parameters(), lr=0.25))
    with opt:
        sum(p.sum() * (RANK + 1) for p in model).backward()
        opt.step()
    mean = (SIZE + 1) / 2
    for p, dtype in zip(model, types, strict=True):
        assert p.grad.dtype is dtype
        assert torch.equal(p.detach(), torch.full_like(p, 1 - 0.25 * mean))


def test_sparse_gradients_become_dense():
    model = nn.Embedding(7, 2, sparse=True).double()
    opt = wrap(model, torch.optim.SGD(model.parameters(), lr=1.0))
    with torch.no_grad():
        model.weight.zero_()
    with opt:
        with pytest.warns(UserWarning, match="sparse gradient"):
            model(torch.tensor([RANK])).sum().backward()
        opt.step()
    expected = np.zeros((7, 2))
    expected[:SIZE] = -1 / SIZE
    np.testing.assert_allclose(model.weight.detach().numpy(), expected, atol=1e-15)


@pytest.mark.parametrize("root", sorted({0, LAST}))
def test_broadcast_parameters(root):
    model = nn.Sequential(network(RANK), nn.BatchNorm1d(2)).double()
    model[1].num_batches_tracked.fill_(RANK)
    broadcast_parameters(model.state_dict(), COMM, root)
    expected = nn.Sequential(network(root), nn.BatchNorm1d(2)).double()
    assert_close(model, expected, {"rtol": 0, "atol": 0})
    assert model[1].num_batches_tracked == root
    strided = torch.full((3, 4), float(RANK)).t()[::2]
    broadcast_parameters([("strided", strided)], COMM, LAST)
    assert (strided == LAST).all()
    alone = torch.full((3, 4), float(RANK))[:1, 2]  # one element, with a stride of 4
    conjugate = torch.full((2,), complex(0, RANK)).conj()
    broadcast_parameters({"alone": alone, "conjugate": conjugate}, COMM, LAST)
    assert (alone.item(), conjugate.tolist()) == (LAST, [complex(0, -LAST)] * 2)


@pytest.mark.skipif(SIZE == 1, reason="one rank agrees with itself")
def test_broadcast_needs_equal_models():
    model = nn.Linear(2, 3 if RANK == LAST else 2)
    with pytest.raises(DisagreementError, match="weight = float32"):
        broadcast_parameters(model.state_dict(), COMM)


@pytest.mark.skipif(SIZE == 1, reason="one rank agrees with itself")
def test_broadcasts_have_one_root():
    """As a rank's own number would leave every rank with what it had."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())
    for call in (
        lambda: broadcast_parameters(model.state_dict(), COMM, RANK),
        lambda: broadcast_optimizer_state(optimizer, COMM, RANK),
        lambda: broadcast_object("x", COMM, RANK),
    ):
        with pytest.raises(
            DisagreementError, match="rank 1 has the root = 1, others 0"
        ):
            call()


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad", "LBFGS", "Rprop", "NAdam"])
def test_broadcast_optimizer_state(name):
    model = nn.Linear(3, 2)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1 / (RANK + 1))
    if RANK == LAST:
        model.weight.square().sum().backward()
        optimizer.step(lambda: model.weight.square().sum())
    broadcast_optimizer_state(optimizer, COMM, LAST)
    mine = flat(optimizer.state_dict())
    assert mine == COMM.bcast(mine, LAST)
    assert mine["param_groups"][0]["lr"] == 0.1 / SIZE


@pytest.mark.parametrize("name", ["NAdam", "ASGD"])
def test_a_broadcast_state_keeps_its_types(name):
    """NAdam's mu_product is float32 whatever a parameter is; torch rounds what it loads."""
    weight = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = getattr(torch.optim, name)([weight])
    for _ in range(3):
        weight.grad = weight.detach().clone()
        optimizer.step()
    broadcast_optimizer_state(optimizer, COMM, LAST)
    mine = {key: value.dtype for key, value in optimizer.state[weight].items()}
    assert mine == COMM.bcast(mine, LAST)
    values = [value.tolist() for value in optimizer.state[weight].values()]
    assert values == COMM.bcast(values, LAST)


def test_allreduce_and_broadcast_object():
    values = torch.arange(6.0).reshape(2, 3).t()
    total = sum(range(1, SIZE + 1))
    assert torch.equal(allreduce(values * (RANK + 1), COMM, "sum"), values * total)
    mean = allreduce((values * (RANK + 1)).bfloat16(), COMM)
    assert mean.dtype is torch.bfloat16
    assert torch.equal(mean, (values * total / SIZE).bfloat16())
    assert allreduce(torch.tensor(RANK), COMM, "sum").item() == total - SIZE
    assert broadcast_object({"rank": RANK}, COMM, LAST) == {"rank": LAST}


def test_an_object_that_cannot_travel_is_told_to_all():
    expected = RemoteError if RANK != LAST else Exception
    with pytest.raises(expected, match="lambda"):
        broadcast_object(lambda: 0 if RANK == LAST else None, COMM, LAST)
    assert broadcast_object(RANK, COMM, LAST) == LAST


@pytest.mark.skipif(SIZE == 1, reason="one rank agrees with itself")
def test_sums_of_different_things_are_told():
    """MPI would add what does not belong together: 8 bytes to twice 4, for one."""
    odd = RANK == 1
    pair, four = torch.ones(2, dtype=torch.float64), torch.ones(4)
    with pytest.raises(DisagreementError, match=r"mean of float64 \[2\]"):
        allreduce(pair if odd else four, COMM)
    with pytest.raises(DisagreementError, match=r"float32 \[3\]"):
        allreduce(torch.ones(3 if odd else 2), COMM)
    with pytest.raises(DisagreementError, match="sum of"):
        allreduce(four, COMM, "sum" if odd else "mean")


def test_what_cannot_be_added():
    half = torch.ones(2).to(torch.float8_e5m2)
    for tensor in (torch.ones(2, dtype=torch.bool), half, torch.ones(2).to_sparse()):
        with pytest.raises(ConfigError, match="a type that MPI adds"):
            allreduce(tensor, COMM, "sum")


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
@pytest.mark.parametrize(
    "compression", [NoCompression(), Cast(), TopK(density=0.1)], ids=str
)
def test_gradients_elsewhere_train_alike(monkeypatch, compression, nonfinite):
    """They lie on a device (a stand-in), whose arrays NumPy cannot read."""
    device = Apart(patience=3)
    models = []
    for elsewhere in (False, True):
        with monkeypatch.context() as patch:
            if elsewhere:
                pretend(patch, device)
            model, opt, *_ = pair(compression=compression, nonfinite=nonfinite)
            with opt:
                for step in range(STEPS):
                    opt.zero_grad()
                    loss = loss_of(model, step, RANK)
                    bad = nonfinite == "skip" and (step, RANK) == (1, LAST)
                    (loss * float("nan") if bad else loss).backward()
                    opt.step()
                assert opt.skipped == (nonfinite == "skip")
            models.append(model)
    here, there = (flat(model.state_dict()) for model in models)
    assert here == there
    assert device.copied_bytes


def test_a_gradient_elsewhere_that_is_not_finite_is_named(monkeypatch):
    pretend(monkeypatch, Apart())
    model, opt, *_ = pair()
    with opt:
        loss = loss_of(model, 0, RANK)
        (loss * float("nan") if RANK == LAST else loss).backward()
        with pytest.raises(NonFiniteError, match=f"on rank {LAST} is not finite"):
            opt.step()
