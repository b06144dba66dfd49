"""One sum over ranks says who has a gradient, whose is bad and who is new."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.errors import DisagreementError
from acidmpi.parallel.torch.verdict import judge, statement

FLAGS = st.lists(st.booleans(), min_size=3, max_size=3)
RANKS = st.lists(
    st.tuples(FLAGS, st.none() | st.integers(0, 2)), min_size=1, max_size=9
)


def verdict(ranks, newcomers):
    """As from the mean over ranks, which is what travels."""
    size = len(ranks)
    vectors = [
        statement(present, bad, newcomers[r], r, size)
        for r, (present, bad) in enumerate(ranks)
    ]
    return judge(np.mean(vectors, axis=0) * size, size)


@given(RANKS, st.integers(0, 5))
def test_all_ranks_learn_what_any_rank_says(ranks, newcomers):
    told = verdict(ranks, [newcomers] * len(ranks))
    assert told.anyone == [any(p[k] for p, _ in ranks) for k in range(3)]
    bad = [(r, index) for r, (_, index) in enumerate(ranks) if index is not None]
    assert told.bad == (bad[0] if bad else None)
    assert told.newcomers == (newcomers > 0)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=9))
def test_ranks_that_count_newcomers_differently_are_found(newcomers):
    ranks = [([True], None)] * len(newcomers)
    if len(set(newcomers)) == 1:
        assert verdict(ranks, newcomers).newcomers == (newcomers[0] > 0)
    else:
        with pytest.raises(DisagreementError, match="added or unfrozen"):
            verdict(ranks, newcomers)
