"""What ranks tell each other in a pulse, put together and taken apart again."""

import numpy as np
import pytest

from acidmpi.arrays import bfloat16
from acidmpi.train.news import News, as_float64

PULSE = np.array([1.0, 7.0, 1.0])


def mean_of(parameters, complaints):
    """What all ranks hear when each holds its row of `parameters`."""
    size = len(complaints)
    held = [
        [] if parameters is None else [row] for row in (parameters or [None] * size)
    ]
    news = [News(rank, size, own) for rank, own in enumerate(held)]
    said = [one.tell(PULSE, bad) for one, bad in zip(news, complaints, strict=True)]
    assert len({vector.shape for vector in said}) == 1
    heard = [one.hear(np.mean(said, axis=0)) for one in news]
    for other in heard[1:]:
        assert other.complaint == heard[0].complaint
        assert other.distance == heard[0].distance
    return heard[0]


def test_the_pulse_comes_through_and_nobody_complains():
    heard = mean_of(None, [False] * 3)
    assert heard.pulse.tolist() == PULSE.tolist()
    assert (heard.complaint, heard.distance) == (None, 0.0)


def test_the_lowest_rank_that_complains_is_named():
    assert mean_of(None, [False, False, True, True]).complaint == 2


def test_the_distance_is_estimated_from_sketches():
    chance = np.random.default_rng(0)
    rows = list(chance.standard_normal((5, 20_000)).astype(np.float32))
    exact = np.mean([np.sum((row - np.mean(rows, axis=0)) ** 2) for row in rows])
    heard = mean_of(rows, [False] * 5)
    assert heard.distance == pytest.approx(exact, rel=0.5)
    assert mean_of([rows[0]] * 5, [False] * 5).distance == pytest.approx(0, abs=1e-6)


def test_sixteen_bits_stand_for_numbers():
    values = np.array([1.0, -2.5, 0.0])
    assert as_float64(bfloat16.encode(values)).tolist() == values.tolist()
    assert as_float64(values.astype(np.float16)).tolist() == values.tolist()
