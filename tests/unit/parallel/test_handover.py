"""Where compute and communication meet: counted exactly, from any number of threads."""

import threading

import numpy as np
import pytest

from acidmpi.compression.protocol import Spec
from acidmpi.errors import ConfigError, RemoteError
from acidmpi.parallel.buckets import Bucket
from acidmpi.parallel.handover import Handover

SPECS = [Spec((2, 2), np.dtype("float32")), Spec((), np.dtype("float64"))]
BUCKETS = [Bucket((1,)), Bucket((0,))]


def gradients():
    return [np.zeros(4, np.float32), np.zeros(1, np.float64)]


@pytest.fixture
def handover():
    return Handover(SPECS, BUCKETS)


def test_a_bucket_is_complete_with_its_last_gradient():
    handover = Handover(SPECS * 2, [Bucket((3, 1)), Bucket((2, 0))])
    first, second = gradients(), gradients()
    assert not handover.put(1, first[1])
    assert not handover.put(0, first[0])
    assert handover.put(3, second[1])
    assert handover.complete(0)
    assert not handover.complete(1)
    taken = handover.take((3, 1))
    assert taken[0] is second[1]
    assert taken[1] is first[1]
    assert handover.count == 3


def test_a_new_step_begins_empty(handover):
    handover.put(0, gradients()[0])
    handover.finish()
    assert handover.over
    handover.begin(1, BUCKETS)
    assert not handover.over
    assert handover.count == 0
    assert handover.step == 1
    assert not handover.complete(1)


WRONG = {
    "twice": (0, np.zeros(4, np.float32), "came twice"),
    "shape": (1, np.zeros(2, np.float64), r"of shape \(1,\)"),
    "type": (1, np.zeros(1, np.float32), "type float64, got .* float32"),
    "two dimensions": (1, np.zeros((1, 1)), r"got \(1, 1\)"),
    "read-only": (1, np.broadcast_to(np.zeros(1), (1,)), "writable"),
    "index": (2, np.zeros(1), "there are 2 parameters, got the gradient of number 2"),
    "negative": (-1, np.zeros(1), "got the gradient of number -1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_gradients_that_do_not_fit_are_refused(handover, case):
    index, gradient, words = WRONG[case]
    handover.put(0, gradients()[0])
    with pytest.raises(ConfigError, match=words):
        handover.put(index, gradient)
    assert handover.count == 1


def test_missing_gradients_are_named(handover):
    handover.put(1, gradients()[1])
    with pytest.raises(ConfigError, match="missing are those of number 0;"):
        handover.check_all_here()
    many = Handover(SPECS * 5, [Bucket(tuple(range(10)))])
    with pytest.raises(ConfigError, match=r"number 0, 1, 2, 3, 4, …"):
        many.check_all_here()


def test_the_first_failure_stays_and_ends_the_step(handover):
    assert not handover.over
    handover.fail(RemoteError(1, "planted"))
    handover.fail(ValueError("too late"))
    assert handover.over
    with pytest.raises(RemoteError, match="planted"):
        handover.check()
    with pytest.raises(RemoteError, match="planted"):
        handover.put(0, gradients()[0])


def hammered(rounds=30, parameters=64, threads=4):
    """How often buckets were reported complete, by many threads at once."""
    specs = [Spec((1,), np.dtype("float32"))] * parameters
    complete = 0
    for _ in range(rounds):
        handover = Handover(specs, [Bucket(tuple(range(parameters)))])
        found = []
        start = threading.Barrier(threads)

        def put(which, handover=handover, found=found, start=start):
            start.wait(10.0)
            for index in range(which, parameters, threads):
                found.append(handover.put(index, np.zeros(1, np.float32)))

        workers = [threading.Thread(target=put, args=(k,)) for k in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(10.0)
        assert handover.count == parameters
        complete += sum(found)
    return complete


def test_exactly_one_thread_completes_a_bucket():
    assert hammered() == 30
