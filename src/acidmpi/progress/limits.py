"""How long waits may take, from one number and from what was measured.

A wait passes three limits, one after the other:

- *patience*: a neighbour that has not answered is set aside, and others are asked;
- *stall*: who waits for whom is shown;
- *deadline*: the run fails.

`deadline_seconds` is the one thing that a user sets. The others are parts of it, and all
three grow with the times that this rank has seen, so that slow steps do not count as
silence: nothing usual is within a factor 8 of a limit.
"""

SLOWER = 8.0
"""How many times longer than anything usual a wait must be to be out of the ordinary."""

SHORTEST_PATIENCE_SECONDS = 0.25
"""Ranks that share a core sleep up to 60 ms between looks."""

PATIENCE_PART = 1 / 300
STALL_PART = 1 / 30
SHORTEST_STALL_SECONDS = 5.0
FORGETTING = 0.98
"""How much of the longest time is remembered with each new one."""


LEAP = 2.0
"""How much longer than all before one time may seem: one standstill is no habit."""


class Usual:
    """The longest of recent times; older ones are forgotten slowly."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """0 until the first one."""

    def add(self, seconds: float) -> None:
        """One more was seen."""
        remembered = FORGETTING * self.seconds
        if seconds <= remembered:
            self.seconds = remembered
        elif remembered:
            self.seconds = min(seconds, LEAP * self.seconds)
        else:
            self.seconds = seconds


class Limits:
    """The limits of one rank's waits.

    Owned by the communication loop, which adds what it measures.

    Args:
        deadline_seconds: how long a wait may take at least before the run fails.
    """

    def __init__(self, deadline_seconds: float) -> None:
        self._deadline_seconds = deadline_seconds
        self.answers = Usual()
        """From a question to its answer."""
        self.exchanges = Usual()
        """From the match to the end of an exchange."""
        self.rounds = Usual()
        """Between two results of the heartbeat: it takes as long as the slowest rank."""

    @property
    def patience_seconds(self) -> float:
        """How long an answer is waited for before others are asked."""
        least = max(SHORTEST_PATIENCE_SECONDS, PATIENCE_PART * self._deadline_seconds)
        return min(max(least, SLOWER * self._of_peers), self.stall_seconds / 2)

    @property
    def stall_seconds(self) -> float:
        """How long a wait takes before it is shown."""
        least = max(SHORTEST_STALL_SECONDS, STALL_PART * self._deadline_seconds)
        usual = max(self._of_peers, self.rounds.seconds)
        return min(max(least, SLOWER * usual), self.deadline_seconds / 2)

    @property
    def deadline_seconds(self) -> float:
        """How long a wait takes before the run fails."""
        return max(self._deadline_seconds, 4 * SLOWER * self._of_peers)

    @property
    def round_seconds(self) -> float:
        """How long a heartbeat takes before the run fails."""
        return max(self.deadline_seconds, SLOWER * self.rounds.seconds)

    @property
    def _of_peers(self) -> float:
        return max(self.answers.seconds, self.exchanges.seconds)
