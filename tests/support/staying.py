"""A communicator whose `Abort` fails the test instead of ending all ranks.

An abort takes with it what was captured of the test's output, and shows nobody's stack.
A failed test is noticed by the launcher, which shows the stacks of the ranks that the
one which wanted to abort has waited for.
"""

import sys

from mpi4py import MPI


class StayingComm(MPI.Intracomm):
    """Like the communicator that it is made of."""

    def Abort(self, status: int = 0) -> None:
        said = getattr(sys.stderr, "getvalue", str)()  # where a fixture captures it
        raise AssertionError(f"would have ended all ranks with {status}:\n{said}")
