"""Residuals find their parameters, whatever the buckets."""

import numpy as np
import pytest

from acidmpi.compression.feedback import Memory, Residuals
from acidmpi.compression.packing import address
from acidmpi.compression.protocol import Place, Spec
from acidmpi.errors import ConfigError

SPECS = [
    Spec((2,), np.dtype("f4")),
    Spec((3,), np.dtype("f4")),
    Spec((), np.dtype("f4")),
]


def test_a_bucket_is_moved_once_and_then_stays():
    residuals = Residuals(SPECS)
    residuals.block((2, 0))[:] = (5, 1, 2)
    first = address(residuals.block((2, 0)))
    assert address(residuals.block((2, 0))) == first
    owed = {index: array.tolist() for index, array in residuals.copies().items()}
    assert owed == {0: [1, 2], 1: [0, 0, 0], 2: [5]}


def test_some_parameters_never_owe():
    residuals = Residuals(SPECS, kept={1})
    assert residuals.block((2, 1, 0)).size == 3
    assert list(residuals.copies()) == [1]
    mine = Memory("mine", SPECS, Place(0, 1, 0), own=True, served=False, kept={1})
    assert sorted(mine.state()) == ["mine.residual.1", "mine.sizes"]


def test_what_is_owed_follows_the_parameter_into_another_bucket():
    residuals = Residuals(SPECS)
    residuals.block((2, 1, 0))[:] = range(6)
    assert residuals.block((0, 1)).tolist() == [4, 5, 1, 2, 3]
    residuals.block((0, 1))[:] *= 10
    assert residuals.block((2, 1, 0)).tolist() == [0, 10, 20, 30, 40, 50]


def test_sixteen_bits_are_owed_in_thirty_two():
    specs = [Spec((2,), np.dtype("f2")), Spec((2,), np.dtype("u2"))]
    assert Residuals(specs).block((0, 1)).dtype == np.float32
    assert Residuals([Spec((2,), np.dtype("f8"))]).block((0,)).dtype == np.float64


def memory(rank, size, served=True, specs=SPECS):
    return Memory("mine", specs, Place(rank, size, 0), own=True, served=served)


def test_another_number_of_ranks_shares_everything_evenly():
    states = []
    for rank in range(2):
        before = memory(rank, 2)
        before.own.block((0, 1, 2))[:] = rank + 1
        before.served.block((0, 1, 2))[:] = 10 * rank
        states.append(before.state())
    for rank in range(4):
        after = memory(rank, 4)
        after.served.block((0, 1, 2))[:] = 7
        after.load(states)
        assert after.own.block((0, 1, 2)).tolist() == [13 / 4] * 6
        assert not after.served.block((0, 1, 2)).any()


def test_as_many_ranks_take_their_own():
    states = []
    for rank in range(2):
        before = memory(rank, 2)
        before.own.block((0, 1, 2))[:] = rank + 1
        before.served.block((0, 1, 2))[:] = 10 * rank
        states.append(before.state())
    after = memory(1, 2)
    after.load(states)
    assert after.own.block((0, 1, 2)).tolist() == [2] * 6
    assert after.served.block((0, 1, 2)).tolist() == [10] * 6


def test_a_state_is_a_copy():
    before = memory(0, 1)
    state = before.state()
    before.own.block((0,))[:] = 1
    assert not state["mine.residual.0"].any()


@pytest.mark.parametrize(
    "other",
    [
        memory(0, 1, served=False),
        memory(0, 1, specs=SPECS[:2]),
        memory(0, 1, specs=[*SPECS[:2], Spec((4,), np.dtype("f4"))]),
        memory(0, 1, specs=[*SPECS[:2], Spec((), np.dtype("f8"))]),
    ],
)
def test_states_of_another_form_are_refused(other):
    with pytest.raises(ConfigError, match=r"'mine'.*3 parameters"):
        memory(0, 1).load([other.state()])
