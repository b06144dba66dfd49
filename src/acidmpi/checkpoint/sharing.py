"""How the states of some ranks become those of another number of ranks.

Numbers are averaged: a rank that stands at the mean of all positions has the mean of all
momenta, because both are linear in the gradients; second moments stay positive. What is
counted is shared out, so that the total stays. Positions in the data are handed on: rank
k goes on where rank k was, and ranks that are new begin their own order.
"""

import numpy as np

from acidmpi.arrays import bfloat16
from acidmpi.checkpoint.tree import Array


def share(total: int, size: int, rank: int) -> int:
    """What `rank` gets of `total` events that `size` ranks share out evenly."""
    return total // size + (rank < total % size)


def mean_of(arrays: list[Array]) -> Array:
    """Mean of arrays of one type, made in float64; rounded where it has to be.

    Numbers of type uint16 are the bits of bfloat16. Truth values are the first array's.
    """
    first = arrays[0]
    if first.dtype == np.uint16:
        wide = [bfloat16.decode(array) for array in arrays]
        return bfloat16.encode(mean_of(wide).astype(np.float32))
    if first.dtype.kind not in "fiu" or len(arrays) == 1:
        return first
    total = np.zeros(first.shape)
    for array in arrays:
        total += array
    total /= len(arrays)
    rounded = total if first.dtype.kind == "f" else np.rint(total)
    return np.asarray(rounded, first.dtype)  # also where there is a single number
