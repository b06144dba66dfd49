"""Sets of several ranks: due alike, sealed by one, given up together, old ones removed."""

import errno

import numpy as np
import pytest

from acidmpi.checkpoint import keeper as module
from acidmpi.checkpoint.keeper import Keeper
from acidmpi.checkpoint.series import Series, Verdict
from acidmpi.checkpoint.sets import Sets, newest
from acidmpi.checkpoint.sharing import mean_of, share
from acidmpi.checkpoint.tree import Stage

SIZE = 3


class Ranks:
    """Keepers of all ranks, and the sums that they would hear."""

    def __init__(self, path, every=10, size=SIZE, first=1, done=0):
        self.said = []
        self.alive = list(range(size))
        self.sets = Sets(path)
        self.keepers = [
            Keeper(
                self.sets,
                rank=rank,
                size=size,
                session=f"from {first}",
                first=first,
                every=every,
                done=done,
                tell=self.said.append,
            )
            for rank in range(size)
        ]
        self.x = [np.full(4, float(rank)) for rank in range(size)]

    def round(self, total):
        """A heartbeat that tells of so many gradients; who wants to, takes its part."""
        told = [self.keepers[rank].contribution() for rank in self.alive]
        sums = [sum(column) for column in zip(*told, strict=True)]
        for rank in self.alive:
            keeper = self.keepers[rank]
            keeper.hear(*sums, members=self.alive)
            keeper.passed(total)
            if keeper.wants:
                keeper.take(lambda rank=rank: {"x": self.x[rank], "total": total})
        for rank in self.alive:
            self.keepers[rank].settle()

    def whole(self):
        """Numbers of complete sets, the newest first."""
        return [m.mark.number for m in newest(self.sets, lambda text: None)]


def test_a_set_is_sealed_when_all_have_written(tmp_path):
    ranks = Ranks(tmp_path)
    ranks.round(9)
    assert ranks.sets.numbers() == []
    ranks.round(10)
    assert (ranks.sets.numbers(), ranks.whole()) == ([1], [])
    for x in ranks.x:
        x += 1  # the copy is what counts
    ranks.round(11)
    assert ranks.whole() == [1]
    (manifest,) = newest(ranks.sets, pytest.fail)
    assert (manifest.members, manifest.total_gradients) == ((0, 1, 2), 10)
    assert [ranks.sets.read(manifest, r)["x"][0] for r in range(SIZE)] == [0, 1, 2]


def test_all_but_the_newest_sets_are_removed(tmp_path):
    ranks = Ranks(tmp_path)
    for total in range(10, 70, 5):
        ranks.round(total)
    assert ranks.sets.numbers() == ranks.whole()[::-1] == [5, 6]
    later = Ranks(tmp_path, first=7, done=60, size=2)
    later.round(71)
    later.round(75)
    assert later.whole() == [7, 6, 5]  # the spare one until there are two new ones
    later.round(81)
    later.round(85)
    assert later.sets.numbers() == [7, 8]


def test_survivors_complete_a_set(tmp_path):
    ranks = Ranks(tmp_path)
    ranks.round(10)
    ranks.alive = [1, 2]
    ranks.round(12)
    (manifest,) = newest(ranks.sets, pytest.fail)
    assert (manifest.members, manifest.size) == ((1, 2), SIZE)


def test_a_full_disk_on_one_rank_gives_the_set_up(tmp_path, monkeypatch):
    ranks = Ranks(tmp_path)
    ranks.round(10)
    ranks.round(12)
    write = Sets.write

    def full(self, mark, rank, packed):
        if rank == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, mark, rank, packed)

    monkeypatch.setattr(Sets, "write", full)
    ranks.round(20)
    ranks.round(21)
    assert ranks.whole() == [1]
    assert "rank 1 cannot write" in ranks.said[0]
    assert "No space left" in ranks.said[0]
    assert "could not be written by every rank" in ranks.said[1]
    monkeypatch.undo()
    ranks.round(30)
    ranks.round(31)
    assert ranks.whole()[0] == 3
    assert len(ranks.said) == 2


def test_a_mark_is_left_out_while_a_set_is_under_way(tmp_path):
    ranks = Ranks(tmp_path)
    ranks.round(10)
    for keeper in ranks.keepers:  # another rank is slow: no sum comes
        keeper.passed(20)
    assert ranks.keepers[0].series.due == 1
    assert "raise --checkpoint-every" in ranks.said[0]
    ranks.round(25)
    ranks.round(30)
    ranks.round(31)
    assert ranks.whole() == [2, 1]


def test_the_last_set_of_a_run_that_must_leave(tmp_path):
    ranks = Ranks(tmp_path, every=None)
    ranks.keepers[1].ask()
    for rank, keeper in enumerate(ranks.keepers):
        keeper.take_last(lambda rank=rank: {"x": ranks.x[rank]}, 17)
    told = [keeper.settle() for keeper in ranks.keepers]
    for keeper in ranks.keepers:
        keeper.hear(sum(t[0] for t in told), sum(t[1] for t in told))
        keeper.close()
    assert ranks.whole() == [1]
    assert ranks.keepers[0].folder.name == "set-000001"


def test_planted_fault_two_sets_share_one_copy(tmp_path, monkeypatch):
    """A new array for each copy, or the writer would see what came later."""
    seen = []
    monkeypatch.setattr(
        Stage, "copy", lambda self, packed: seen.append(packed) or packed
    )
    ranks = Ranks(tmp_path, size=1)
    keeper = ranks.keepers[0]
    keeper.passed(10)
    gate, write = [], Sets.write

    def late(self, mark, rank, packed):
        while not gate:
            pass
        write(self, mark, rank, packed)

    monkeypatch.setattr(Sets, "write", late)
    keeper.take(lambda: {"x": ranks.x[0]})
    ranks.x[0] += 5
    gate.append(1)
    keeper.settle()
    keeper.hear(1, 1)
    keeper.close()
    (manifest,) = newest(ranks.sets, pytest.fail)
    assert ranks.sets.read(manifest, 0)["x"][0] == 5  # torn: that is why it is copied


def test_a_series_decides_once_and_alike():
    series = Series(10, done=25)
    assert not series.passed(29)
    assert series.reaches(30)
    assert series.passed(30)
    assert series.heard(1, 1, 2) is None
    assert series.heard(2, 1, 2) is Verdict.GIVEN_UP
    assert series.heard(2, 2, 2) is None
    assert series.passed(45)
    assert series.heard(2, 2, 2) is None  # the first set's
    assert series.heard(4, 2, 2) is Verdict.COMPLETE
    assert not Series(None).passed(10**9)


def test_counts_are_shared_out_whole():
    for total in (0, 7, 2000):
        for size in (1, 3, 64):
            parts = [share(total, size, rank) for rank in range(size)]
            assert sum(parts) == total
            assert max(parts) - min(parts) <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_mean_of_equal_arrays_is_the_same_to_the_last_bit(count):
    chance = np.random.default_rng(0)
    for dtype in (np.float32, np.float16, np.int64, np.uint16):
        x = (chance.standard_normal(100) * 50).astype(dtype)
        if dtype is np.uint16:
            x = chance.integers(0x3000, 0x4400, 100).astype(dtype)  # bits of bfloat16
        np.testing.assert_array_equal(mean_of([x] * count), x)


def test_the_mean_of_numbers_that_must_be_whole_is_rounded():
    ages = [np.array([3, 4]), np.array([4, 4])]
    np.testing.assert_array_equal(mean_of(ages), [4, 4])


@pytest.mark.parametrize("dtype", ["int64", "float32", "uint16", "bool"])
def test_the_mean_of_single_numbers_is_an_array_as_they_are(dtype):
    mean = mean_of([np.array(0, dtype)] * 3)
    assert isinstance(mean, np.ndarray)
    assert (mean.shape, mean.dtype) == ((), dtype)
    assert module.KEPT_SETS == 2
