"""Bad input and bad luck in training on real ranks: all end alike, and know why."""

import threading
import time

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import nn

import acidmpi
from acidmpi.errors import (
    ConfigError,
    DisagreementError,
    NonFiniteError,
    RemoteError,
    TopologyError,
)
from acidmpi.tasks.lean import leave_out_compiler

COMM = MPI.COMM_WORLD
LAST = COMM.size - 1
DRIVERS = ["thread", "inline"]
ENDLESS = 100_000

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True, scope="module")
def crowded():
    """Ranks share the machine: one thread each, and nothing that is not needed."""
    leave_out_compiler()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(seed=COMM.rank, width=8):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))
    return model.double()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.01)


def open_worker(model, optimizer, **options):
    usual = {"deadline_seconds": 30, "unit_seconds": 0.002}
    return acidmpi.Worker(model, optimizer, comm=COMM, **usual | options)


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def same_everywhere(model):
    return len(set(COMM.allgather(vector(model).tobytes()))) == 1


def on_the_bad_rank(own, *texts):
    """A context that expects `own` error on the last rank, and its text elsewhere."""
    error = own if COMM.rank == LAST else RemoteError
    return pytest.raises(error, match=".*".join(texts))


def compute(worker, model, trouble=lambda step: None):
    """Gradients that are all ones, until the worker has finished."""
    with worker:
        for step in range(ENDLESS):
            if worker.finished:
                return step
            worker.zero_grad()
            sum(p.sum() for p in model.parameters()).backward()
            if COMM.rank == LAST:
                trouble(step)
            worker.step()
            time.sleep(0.0005)
    raise AssertionError("the end has never been told")


def is_plain(model):
    return all(p.untyped_storage().nbytes() == p.nbytes for p in model.parameters())


@pytest.mark.parametrize("progress", DRIVERS)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_gradient_that_is_not_finite_ends_all(value, progress):
    model = network()

    def spoil(step):
        if step == 10:
            model[2].weight.grad[0, 3] = value

    worker = open_worker(model, sgd(model), progress=progress)
    with on_the_bad_rank(NonFiniteError, "'2.weight'", f"gradient 11 of rank {LAST}"):
        compute(worker, model, spoil)
    assert worker.stop_reason == "failed"
    assert worker.clean
    assert is_plain(model)


def test_gradients_that_are_not_finite_are_left_out():
    # All gradients are ones, so the mean tells how many were applied.
    model = network()
    start = COMM.bcast(vector(model))

    def spoil(step):
        if step % 4 == 1:
            model[0].bias.grad[0] = float("nan")
        if step == 19:
            worker.stop()

    worker = open_worker(model, sgd(model), nonfinite="skip")
    compute(worker, model, spoil)
    assert worker.skipped == (5 if COMM.rank == LAST else 0)
    gradients = worker.statistics().gradients
    applied = COMM.allreduce(gradients - worker.skipped) / COMM.size
    np.testing.assert_allclose(vector(model), start - 0.01 * applied, atol=1e-12)
    assert gradients >= 20 or COMM.rank != LAST


@pytest.mark.parametrize("progress", DRIVERS)
def test_an_exception_of_one_rank_reaches_all(progress):
    model = network()

    def fail(step):
        if step == 10:
            raise ZeroDivisionError("the planted error")

    worker = open_worker(model, sgd(model), progress=progress)
    with on_the_bad_rank(ZeroDivisionError, "the planted error"):
        compute(worker, model, fail)
    assert worker.stop_reason == "failed"
    assert is_plain(model)


@pytest.mark.parametrize("progress", DRIVERS)
def test_ctrl_c_on_one_rank_ends_all_in_order(progress):
    model = network()

    def interrupt(step):
        if step == 10:
            raise KeyboardInterrupt

    worker = open_worker(model, sgd(model), progress=progress)
    if COMM.rank == LAST:
        with pytest.raises(KeyboardInterrupt):
            compute(worker, model, interrupt)
    else:
        compute(worker, model)
    assert worker.finished
    assert worker.stop_reason == "interrupted"
    assert same_everywhere(model)
    assert is_plain(model)


def test_stop_on_one_rank_ends_all_in_order():
    model = network()

    def stop(step):
        if step == 10:
            worker.stop()

    worker = open_worker(model, sgd(model))
    with pytest.raises(ConfigError, match="interrupted"):
        worker.stop("tired")
    compute(worker, model, stop)
    assert worker.stop_reason == "interrupted"
    assert same_everywhere(model)


def frozen():
    model = network()
    model[0].bias.requires_grad_(False)
    return model


def normed(**options):
    return network().append(nn.BatchNorm1d(1, affine=False, **options))


def turned(model):
    return torch.optim.SGD([*model.parameters()][::-1], lr=0.01)


def adam(model):
    return torch.optim.Adam(model.parameters())


DIFFERENCES = {
    "width": (lambda: network(width=9), sgd, {}, r"0\.weight"),
    "type": (lambda: network().float(), sgd, {}, r"0\.weight"),
    "more": (lambda: network().append(nn.Linear(1, 1).double()), sgd, {}, r"3\.weight"),
    "frozen": (frozen, sgd, {}, r"0\.bias"),
    "buffers": (normed, sgd, {}, r"3\.running_mean"),
    "order": (network, turned, {}, r"0\.weight"),
    "optimizer": (network, adam, {}, "optimizer = Adam, others SGD"),
    "nonfinite": (
        network,
        sgd,
        {"nonfinite": "skip"},
        "nonfinite = skip, others raise",
    ),
    "option": (network, sgd, {"comm_rate": 2.0}, r"comm_rate = 2\.0, others 1\.0"),
}


@pytest.mark.parametrize(
    ("make", "make_optimizer", "options", "name"), DIFFERENCES.values(), ids=DIFFERENCES
)
def test_ranks_that_differ_are_named_to_all(make, make_optimizer, options, name):
    # With one rank there is nobody to differ from, and it must start.
    if COMM.rank != LAST or COMM.size == 1:
        make, make_optimizer, options = network, sgd, {}
    model = make()
    optimizer = make_optimizer(model)
    if COMM.size == 1:
        open_worker(model, optimizer, **options).close()
    else:
        with pytest.raises(DisagreementError, match=rf"rank {LAST} has .*{name}"):
            open_worker(model, optimizer, **options)
    assert is_plain(model)
    optimizer.step()


def stranger():
    return torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1), {}


def wrong_choice():
    return None, {"nonfinite": "ignore"}


def wrong_option():
    return None, {"com_rate": 1.0}


def closure():
    return torch.optim.LBFGS, {}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (stranger, "parameters of the model only"),
        (wrong_choice, "nonfinite must be"),
        (wrong_option, "com_rate"),
        (closure, "without a closure"),
    ],
)
def test_a_rank_that_cannot_start_tells_the_others(make, text):
    model = network()
    optimizer, options = make() if COMM.rank == LAST else (None, {})
    if isinstance(optimizer, type):
        optimizer = optimizer(model.parameters())
    with on_the_bad_rank(ConfigError, text):
        open_worker(model, optimizer or sgd(model), **options)
    # Nothing is left behind: the next one works.
    open_worker(model, sgd(model)).close()


@pytest.mark.parametrize(
    "buffer", [torch.eye(3).to_sparse(), torch.ones(3).to(torch.float8_e5m2)]
)
def test_a_buffer_that_cannot_be_handed_out_is_refused_everywhere(buffer):
    model = network()
    if COMM.rank == LAST:
        model.register_buffer("links", buffer)
    with pytest.raises(
        ConfigError if COMM.rank == LAST else RemoteError, match="links"
    ):
        open_worker(model, sgd(model))
    assert is_plain(model)


def test_a_buffer_without_a_shape_is_refused_everywhere():
    model = network()
    if COMM.rank == LAST:
        model.append(nn.LazyBatchNorm1d(affine=False))
    with on_the_bad_rank(ConfigError, r"lazy '3\.running_mean'.*one example first"):
        open_worker(model, sgd(model))
    assert is_plain(model)


@pytest.mark.parametrize("grow", ["mine", "another"])
def test_a_buffer_that_grows_on_one_rank_is_told_to_all(grow):
    # As tables of positions do, where one rank meets a longer text than the others.
    model = network()
    model.register_buffer("mine", torch.zeros(4))
    worker = open_worker(model, sgd(model), deadline_seconds=8)
    if COMM.rank == LAST:
        model.register_buffer(grow, torch.zeros(9))
    if COMM.size == 1:
        worker.close()
    else:
        with pytest.raises(DisagreementError, match=r"buffer . at the end"):
            worker.close()
    assert worker.clean
    assert same_everywhere(model)
    assert is_plain(model)


def test_an_impossible_graph_is_refused_everywhere():
    model = network()
    with pytest.raises(TopologyError, match="no-such-graph"):
        open_worker(model, sgd(model), topology="no-such-graph")


def test_a_model_that_moves_away_is_noticed():
    model = network()
    worker = open_worker(model, sgd(model))
    with pytest.raises(ConfigError, match=r"'0\.weight' was moved or cast"), worker:
        model.float()
    assert model[0].weight.dtype is torch.float32
    assert worker.clean


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adagrad])
def test_a_model_that_is_cast_before_its_first_gradient_is_noticed(optimizer):
    model = network()
    worker = open_worker(model, optimizer(model.parameters(), lr=0.1))
    model.half()
    for parameter in model.parameters():
        parameter.sum().backward()
    with pytest.raises(ConfigError, match=r"'0\.weight' was moved or cast"), worker:
        worker.step()
    assert worker.clean


@pytest.mark.parametrize("progress", DRIVERS)
def test_a_worker_that_cannot_be_made_ends_the_others(progress, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("planted")

    if COMM.rank == LAST:
        monkeypatch.setattr("acidmpi.worker.torch.worker.make_finiteness", fail)
    model = network()
    error = RuntimeError if COMM.rank == LAST else RemoteError
    with pytest.raises(error, match="planted"):
        compute(open_worker(model, sgd(model), progress=progress), model)
    assert is_plain(model)
    assert all("acidmpi" not in thread.name for thread in threading.enumerate())
