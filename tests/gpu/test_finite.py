"""On a GPU: a gradient that is not finite is found there, and left out there."""

import numpy as np
import pytest

from acidmpi.arrays import bfloat16
from acidmpi.kernels.cuda.finite import position
from acidmpi.kernels.hyper import SGD, Adam, Add
from acidmpi.testing.kernel_cases import DTYPES, gpu, mix, run, same, step, vectors

LENGTH = 1_000_003
RULES = (
    Add(),
    SGD(0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    Adam(0.1, 0.9, 0.99, 1e-8, 0.1, True, 3),
)
WEIGHT = 0.3


@pytest.fixture(name="subject", scope="module")
def kernels_of_the_gpu():
    return gpu()


def word_of(subject):
    return subject.put(np.zeros(1, np.uint64))


def heard(subject, word):
    return position(int(subject.get(word)[0]))


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_place_is_found_and_the_gradient_left_out(subject, dtype, offset):
    for places in ((), (0,), (LENGTH - 1,), tuple(range(777, LENGTH, 1000))):
        arrays = vectors(dtype, LENGTH)
        bad = bfloat16.encode(np.array([np.nan])) if dtype == "uint16" else np.nan
        arrays["gradient"][list(places)] = bad
        alone = run(subject, mix(WEIGHT), arrays, offset)
        for rule in RULES:
            word = word_of(subject)

            def event(kernels, v, word=word, rule=rule):
                kernels.find_nonfinite(v.gradient, word, 5)
                step(rule, WEIGHT)(kernels.unless(word), v)

            found = run(subject, event, arrays, offset)
            first = 5 + places[0] if places else None
            assert heard(subject, word) == first
            applied = run(subject, step(rule, WEIGHT), arrays, offset)
            expected = alone if places else applied
            for name in ("x", "x_tilde", "first", "second", "gradient"):
                same(getattr(found, name), getattr(expected, name), name)
