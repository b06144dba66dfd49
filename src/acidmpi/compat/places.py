"""Where a rank stands among machines: numbers that scripts use to choose a device."""

from collections.abc import Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """A rank's place among machines and on its own."""

    local_rank: int
    """Number of this rank among those of its machine."""

    local_size: int
    """Ranks on this machine."""

    cross_rank: int
    """Number of this machine among those that have a rank of this `local_rank`."""

    cross_size: int
    """Machines that have a rank of this `local_rank`."""

    homogeneous: bool
    """Whether all machines have the same number of ranks."""


def find_place(hosts: Sequence[str], rank: int) -> Place:
    """Place of `rank`, when rank k runs on machine hosts[k].

    Machines are counted in the order of their lowest ranks.
    """
    here = hosts[rank]
    local_rank = hosts[:rank].count(here)
    counts = {host: hosts.count(host) for host in dict.fromkeys(hosts)}
    peers = [host for host, count in counts.items() if count > local_rank]
    return Place(
        local_rank=local_rank,
        local_size=counts[here],
        cross_rank=peers.index(here),
        cross_size=len(peers),
        homogeneous=len(set(counts.values())) == 1,
    )
