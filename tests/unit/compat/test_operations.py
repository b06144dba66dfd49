"""The queue of collective operations, without ranks."""

import pytest

from acidmpi.compat.operations import Operation, Operations, digest, sleep_seconds
from acidmpi.errors import DeadlineExceeded


class Request:
    """An MPI request that is complete when it is told so."""

    def __init__(self, done=False):
        self.done = done

    def Test(self):
        return self.done


def working(requests, result, log):
    """An operation that notes when it begins and when it ends."""
    log.append(f"begin {result}")
    yield from requests
    log.append(f"end {result}")
    return result


def test_one_after_the_other_in_the_order_of_calls():
    queue, log = Operations(None, 1.0), []
    first, second = [Request(), Request()], [Request(done=True)]
    a = queue.start("a", working(first, "a", log))
    b = queue.start("b", working(second, "b", log))
    assert log == ["begin a"]
    first[0].done = True
    assert not queue.poll(b)
    assert log == ["begin a"]
    first[1].done = True
    # Waiting for the later one brings the earlier one about.
    assert queue.wait(b) == "b"
    assert log == ["begin a", "end a", "begin b", "end b"]
    assert queue.poll(a)
    assert queue.wait(a) == queue.wait(a) == "a"


def test_an_error_is_raised_where_it_is_waited_for_and_others_go_on():
    def failing():
        yield Request(done=True)
        raise KeyError("planted")

    queue = Operations(None, 1.0)
    bad = queue.start("bad", failing())
    good = queue.start("good", working([], 7, []))
    assert queue.wait(good) == 7
    with pytest.raises(KeyError, match="planted"):
        queue.wait(bad)
    assert not queue.broken


def test_after_a_missed_deadline_everything_raises():
    queue = Operations(None, 0.02)
    late = queue.start("the sum", working([Request()], 1, []))
    behind = queue.start("behind", working([], 2, []))
    with pytest.raises(DeadlineExceeded, match="the sum"):
        queue.wait(late)
    with pytest.raises(DeadlineExceeded, match="the sum"):
        queue.wait(behind)
    with pytest.raises(DeadlineExceeded, match="the sum"):
        queue.start("more", working([], 3, []))
    assert queue.broken


def test_draining_ends_everything_and_raises_nothing():
    def failing():
        yield Request(done=True)
        raise KeyError("planted")

    queue, log = Operations(None, 1.0), []
    queue.drain()
    queue.start("a", working([Request(done=True)], "a", log))
    last = queue.start("b", failing())
    queue.drain()
    assert log == ["begin a", "end a"]
    assert last.done


def test_an_operation_that_has_ended_cannot_fail():
    operation = Operation("x", working([], 5, []))
    assert operation.advance()
    operation.fail(ValueError())
    assert operation.result() == 5


def test_sleeps_are_short_beside_the_wait_and_never_long():
    assert sleep_seconds(0) == 1e-5
    assert sleep_seconds(1e-2) == pytest.approx(1e-3)
    assert sleep_seconds(60) == 5e-3


def test_digests_differ_and_do_not_depend_on_the_process():
    assert digest("barrier") == -4445620085943173557
    assert len({digest(f"allreduce {k}") for k in range(1000)}) == 1000
