"""The life of an engine with one rank; with more in tests/mpi."""

import math

import numpy as np
import pytest
from mpi4py import MPI

from acidmpi.errors import ConfigError, TopologyError
from acidmpi.kernels.hyper import Add
from acidmpi.mpi.communicators import Communicators
from acidmpi.worker.averaging import READ_BYTES
from acidmpi.worker.engine import Engine
from acidmpi.worker.gossip import Gossip
from acidmpi.worker.options import WorkerOptions
from acidmpi.worker.state import Update

COMM = MPI.COMM_SELF


def make(x, **options):
    return Engine(
        [x],
        COMM,
        WorkerOptions(deadline_seconds=10.0, **options),
        signature={"array": str(x.dtype)},
        rules=[Add()],
    )


def add(engine, values, loss=None):
    update = [Update(0, 0, values.size, values, (), Add())]
    engine.gradient(lambda: engine.parts.state.apply_gradient(update), loss, 2, 0.1)


@pytest.mark.parametrize("progress", ["thread", "inline"])
def test_a_life(progress):
    x = np.zeros(5)
    engine = make(x, progress=progress, total_gradients=4)
    shares = []
    while not engine.finished:
        add(engine, np.ones(5), loss=1.5)
        shares.append(engine.progress)
    assert shares == [0.25, 0.5, 0.75, 1.0]
    buffer = np.full((2, 2), 3.0)
    engine.close(buffers=[buffer])
    assert (x == 4.0).all()
    assert (buffer == 3.0).all()
    assert engine.clean
    told = engine.statistics()
    assert (told.gradients, told.total_gradients, told.exchanges) == (4, 4, 0)
    assert told.stop_reason == engine.stop_reason == "finished"
    assert told.train_loss == 1.5
    assert told.consensus_distance == told.mean_drift == 0.0


def test_losses_are_added_up_in_double_whatever_they_come_in():
    engine = make(np.zeros(1))
    for loss in (np.float32(2**24), np.float32(1), np.array(1, np.float32)):
        add(engine, np.ones(1), loss=loss)
    (total, _) = engine.parts.ledger.losses
    engine.close()
    assert (type(total), total) == (float, 2**24 + 2)


def test_without_a_goal_there_is_no_progress():
    engine = make(np.zeros(1))
    add(engine, np.ones(1))
    assert engine.progress == 0.0
    assert not engine.finished
    assert math.isnan(engine.statistics().mean_drift)
    engine.close()


def test_in_logical_time_an_average_is_of_one_moment():
    x = np.zeros(3 * READ_BYTES // 8)
    engine = make(
        x,
        pairing="schedule",
        progress="inline",
        total_gradients=2,
        average_every=1,
    )
    add(engine, np.ones(x.size))
    engine.parts.state.arrays[0][:] = 7.0
    while (average := engine.take_average()) is None:
        engine.poll()
    assert (average.arrays[0] == 1.0).all()
    engine.close()


def test_in_logical_time_a_rank_makes_its_share():
    engine = make(np.zeros(1), pairing="schedule", progress="inline", total_gradients=3)
    for made in range(1, 4):
        assert not engine.finished
        add(engine, np.ones(1))
        assert engine.parts.units.now() == made
    assert engine.finished
    assert engine.progress == 1.0
    engine.close()


@pytest.mark.parametrize("comm", [None, "world", MPI.COMM_NULL])
def test_only_communicators_are_accepted(comm):
    with pytest.raises(ConfigError, match="must be an mpi4py intracommunicator, got"):
        Gossip(np.zeros(3), comm=comm)


def test_after_the_end_nothing_is_accepted():
    engine = make(np.zeros(1))
    engine.close()
    with pytest.raises(ConfigError, match=r"before close\(\)"):
        add(engine, np.ones(1))
    engine.close()


def test_an_error_of_the_caller_ends_without_an_average():
    x = np.zeros(1)
    engine = make(x)
    engine.close(ZeroDivisionError("planted"))
    assert engine.stop_reason == "failed"
    assert math.isnan(engine.statistics().mean_drift)
    with pytest.raises(ZeroDivisionError):
        engine.check()


def test_an_interruption_is_an_orderly_end():
    engine = make(np.zeros(1))
    engine.close(KeyboardInterrupt())
    assert engine.stop_reason == "interrupted"
    assert engine.clean


def test_stopping_ends_the_work():
    engine = make(np.zeros(1))
    engine.stop()
    assert engine.finished
    engine.close()
    assert engine.stop_reason == "interrupted"


def test_a_start_that_fails_leaves_no_communicator(monkeypatch):
    closed = []
    original = Communicators.close
    monkeypatch.setattr(
        Communicators, "close", lambda self: (closed.append(1), original(self))
    )
    with pytest.raises(TopologyError):
        make(np.zeros(1), topology="no such graph")
    assert closed == [1]


@pytest.mark.parametrize(
    "x",
    [
        [1.0],
        np.zeros(3, np.int64),
        np.zeros((4, 4))[:, ::2],
        np.broadcast_to(np.zeros(1), (3,)),
        np.zeros(3, np.complex128),
    ],
    ids=["list", "integers", "strided", "read-only", "complex"],
)
def test_arrays_that_cannot_be_changed_in_place_are_refused(x):
    with pytest.raises(ConfigError, match="x must be"):
        Gossip(x, comm=COMM)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint16"])
def test_arrays_of_any_shape_and_type_gossip(shape, dtype):
    x = np.zeros(shape, dtype)
    with Gossip(x, comm=COMM, unit_seconds=0.01, deadline_seconds=10.0) as gossip:
        gossip.apply(np.zeros(shape, dtype))
        assert gossip.read().shape == shape
        with pytest.raises(ConfigError, match="update must have x's form"):
            gossip.apply(np.zeros((5, 5), dtype))
    assert (x == 0).all()
    with pytest.raises(ConfigError, match="can only be stopped as 'interrupted'"):
        gossip.stop("bored")


def test_an_update_that_must_not_be_written_is_only_read():
    x, update = np.zeros(3), np.arange(3.0)
    update.flags.writeable = False
    with Gossip(x, comm=COMM, deadline_seconds=10.0) as gossip:
        gossip.apply(update)
        gossip.apply(np.broadcast_to(1.0, 3))
    np.testing.assert_array_equal(x, [1, 2, 3])


@pytest.mark.parametrize("update", [[1.0, 2.0], 1.0, None])
def test_an_update_that_is_no_array_is_refused(update):
    with Gossip(np.zeros(2), comm=COMM, deadline_seconds=10.0) as gossip:
        with pytest.raises(ConfigError, match=type(update).__name__):
            gossip.apply(update)
        gossip.apply(np.ones(2))


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_matrix_is_averaged_as_an_array_is():
    x = np.asmatrix(np.zeros((2, 3)))
    with Gossip(x, comm=COMM, deadline_seconds=10.0) as gossip:
        gossip.apply(np.asmatrix(np.ones((2, 3))))
    assert (x == 1.0).all()


def test_a_masked_array_is_refused():
    with pytest.raises(ConfigError, match="masked"):
        Gossip(np.ma.masked_array(np.ones(2), [0, 1]), comm=COMM)
