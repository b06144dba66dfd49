"""What may be sent, what it costs, and messages of a rank that is alone."""

import numpy as np
import pytest

from acidmpi.compression.protocol import AllToAll, Gather, Mean, Sum, Swap
from acidmpi.errors import ConfigError
from acidmpi.parallel import messages
from acidmpi.parallel.messages import Alone, check, sent_bytes

WRONG = {
    "integers": (Sum(np.zeros(4, np.int32)), "only float32 and float64"),
    "half": (Sum(np.zeros(4, np.float16)), "got float16"),
    "two dimensions": (Sum(np.zeros((2, 2))), r"got shape \(2, 2\)"),
    "strided": (Gather(np.zeros(8)[::2]), "contiguous"),
    "one dimension": (AllToAll(np.zeros(4)), r"2 dimension\(s\)"),
    "rows": (AllToAll(np.zeros((3, 4))), "one row for each of 2 ranks, got 3"),
    "room": (
        Swap(np.zeros(4), (1,), (1,), np.zeros((1, 3))),
        r"shape \(1, 4\) .* got \(1, 3\)",
    ),
    "type": (
        Swap(np.zeros(4), (1,), (1,), np.zeros((1, 4), np.float32)),
        "type float64, got .* float32",
    ),
    "stranger": (Swap(np.zeros(4), (2,), (), np.zeros((0, 4))), "got rank 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_messages_against_the_protocol_are_refused(case):
    message, words = WRONG[case]
    with pytest.raises(ConfigError, match=words):
        check(message, 2)


@pytest.mark.parametrize("kind", [Gather, AllToAll])
def test_messages_that_mpi_cannot_count_are_refused(kind, monkeypatch):
    monkeypatch.setattr(messages, "LARGEST_COUNT", 15)
    array = np.zeros((2, 1)) if kind is AllToAll else np.zeros(2)
    with pytest.raises(ConfigError, match="lower bucket_bytes"):
        check(kind(array), 2)
    check(Sum(np.zeros(2)), 2)


@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_volumes_are_those_of_the_best_algorithms(size):
    each = 4 * 8
    array = np.zeros(size * 4)
    for kind in (Sum, Mean):
        assert sent_bytes(kind(array), size) == 2 * (size - 1) * each
    assert sent_bytes(Gather(array), size) == (size - 1) * size * each
    assert sent_bytes(AllToAll(array.reshape(size, 4)), size) == (size - 1) * each
    swap = Swap(array, (0,) * 3, (), np.zeros((0, array.size)))
    assert sent_bytes(swap, size) == 3 * array.nbytes


def test_a_rank_alone_answers_itself():
    array = np.arange(3.0)
    assert Alone(Sum(array)).reply is array
    assert Alone(Mean(array)).reply is array
    assert Alone(Gather(array)).reply.tolist() == [[0.0, 1.0, 2.0]]
    rows = array[None]
    assert Alone(AllToAll(rows)).reply is rows
    nothing = np.zeros((0, 3))
    assert Alone(Swap(array, (), (), nothing)).reply is nothing
    assert Alone(Sum(array)).test()
