"""What ranks tell one another about a step, as one sum of numbers.

The vector holds, for each parameter, how many ranks have a gradient; how many parameters
are new, and the square of that, which tell together whether all ranks count alike; and a
place for each rank, where it writes which gradient is not finite.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from acidmpi.compression.protocol import Array
from acidmpi.errors import DisagreementError


class Verdict(NamedTuple):
    """What all ranks know of a step."""

    anyone: list[bool]
    """For each parameter, whether some rank has a gradient."""

    bad: tuple[int, int] | None
    """The first rank with a gradient that is not finite, and which parameter it is."""

    newcomers: bool
    """Whether there are new parameters: on all ranks equally many."""


def statement(
    present: Sequence[bool], bad: int | None, newcomers: int, rank: int, size: int
) -> Array:
    """The vector of one rank; the sum over ranks makes a `Verdict`.

    Args:
        present: for each parameter, whether this rank has a gradient.
        bad: which gradient is not finite here, or None.
        newcomers: number of new parameters here.
        rank: of this process.
        size: number of ranks.
    """
    slots = np.zeros(size)
    slots[rank] = 0 if bad is None else bad + 1
    return np.concatenate([present, [newcomers, newcomers**2], slots])


def judge(total: Array, size: int) -> Verdict:
    """What the sum of all statements says.

    Raises:
        DisagreementError: ranks differ in the number of new parameters. All raise it.
    """
    numbers = np.rint(total).astype(np.int64)
    slots = numbers[-size:]
    count, squares = (int(n) for n in numbers[-size - 2 : -size])
    # By Cauchy and Schwarz equal only if all terms are.
    if count**2 != size * squares:
        raise DisagreementError(
            "all ranks must train the same parameters, but they differ in how many were "
            f"added or unfrozen ({count} over {size} ranks); do it in the same step "
            "everywhere"
        )
    first = next((r for r in range(size) if slots[r]), None)
    bad = None if first is None else (first, int(slots[first]) - 1)
    return Verdict([bool(n) for n in numbers[: -size - 2]], bad, count > 0)
