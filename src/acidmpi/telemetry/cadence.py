"""When the rounds of a heartbeat begin, however it adds up."""

from acidmpi.clocks import Clock
from acidmpi.progress import Deadline


class Cadence:
    """Rounds with pauses between them: short ones at first, then of one length.

    Args:
        first_seconds: the first pause.
        growth: each pause is so many times the one before.
        interval_seconds: the longest.
        deadline_seconds: how long one round may take.
        clock: where time comes from.
    """

    def __init__(
        self,
        first_seconds: float,
        growth: float,
        interval_seconds: float,
        deadline_seconds: float,
        clock: Clock,
    ) -> None:
        self._growth, self._longest = growth, interval_seconds
        self._interval = min(first_seconds, interval_seconds)
        self._period = interval_seconds
        """Time between the last two results: rounds take as long as the slowest rank."""
        self._clock = clock
        self._deadline = Deadline(deadline_seconds, clock, "a heartbeat of all ranks")
        self._finished_seconds = clock.now()
        self.rounds = 0
        """Rounds completed."""
        self.hurried = False
        """Set it to leave out the pauses, as at the end of a run."""

    @property
    def age(self) -> float:
        """Time since the last result, in intervals as they really are."""
        return self._since / self.period_seconds

    @property
    def period_seconds(self) -> float:
        """Time between results: a pause, or what the last one has really taken."""
        return max(self._interval, self._period)

    def allow(self, seconds: float) -> None:
        """From the next round on, one may take so long."""
        self._deadline.seconds = seconds

    @property
    def _since(self) -> float:
        return self._clock.now() - self._finished_seconds

    @property
    def _due(self) -> bool:
        """Whether the next round may begin, if none is under way."""
        return self.hurried or self._since >= self._interval

    def _count(self) -> None:
        """A round is over."""
        self.rounds += 1
        self._interval = min(self._growth * self._interval, self._longest)
        self._period = self._since
        self._finished_seconds = self._clock.now()
