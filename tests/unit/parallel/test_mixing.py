"""The mean with neighbours: exact where it can be, and the sum over ranks kept."""

import numpy as np
import pytest

from acidmpi.arrays import bfloat16
from acidmpi.compression.protocol import Place, Spec, Swap
from acidmpi.parallel.mixing import Meeting, NeighbourMean, mix
from acidmpi.topology.rounds import ONE_PEER, make_rounds


class World:
    """Reductions of ranks in one process, whose swaps are delivered by hand."""

    def __init__(self, spec, arrays):
        size, self.arrays = len(arrays), arrays
        self.meetings = [Meeting() for _ in arrays]
        self.reductions = [
            NeighbourMean(make_rounds(spec, rank, size), self.meetings[rank]).start(
                [Spec(x.shape, x.dtype)], Place(rank, size, 0)
            )
            for rank, x in enumerate(arrays)
        ]
        self.steps = 0

    def step(self):
        works = [
            reduction.reduce([0], [x], self.steps)
            for reduction, x in zip(self.reductions, self.arrays, strict=True)
        ]
        swaps = [next(work, None) for work in works]
        self.steps += 1
        if swaps[0] is None:
            return
        for rank, swap in enumerate(swaps):
            assert isinstance(swap, Swap)
            for row, source in zip(swap.received, swap.sources, strict=True):
                assert rank in swaps[source].targets
                row[:] = swaps[source].array
        for work, swap in zip(works, swaps, strict=True):
            with pytest.raises(StopIteration):
                work.send(swap.received)


def random_arrays(size, dtype=np.float64, length=50):
    chance = np.random.default_rng(size)
    return [chance.standard_normal(length).astype(dtype) for _ in range(size)]


@pytest.mark.parametrize("size", [2, 4, 8, 16])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_powers_of_two_agree_to_the_last_bit_after_log2_steps(size, dtype):
    arrays = random_arrays(size, dtype)
    mean = np.mean(np.float64(arrays), axis=0)
    world = World(ONE_PEER, arrays)
    for done in range(steps := size.bit_length() - 1):
        assert len({x.tobytes() for x in arrays}) == size >> done
        world.step()
    assert world.steps == steps
    assert len({x.tobytes() for x in arrays}) == 1
    np.testing.assert_allclose(arrays[0], mean, atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (ONE_PEER, 3),
        (ONE_PEER, 7),
        (ONE_PEER, 8),
        ("ring", 5),
        ("star", 4),
        ("ring", 1),
    ],
)
def test_the_mean_stays_where_it_is_to_rounding(spec, size):
    arrays = random_arrays(size)
    before = np.sum(arrays, axis=0)
    spread = np.var(arrays, axis=0).sum()
    world = World(spec, arrays)
    for _ in range(60):
        world.step()
    np.testing.assert_allclose(np.sum(arrays, axis=0), before, rtol=0, atol=1e-13)
    assert size == 1 or np.var(arrays, axis=0).sum() < 1e-3 * spread


def test_a_planted_fault_that_moves_the_mean_is_seen():
    arrays = random_arrays(5)
    before = np.sum(arrays, axis=0)
    world = World("star", arrays)
    part = world.reductions[1]._steps[0]
    world.reductions[1]._steps = (part._replace(weights=(0.3,)),)
    for _ in range(3):
        world.step()
    assert np.abs(np.sum(arrays, axis=0) - before).max() > 1e-3


def test_sixteen_bits_are_calculated_as_float32_and_rounded_once():
    values = np.float32([[1.0, 1024.0], [1.0078125, 1.0], [3.0, 7.0]])
    bits = bfloat16.encode(values)
    exact = values[0] + 0.25 * (values[1] - values[0]) + 0.25 * (values[2] - values[0])
    x, rows = bits[0].copy(), bits[1:].copy()
    mix(x, rows, (0.25, 0.25))
    assert x.tolist() == bfloat16.encode(exact).tolist()
    half = values.astype(np.float16)
    x = half[0].copy()
    mix(x, half[1:2].copy(), (0.5,))
    assert x.tolist() == [np.float16(1.00390625), np.float16(512.5)]


def test_a_meeting_tells_who_came_and_how_long_it_took():
    world = World("ring", random_arrays(4))
    world.step()
    assert world.meetings[0].sources == (1, 3)
    assert world.meetings[0].seconds > 0


def test_ranks_that_have_different_graphs_differ_in_what_they_compare():
    ring, path = (
        repr(NeighbourMean(make_rounds(graph, 0, 4), Meeting()))
        for graph in ("ring", "path")
    )
    assert ring != path
    mine = repr(NeighbourMean(make_rounds("ring", 3, 4), Meeting()))
    assert mine == ring
