"""Torch models trained on real ranks: what every rank holds in the end, and why.

Most tests use a loss that is linear in the parameters. Its gradients do not depend on
where the parameters are, so exchanges must leave the ranks' mean exactly where as many
plain torch runs, one for each rank and without any exchange, leave theirs.
"""

import copy
import gc
import io
import json
import pickle
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import nn

import acidmpi
from acidmpi.errors import ConfigError
from acidmpi.tasks.lean import leave_out_compiler
from acidmpi.telemetry.metrics import MetricsWriter

COMM = MPI.COMM_WORLD
LAST = COMM.size - 1
METHODS = ["a2cid2", "async"]
WAYS = [(p, d) for p in ("handshake", "schedule", "fifo") for d in ("thread", "inline")]
LOGICAL = {"pairing": "schedule", "progress": "inline", "comm_rate": 2.0}

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.0),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
}
"""The last one is not fused: it works through its own `step()`."""

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True, scope="module")
def crowded():
    """Ranks share the machine: one thread each, and nothing that is not needed."""
    leave_out_compiler()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def open_worker(model, optimizer, comm=COMM, **options):
    usual = {"deadline_seconds": 30, "unit_seconds": 0.002}
    return acidmpi.Worker(model, optimizer, comm=comm, **usual | options)


def network(seed=COMM.rank, dtype=torch.float64):
    """Every rank begins elsewhere: rank 0's parameters are the ones that count."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)


def groups_of(model):
    weights = [p for p in model.parameters() if p.ndim > 1]
    return [
        {"params": weights, "lr": 0.02},
        {"params": [p for p in model.parameters() if p.ndim == 1]},
    ]


def chance_of(rank):
    return torch.Generator().manual_seed(1000 + rank)


def linear_loss(model, chance):
    return sum(
        (p * torch.randn(p.shape, generator=chance, dtype=p.dtype)).sum()
        for p in model.parameters()
    )


def vector(model):
    parts = [p.detach().double().flatten() for p in model.parameters()]
    return torch.cat(parts).numpy()


def mean_over_ranks(values, comm=COMM):
    total = np.empty_like(values)
    comm.Allreduce(values, total)
    return total / comm.size


def alone(model, make_optimizer, steps, skipped=lambda step: False):
    """Where plain torch goes from rank 0's start: this rank's part of the mean."""
    optimizer = make_optimizer(groups_of(model))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
    chance = chance_of(COMM.rank)
    path = []
    for step in range(steps):
        optimizer.zero_grad()
        linear_loss(model, chance).backward()
        if not skipped(step):
            optimizer.step()
        schedule.step()
        path.append(vector(model))
    return path


def train_linearly(worker, model, optimizer, steps, pause=0.001):
    """The same with a worker, as a generator that yields after each step."""
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
    chance = chance_of(COMM.rank)
    for _ in range(steps):
        worker.zero_grad()
        loss = linear_loss(model, chance)
        loss.backward()
        worker.step(loss.item(), samples=1)
        schedule.step()
        time.sleep(pause)
        yield


def run(steps):
    for _ in steps:
        pass


def same_everywhere(model, comm=COMM):
    """Whether all ranks hold the same parameters and float buffers, to the last bit."""
    state = [t for t in model.state_dict().values() if t.is_floating_point()]
    return len(set(comm.allgather(pickle.dumps([t.tolist() for t in state])))) == 1


def batches(chance):
    """Noisy samples of a function that the network can learn."""
    while True:
        inputs = torch.randn(16, 4, generator=chance)
        yield inputs, inputs.sum(1, keepdim=True)


def error_of(model):
    inputs, targets = next(batches(chance_of(-1)))
    return nn.functional.mse_loss(model(inputs), targets).item()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("pairing", "progress"), WAYS)
def test_training_reaches_the_loss(method, pairing, progress):
    model = network(dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    goal = 80 * COMM.size
    worker = open_worker(
        model,
        optimizer,
        method=method,
        pairing=pairing,
        progress=progress,
        total_gradients=goal,
    )
    before, data = error_of(model), batches(chance_of(COMM.rank))
    with worker:
        while not worker.finished:
            inputs, targets = next(data)
            worker.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            worker.step(loss.item(), samples=len(inputs))
            time.sleep(0.001)
    assert error_of(model) < 0.1 * before
    assert same_everywhere(model)
    assert worker.progress == 1.0
    assert worker.stop_reason == "finished"
    told = worker.statistics()
    assert told.total_gradients == worker.total_gradients_done >= goal
    assert COMM.size == 1 or told.exchanges > 0


@pytest.mark.parametrize(
    ("name", "method"),
    [*((name, "a2cid2") for name in OPTIMIZERS), ("momentum", "async")],
)
def test_the_result_is_the_mean_of_plain_runs(name, method):
    # In logical time, where A²CiD² mixes from the first moment.
    expected = mean_over_ranks(alone(network(0), OPTIMIZERS[name], 20)[-1])
    model = network()
    optimizer = OPTIMIZERS[name](groups_of(model))
    with open_worker(model, optimizer, method=method, **LOGICAL) as worker:
        run(train_linearly(worker, model, optimizer, 20))
    np.testing.assert_allclose(vector(model), expected, rtol=0, atol=1e-12)
    assert same_everywhere(model)
    told = worker.statistics()
    assert told.gradients == 20
    assert told.mean_drift <= 1e-12
    if COMM.size > 1:
        assert told.exchanges > 0
        assert (told.eta > 0) == (method == "a2cid2")


@pytest.mark.parametrize("pairing", ["handshake", "fifo"])
def test_ranks_may_leave_at_different_times(pairing):
    model = network()
    optimizer = OPTIMIZERS["momentum"](groups_of(model))
    worker = open_worker(model, optimizer, pairing=pairing, comm_rate=2.0)
    deadline = time.monotonic() + 20
    with worker:
        # All of them once x and x̃ are mixed, and then one after the other.
        steps = train_linearly(worker, model, optimizer, 100_000, pause=0.002)
        while COMM.size > 1 and worker.statistics().eta == 0.0:
            next(steps)
            assert time.monotonic() < deadline, "no acceleration"
        run(zip(range(10 + 5 * COMM.rank), steps, strict=False))
    made = worker.statistics().gradients
    expected = mean_over_ranks(alone(network(0), OPTIMIZERS["momentum"], made)[-1])
    np.testing.assert_allclose(vector(model), expected, rtol=0, atol=1e-11)
    assert same_everywhere(model)


ROUNDED = ("float64", "float32", "float16", "bfloat16")


@pytest.mark.parametrize("method", METHODS)
def test_every_type_of_number_is_trained(method):
    kinds = {name: getattr(torch, name) for name in ROUNDED}

    def make(seed):
        torch.manual_seed(seed)
        return nn.ParameterDict(
            {f"as_{name}": torch.randn(7, 3).to(kind) for name, kind in kinds.items()}
        )

    plain, model = make(0), make(COMM.rank)
    alone(plain, OPTIMIZERS["momentum"], 20)
    optimizer = OPTIMIZERS["momentum"](groups_of(model))
    with open_worker(model, optimizer, method=method, **LOGICAL) as worker:
        run(train_linearly(worker, model, optimizer, 20))
    assert same_everywhere(model)
    for name, kind in kinds.items():
        assert model[f"as_{name}"].dtype is kind
        expected = mean_over_ranks(plain[f"as_{name}"].detach().double().numpy())
        actual = model[f"as_{name}"].detach().double().numpy()
        off = np.abs(actual - expected) / np.maximum(np.abs(expected), 1)
        assert off.max() <= 8 * torch.finfo(kind).eps, name


def train_by_batches(model, optimizer, zero_grad, step):
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.5)
    for (inputs, targets), _ in zip(batches(chance_of(0)), range(20), strict=False):
        zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        step()
        schedule.step()
    return vector(model)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("make_optimizer", "fused"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01), True),
        (lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1), True),
        (lambda p: torch.optim.Adagrad(p, lr=0.02, weight_decay=0.01), False),
    ],
    ids=["sgd", "adamw", "adagrad"],
)
def test_one_rank_alone_is_plain_torch(make_optimizer, fused, method):
    # Every rank by itself, at every number of ranks.
    def with_worker(in_passing):
        model = network(dtype=torch.float32)
        optimizer = make_optimizer(groups_of(model))
        with open_worker(model, optimizer, MPI.COMM_SELF, method=method) as worker:
            zero_grad = int if in_passing else worker.zero_grad
            step = partial(worker.step, zero_grad=in_passing)
            train_by_batches(model, optimizer, zero_grad, step)
        return vector(model)

    plain = network(dtype=torch.float32)
    optimizer = make_optimizer(groups_of(plain))
    expected = train_by_batches(
        plain, optimizer, optimizer.zero_grad, lambda: optimizer.step()
    )
    # A fused step rounds in another order than torch, and x̃ in another than x.
    rounding = 1e-6 if fused or method == "a2cid2" else 0.0
    result = with_worker(in_passing=False)
    np.testing.assert_allclose(result, expected, rtol=0, atol=rounding)
    np.testing.assert_array_equal(with_worker(in_passing=True), result)


class Mixture(nn.Module):
    """One of everything that a model can hold."""

    def __init__(self, value):
        super().__init__()
        self.trained = nn.Parameter(torch.full((3, 2), value))
        self.frozen = nn.Parameter(torch.full((4,), value), requires_grad=False)
        self.untrained = nn.Parameter(torch.full((2, 2), value).t())
        self.register_buffer("scale", torch.full((5,), value, dtype=torch.bfloat16))
        self.register_buffer("count", torch.tensor(int(value)))
        self.register_buffer("flags", torch.tensor([value < 2, True]))
        self.register_buffer("hidden", torch.tensor(value), persistent=False)

    def everything(self):
        return [t.tolist() for t in (*self.parameters(), *self.buffers())]


def test_all_begin_with_all_that_rank_0_has():
    model = Mixture(1.0 + COMM.rank)
    optimizer = torch.optim.SGD([model.trained], lr=0.1)
    with open_worker(model, optimizer):
        assert model.everything() == Mixture(1.0).everything()
        time.sleep(0.02)
    assert model.everything() == Mixture(1.0).everything()


def test_float_buffers_are_averaged_and_others_are_not():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    steps, norm = 5 + COMM.rank, model[1]
    with open_worker(model, optimizer) as worker:
        for (inputs, _), _ in zip(
            batches(chance_of(COMM.rank)), range(steps), strict=False
        ):
            worker.zero_grad()
            model(inputs + COMM.rank).square().mean().backward()
            worker.step()
        mean = mean_over_ranks(norm.running_mean.double().numpy())
        variance = mean_over_ranks(norm.running_var.double().numpy())
    np.testing.assert_allclose(norm.running_mean.numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), variance, atol=1e-6)
    assert same_everywhere(model)
    assert norm.num_batches_tracked.item() == steps


@pytest.mark.parametrize("method", METHODS)
def test_logical_time_is_repeated_to_the_last_bit(method):
    def once(delay):
        chance = np.random.default_rng(delay + COMM.rank)
        model = network(dtype=torch.float32)
        optimizer = OPTIMIZERS["adamw"](groups_of(model))
        goal = 15 * COMM.size
        data = batches(chance_of(COMM.rank))
        worker = open_worker(
            model, optimizer, method=method, total_gradients=goal, **LOGICAL
        )
        path = []
        with worker:
            while not worker.finished:
                inputs, targets = next(data)
                worker.zero_grad()
                nn.functional.mse_loss(model(inputs), targets).backward()
                worker.step()
                path.append(vector(model))
                time.sleep(0.001 * chance.random())
        return [*path, vector(model)], worker.statistics()

    path, told = once(0)
    again, _ = once(1000)
    np.testing.assert_array_equal(path, again)
    assert told.gradients == 15
    assert COMM.size == 1 or told.exchanges > 0


def test_averages_in_mid_run_are_exact_in_logical_time():
    table = [mean_over_ranks(v) for v in alone(network(0), OPTIMIZERS["sgd"], 20)]
    model, spare = network(), network(seed=99)
    optimizer = OPTIMIZERS["sgd"](groups_of(model))
    worker = open_worker(model, optimizer, average_every=5 * COMM.size, **LOGICAL)
    with worker:
        steps = train_linearly(worker, model, optimizer, 20)
        seen = [worker.take_average() for _ in steps]
    seen = [average for average in [*seen, worker.take_average()] if average]
    assert bool(seen) == (COMM.rank == 0)
    for average in seen:
        worker.load_average(average, spare)
        steps, rest = divmod(average.total_gradients, COMM.size)
        assert (steps % 5, rest) == (0, 0)
        np.testing.assert_allclose(vector(spare), table[steps - 1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(vector(model), table[-1], rtol=0, atol=1e-12)


def test_two_workers_on_two_communicators_do_not_mix():
    half = COMM.Split(COMM.rank % 2, key=-COMM.rank)
    first = half.allgather(COMM.rank)[0]
    models = [network(), network()]
    starts = [network(0), network(first)]
    optimizers = [OPTIMIZERS["momentum"](groups_of(model)) for model in models]
    expected = [
        mean_over_ranks(alone(start, OPTIMIZERS["momentum"], 20)[-1], comm)
        for start, comm in zip(starts, (COMM, half), strict=True)
    ]
    with (
        open_worker(models[0], optimizers[0]) as one,
        open_worker(models[1], optimizers[1], half, progress="inline") as other,
    ):
        pairs = zip((one, other), models, optimizers, strict=True)
        runs = [train_linearly(*pair, 20) for pair in pairs]
        run(zip(*runs, strict=True))
    for model, mean in zip(models, expected, strict=True):
        np.testing.assert_allclose(vector(model), mean, rtol=0, atol=1e-12)
    assert one.statistics().total_gradients == 20 * COMM.size
    assert other.statistics().total_gradients == 20 * half.size
    assert len(other.statistics().exchanges_by_peer) == half.size
    half.Free()


class Steady(torch.optim.Optimizer):
    """An optimizer with a rate of its own, as those that need no learning rate have."""

    def __init__(self, parameters, **defaults):
        super().__init__(parameters, defaults)

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.sub_(p.grad)


@pytest.mark.parametrize("defaults", [{}, {"lr": None}])
def test_an_optimizer_needs_no_learning_rate(defaults, tmp_path):
    model = nn.Linear(2, 1, bias=False)
    start = COMM.bcast(model.weight.detach().clone())
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as metrics:
        optimizer = Steady(model.parameters(), **defaults)
        with open_worker(model, optimizer, metrics=metrics) as worker:
            model(torch.ones(1, 2)).sum().backward()
            worker.step()
    torch.testing.assert_close(model.weight.detach(), start - 1)
    lines = map(json.loads, path.read_text().splitlines())
    assert {line["lr"] for line in lines if "lr" in line} == {None}


def test_clipping_is_that_of_torch():
    model, plain = network(), network(0)
    optimizer = OPTIMIZERS["sgd"](groups_of(model))
    linear_loss(plain, chance_of(COMM.rank)).backward()
    with open_worker(model, optimizer) as worker:
        for limit in (1e3, 0.5):
            worker.zero_grad()
            linear_loss(model, chance_of(COMM.rank)).backward()
            norm = worker.clip_grad_norm_(limit)
            expected = nn.utils.clip_grad_norm_(plain.parameters(), limit)
            assert norm == pytest.approx(expected.item(), rel=1e-12)
            for ours, theirs in zip(
                model.parameters(), plain.parameters(), strict=True
            ):
                np.testing.assert_allclose(ours.grad, theirs.grad, 1e-7, 1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_statistics_tell_what_happened(method):
    model = network()
    optimizer = OPTIMIZERS["sgd"](groups_of(model))
    often = {"comm_rate": 2.0, "unit_seconds": 0.01}
    worker = open_worker(model, optimizer, method=method, **often)
    with worker:
        run(train_linearly(worker, model, optimizer, 40, pause=0.01))
    told = worker.statistics()
    assert (told.gradients, told.total_gradients) == (40, 40 * COMM.size)
    assert told.exchanges == sum(told.exchanges_by_peer)
    assert told.exchanges_by_peer[COMM.rank] == 0
    # The last heartbeat may have begun on some ranks before their last exchange.
    assert (
        0 <= COMM.allreduce(told.exchanges) - 2 * told.total_exchanges <= 2 * COMM.size
    )
    assert told.bytes_sent == told.exchanges * vector(model).nbytes
    assert told.control_messages >= told.exchanges / 2
    assert told.control_messages == sum(told.control_messages_by_peer)
    assert 0.0 <= told.repeated_pairs <= 1.0
    assert min(told.idle_seconds, told.seconds_waiting_peer) >= 0.0
    assert (told.seconds_exchanging > 0.0) == (told.exchanges > 0)
    assert (told.comm_rate, told.unit_seconds) == (2.0, 0.01)
    assert (told.comm_rate_measured > 0.0) == (COMM.size > 1)
    assert (told.transport, told.stop_reason) == ("host", "finished")
    assert told.alpha_tilde >= 0.5
    assert (told.eta, method) == (0.0, "async") or method == "a2cid2"
    assert told.mean_drift <= 1e-12
    known = [told.consensus_distance, told.chi_1, told.chi_2, told.train_loss]
    assert np.isfinite(known).all()


def test_after_the_end_the_model_is_a_plain_model():
    model = network()
    optimizer = OPTIMIZERS["nesterov"](groups_of(model))
    with open_worker(model, optimizer) as worker:
        run(train_linearly(worker, model, optimizer, 10))
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in model.parameters())
    assert np.array_equal(vector(pickle.loads(pickle.dumps(model))), vector(model))
    saved = io.BytesIO()
    torch.save([copy.deepcopy(model).state_dict(), optimizer.state_dict()], saved)
    saved.seek(0)
    other = network(seed=99)
    resumed = OPTIMIZERS["nesterov"](groups_of(other))
    for target, state in zip((other, resumed), torch.load(saved), strict=True):
        target.load_state_dict(state)
    for net, rule in ((model, optimizer), (other, resumed)):
        chance = chance_of(COMM.rank)
        for _ in range(5):
            rule.zero_grad()
            linear_loss(net, chance).backward()
            rule.step()
    np.testing.assert_array_equal(vector(model), vector(other))
    assert worker.statistics().gradients == 10


def test_a_closed_worker_takes_no_gradients():
    model = network()
    optimizer = OPTIMIZERS["sgd"](groups_of(model))
    threads = threading.active_count()
    with open_worker(model, optimizer) as worker:
        run(train_linearly(worker, model, optimizer, 3))
    assert threading.active_count() == threads
    result = vector(model)
    linear_loss(model, chance_of(0)).backward()
    for call in (worker.step, worker.zero_grad, lambda: worker.clip_grad_norm_(1.0)):
        with pytest.raises(ConfigError, match="close"):
            call()
    worker.close()
    np.testing.assert_array_equal(vector(model), result)
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_model_has_one_worker_at_a_time():
    model = network()
    optimizer = OPTIMIZERS["sgd"](groups_of(model))
    with open_worker(model, optimizer) as worker:
        for other in (model, nn.Sequential(model)):
            with pytest.raises(ConfigError, match="one worker at a time"):
                open_worker(other, optimizer)
        run(train_linearly(worker, model, optimizer, 3))
    open_worker(model, optimizer).close()


@pytest.mark.parametrize("frozen", [False, True])
def test_two_workers_may_train_parts_of_one_model(frozen):
    """As a generator and its critic; what is not trained may be in both."""
    model = network()
    first, last = model[0], model[2]
    ends = []
    for part in (first, last):
        for one in (first, last) if frozen else ():
            one.requires_grad_(one is part)
        ends.append(open_worker(model, torch.optim.SGD(part.parameters(), lr=0.1)))
    for worker in ends:
        worker.close()
    assert same_everywhere(model)
    model.requires_grad_(True)
    open_worker(model, torch.optim.SGD(model.parameters(), lr=0.1)).close()


def test_a_worker_that_nobody_has_any_more_holds_no_model():
    model = network()
    open_worker(model, OPTIMIZERS["sgd"](groups_of(model)), progress="inline")
    gc.collect()
    open_worker(model, OPTIMIZERS["sgd"](groups_of(model))).close()
    assert same_everywhere(model)


def test_what_is_no_model_or_no_optimizer_is_told():
    model = network()
    optimizer = OPTIMIZERS["sgd"](groups_of(model))
    for wrong in ((optimizer, model), (None, optimizer), (model, torch.optim.SGD)):
        with pytest.raises(ConfigError, match=r"must be a torch\..* the model comes"):
            open_worker(*wrong)


def test_an_optimizer_that_averages_is_refused():
    model = network()
    optimizer = OPTIMIZERS["sgd"](groups_of(model))
    with acidmpi.DistributedOptimizer(optimizer, comm=COMM) as wrapped:
        for one in (optimizer, wrapped):
            with pytest.raises(ConfigError, match="a plain optimizer"):
                open_worker(model, one)
