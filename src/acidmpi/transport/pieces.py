"""How long a message may be, by where its receiver is.

Open MPI sends a message over TCP at once up to 64 KiB, its header included. Of a longer one
it sends the beginning and waits for a word of the receiver before the rest. Two ranks that
send to each other at the same time have that word behind their own data: on a wire of 1 to
10 Gbit/s chunks of 512 KiB took 1.2 to 1.3 times as long as bytes alone, in pieces that are
sent at once 1.0 (docs/benchmarks). Over shared memory, and by adapters that read the memory
of other machines, a long message is the faster one.
"""

from collections.abc import Callable, Iterator

from acidmpi.mpi.nodes import Node

AT_ONCE_BYTES = 60 << 10

Longest = Callable[[int], int | None]
"""Bytes of the longest message to a rank; None: any."""


def whole(_peer: int) -> None:
    """Every message in one piece."""


def longest_message(asked: int | None, node: Node, library: str) -> Longest:
    """The rule for all ranks; both ends of a message have the same.

    Args:
        asked: bytes for all messages; None: whole, but in pieces that Open MPI sends at
            once to other machines where TCP is all that leads there.
        node: where the ranks are.
        library: MPI's name and version.
    """
    if asked is not None:
        return lambda _: asked
    if longest_of_all(node, library) is None:
        return whole
    return lambda peer: None if node.beside[peer] else AT_ONCE_BYTES


def longest_of_all(node: Node, library: str) -> int | None:
    """The same for messages of which each rank sends some to every other one.

    Returns:
        Bytes of the longest, if any goes to another machine over Open MPI's TCP.
    """
    tcp = library.startswith("Open MPI") and not node.fabric
    return AT_ONCE_BYTES if tcp and not all(node.beside) else None


def cut(size: int, longest: int | None) -> Iterator[slice]:
    """The pieces of a message of `size` bytes."""
    step = longest or max(size, 1)
    return (slice(start, start + step) for start in range(0, size, step))
