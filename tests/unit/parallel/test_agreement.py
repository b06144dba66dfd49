"""What ranks compare before they average together."""

import numpy as np
import pytest

from acidmpi.compression.dense import Cast, NoCompression
from acidmpi.compression.protocol import Spec
from acidmpi.errors import ConfigError
from acidmpi.parallel.agreement import check_complete, check_specs, describe_start

SPECS = [Spec((3, 4), np.dtype("float32")), Spec((4,), np.dtype("float32"))]


def described(specs=SPECS, compressor=None, bucket_bytes=10, seed=0):
    return describe_start(specs, compressor or NoCompression(), bucket_bytes, seed)


@pytest.mark.parametrize(
    "other",
    [
        {"specs": SPECS[::-1]},
        {"specs": SPECS[:1]},
        {"specs": [Spec((4, 3), np.dtype("float32")), SPECS[1]]},
        {"specs": [Spec((3, 4), np.dtype("float64")), SPECS[1]]},
        {"compressor": Cast("float16")},
        {"bucket_bytes": 11},
        {"seed": 1},
    ],
)
def test_every_difference_shows(other):
    assert described(**other) != described()


def test_equal_compressors_read_alike():
    assert described(compressor=Cast()) == described(compressor=Cast("float16"))


def test_nothing_to_average_is_refused():
    with pytest.raises(ConfigError, match="there must be a parameter"):
        check_specs([])


def test_types_without_a_mean_are_refused():
    with pytest.raises(ConfigError, match="number 1 is int64"):
        check_specs([SPECS[0], Spec((1,), np.dtype("int64"))])


def saved(*ranks, size=3, reduction=("residual",)):
    return [
        {"rank": r, "size": size, "reduction": dict.fromkeys(reduction)} for r in ranks
    ]


def test_a_save_is_complete():
    check_complete(saved(0, 1, 2))
    check_complete(saved(0, size=1))


@pytest.mark.parametrize(
    "states",
    [
        saved(0, 1),
        saved(0),
        saved(1, 0, 2),
        saved(0, 0, 1, 2),
        saved(0, 1, 2, 3),
        [*saved(0, 1), *saved(2, size=4)],
        [],
    ],
)
def test_a_save_that_lacks_a_rank_is_refused(states):
    with pytest.raises(ConfigError, match="load the whole list on every rank"):
        check_complete(states)
