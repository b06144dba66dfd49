"""Numbers of a device that are read one later."""

import numpy as np
from support import cupy_like
from support.apart import Apart

from acidmpi.arrays.late import Late


class Slow(Apart):
    """Copies are made when their event has been asked for often enough."""

    def __init__(self, patience):
        super().__init__(patience)
        self._copies = []

    def copy(self, destination, origin, stream):
        self._copies.append((destination, origin))

    def record(self, stream):
        return [self._patience, self._copies[-1]]

    def done(self, event):
        passed = super().done(event)
        if passed:
            super().copy(*event[1], stream=None)
        return passed


def numbers(*values):
    return [cupy_like.ndarray(np.array([value], np.float32)) for value in values]


def test_each_number_is_given_at_the_next_call():
    late = Late(Apart())
    assert [late.swap(one) for one in numbers(1.5, 2.5, np.nan)] == [None, 1.5, 2.5]


def test_it_is_waited_for_until_it_has_come():
    late = Late(Slow(patience=3))
    assert [late.swap(one) for one in numbers(1.5, 2.5, 3.5)] == [None, 1.5, 2.5]


def test_the_last_number_is_not_waited_for():
    device = Slow(patience=10**9)
    assert Late(device).swap(*numbers(1.5)) is None
