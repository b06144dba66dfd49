"""The plain mean, in full and in 16 bits."""

import numpy as np
import pytest
from support.ranks_in_memory import Ranks

from acidmpi.arrays import bfloat16
from acidmpi.compression.codecs import layout_of
from acidmpi.compression.dense import Cast, NoCompression
from acidmpi.compression.protocol import AllToAll, Gather, Mean, Place, Spec
from acidmpi.errors import ConfigError


def rows_of(size, seed=0):
    draw = np.random.default_rng(seed)
    return draw.standard_normal((size, 50)).astype("f4")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_mean_of_floats_is_one_sum_in_place(dtype, size):
    rows = rows_of(size).astype(dtype)
    gradients = [[row[:20].copy(), row[20:].copy()] for row in rows]
    specs = [Spec((4, 5), np.dtype(dtype)), Spec((30,), np.dtype(dtype))]
    ranks = Ranks(NoCompression(), specs, size)
    ranks.reduce(gradients)
    wanted = np.add.reduce(rows, axis=0) / size
    np.testing.assert_allclose(np.concatenate(gradients[-1]), wanted, rtol=1e-6)
    assert ranks.traffic.kinds == [Mean]
    assert ranks.traffic.sent_bytes == [50 * rows.itemsize] * size


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_sixteen_bits_are_summed_in_float32_and_rounded_once(size):
    """Exactly what float32 sums of the decoded numbers round to."""
    for dtype, encode, decode in (
        ("f2", lambda x: x.astype("f2"), lambda x: x.astype("f4")),
        ("u2", bfloat16.encode, bfloat16.decode),
    ):
        rows = encode(rows_of(size))
        gradients = [[row.copy()] for row in rows]
        ranks = Ranks(NoCompression(), [Spec((50,), np.dtype(dtype))], size)
        ranks.reduce(gradients)
        wanted = encode(np.add.reduce(decode(rows), axis=0) / np.float32(size))
        assert gradients[0][0].tobytes() == wanted.tobytes()
        assert ranks.traffic.kinds == [AllToAll, Gather]


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-10), ("bfloat16", 2**-7)])
@pytest.mark.parametrize("given", ["f4", "f8"])
def test_casts_err_by_two_roundings(dtype, error, given):
    rows = rows_of(3).astype(given)
    gradients = [[row.copy()] for row in rows]
    Ranks(Cast(dtype), [Spec((50,), np.dtype(given))], 3).reduce(gradients)
    bound = error * np.abs(rows).max(axis=0)
    assert (np.abs(gradients[0][0] - rows.mean(axis=0)) <= bound).all()
    assert gradients[0][0].dtype == given


def test_float16_saturates_and_sums_beyond_its_range():
    rows = np.array([[1e6, -1e6, 6e4], [1e6, -1e6, 6e4]], "f4")
    gradients = [[row] for row in rows]
    Ranks(Cast(), [Spec((3,), np.dtype("f4"))], 2).reduce(gradients)
    assert gradients[0][0].tolist() == [65504, -65504, 60000]


def test_stages_follow_the_types_of_the_model():
    wide, narrow = Spec((2,), np.dtype("f4")), Spec((2,), np.dtype("f2"))
    place = Place(0, 2, 0)
    assert NoCompression().start([], place).stages == 1
    assert NoCompression().start([wide], place).stages == 1
    assert NoCompression().start([wide, narrow], place).stages == 2


def test_a_bucket_has_a_limit_that_positions_can_count():
    assert layout_of([2**30, 2**30 - 1]).size == 2**31 - 1
    with pytest.raises(ConfigError, match="lower bucket_bytes"):
        layout_of([2**30, 2**30])


def test_casts_are_to_two_types():
    assert (Cast().name, Cast("bfloat16").name) == ("fp16", "bf16")
    with pytest.raises(ConfigError, match="'float16', 'bfloat16', got 'float8'"):
        Cast("float8")
