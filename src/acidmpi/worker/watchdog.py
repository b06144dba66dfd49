"""Notices waits that last too long, and finds out who waits for whom.

Nobody is in charge, and nobody is asked: when a rank's heartbeat is late, or any wait of
its own has passed the stall limit, it tells every other rank what it waits for, again
and again until that is over; whoever is told so by others does the same. So each rank
comes to know all that speak, and a rank that does not speak is known by its silence. The
lowest rank that speaks shows the picture.

The same messages carry each sender's count of gradients, so that the total is known while
a stopped rank holds up the heartbeat.

Owned by the communication loop.
"""

import logging
from collections.abc import Callable, Container
from dataclasses import replace

from acidmpi.clocks import Clock
from acidmpi.progress.limits import Limits
from acidmpi.telemetry.stalls import Picture, Report, picture

LATE_AGE = 8.0
"""Intervals of the heartbeat after which it counts as held up, as for the governor."""

SHORTEST_PERIOD_SECONDS = 0.5
PERIOD_SECONDS_PER_RANK = 0.02
"""Reports go from everyone to everyone: more ranks report less often."""

LOOK_SECONDS = 0.25
"""Own waits are looked at that often."""

SILENT_PERIODS = 4.0
COMPLETED = -1
"""What stands for an exchange that is complete where kinds of messages are noted."""

MOST_SHOWN = 8
"""Pictures of one stall: each is shown after twice the time of the one before."""

Tell = Callable[[Picture], None]


class Watchdog:
    """One rank's share of noticing stalls.

    Args:
        rank: this rank.
        size: number of ranks.
        limits: when a wait is too long.
        clock: where time comes from.
        report: what this rank waits for now.
        tell_all: sends a text to every other rank.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        limits: Limits,
        clock: Clock,
        report: Callable[[float], Report],
        tell_all: Callable[[str], None],
    ) -> None:
        self.tell: Tell = _log
        """Called with a picture to show, on the rank that shows it."""
        self.dead: Container[int] = ()
        """Ranks that are known to be dead: nobody is surprised by their silence."""
        self.stalls = 0
        """Stalls seen so far."""
        self.reports = 0
        """Times that this rank has told all others what it waits for."""
        self.awake_seconds = clock.now()
        """Since when this rank has looked without a break: before that, it was itself
        the one that stood still, and nobody kept it waiting."""
        self._rank = rank
        self._size = size
        self._limits = limits
        self._clock = clock
        self._report = report
        self._tell_all = tell_all
        self._looked_seconds = self._look_seconds = clock.now()
        self._period = max(SHORTEST_PERIOD_SECONDS, PERIOD_SECONDS_PER_RANK * size)
        self._reported_seconds = -self._period
        self._since: float | None = None
        """When this rank began to report."""
        self._called_seconds: float | None = None
        """When another rank last reported a stall."""
        self._reports: dict[int, Report] = {}
        self._heard: dict[int, tuple[float, int]] = {}
        self._all_heard_seconds = clock.now()
        self._shown = 0
        self._stalled_since: float | None = None

    @property
    def stalled(self) -> bool:
        """Whether a stall is going on, as far as this rank knows."""
        return self._stalled_since is not None

    def heard(self, source: int, kind: int) -> None:
        """A message of `kind` has come from `source`, or an exchange is `COMPLETED`."""
        self._heard[source] = self._clock.now(), kind

    def last(self, source: int) -> tuple[float, int] | None:
        """When `source` was last heard, by the clock, and with what; None if never."""
        return self._heard.get(source)

    def heard_all(self, now: float) -> None:
        """A heartbeat is complete: every rank has taken part."""
        self._all_heard_seconds = now

    def hear(self, source: int, text: str) -> None:
        """A report has come from `source`."""
        report = Report.decode(text)
        self._reports[source] = report
        if report.calls:
            self._called_seconds = self._clock.now()

    def poll(self, now: float, heartbeat_age: float) -> bool:
        """Look whether something takes too long; report and show what there is.

        Args:
            now: by the clock.
            heartbeat_age: time since the last heartbeat, in its intervals.

        Returns:
            Whether anything was sent.
        """
        self._notice_own_absence(now)
        if self._size == 1:
            return False
        late = heartbeat_age > LATE_AGE
        if now >= self._look_seconds or late:
            self._look_seconds = now + LOOK_SECONDS
            return self._attend(now, late)
        return False

    def _notice_own_absence(self, now: float) -> None:
        if now - self._looked_seconds > self._limits.stall_seconds / 2:
            self.awake_seconds = now
        self._looked_seconds = now

    def _attend(self, now: float, late: bool) -> bool:
        """Something is late here, or elsewhere: report in turns, and look at reports."""
        own = self._own(now, late)
        if not (own.calls or self._called(now)):
            self._rest()
            return False
        if self._since is None:
            self._since = now
        self._judge(now, own)
        if now - self._reported_seconds < self._period:
            return False
        self._reported_seconds = now
        self.reports += 1
        self._tell_all(own.encode())
        return True

    def _called(self, now: float) -> bool:
        """Whether some other rank has reported lately that it waits too long."""
        called = self._called_seconds
        return called is not None and now - called < SILENT_PERIODS * self._period

    def _own(self, now: float, late: bool) -> Report:
        """This rank's report; time in which it stood still itself does not count."""
        awake = now - self.awake_seconds
        report = self._report(now)
        waits = tuple(w._replace(seconds=min(w.seconds, awake)) for w in report.waits)
        longest = max((wait.seconds for wait in waits), default=0.0)
        stalled = longest >= self._limits.stall_seconds
        return replace(report, waits=waits, calls=late or stalled)

    def _rest(self) -> None:
        self._since = self._called_seconds = self._stalled_since = None
        self._reports.clear()
        self._shown = 0

    def _judge(self, now: float, own: Report) -> None:
        """Show the picture, if there is a stall and nobody else is to show it."""
        found = self._picture(now, own)
        if found.seconds < self._limits.stall_seconds:
            self._stalled_since = None
            return
        if self._stalled_since is None:
            self._stalled_since, self._shown = now, 0
            self.stalls += 1
        age = now - self._stalled_since
        # One period first: those that speak must have had the time to do so.
        due = (
            self._period
            if not self._shown
            else self._limits.stall_seconds * (2 ** (self._shown - 1))
        )
        if age >= due and self._shown < MOST_SHOWN:
            self._shown += 1
            if self._speaks_first(now):
                self.tell(found)

    def _speaks_first(self, now: float) -> bool:
        """Whether no lower rank has spoken lately: then it would show the picture."""
        return all(
            r in self.dead or self._silence(r, now) is not None
            for r in range(self._rank)
        )

    def _picture(self, now: float, own: Report) -> Picture:
        silences = {
            r: s
            for r in range(self._size)
            if r != self._rank
            and r not in self.dead
            and (s := self._silence(r, now)) is not None
        }
        spoken = self._reports.items()
        reports = [own, *(report for r, report in spoken if r not in self.dead)]
        return picture(self._rank, reports, silences, self._limits.patience_seconds)

    def _silence(self, rank: int, now: float) -> float | None:
        """Seconds since the last word of `rank`, if that is too long for one alive."""
        assert self._since is not None
        common = max(self._all_heard_seconds, self.awake_seconds)
        heard = max(self._heard.get(rank, (common, 0))[0], common)
        # Before this rank began to report, nobody had a reason to speak.
        if now - max(heard, self._since) < SILENT_PERIODS * self._period:
            return None
        return now - heard


def _log(picture: Picture) -> None:
    """Standard error, unless the program has arranged its logging otherwise."""
    logging.getLogger("acidmpi").warning(
        "acidmpi: stall: " + "\n".join(picture.lines())
    )
