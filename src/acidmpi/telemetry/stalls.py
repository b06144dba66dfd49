"""Who waits for whom: reports of ranks, and what follows from all of them.

Pure: reports in, a picture out. A rank that does not report is *silent*; nobody needs its
help to be shown as what the others wait for.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

MOST_LINES = 16
"""Ranks that are drawn each by itself; more would not fit on one screen."""

KINDS = {
    "answer": "the answer to a question",
    "chunk": "a chunk of an exchange",
    "heartbeat": "the heartbeat",
}
"""What can be waited for; without a peer it is all ranks."""


class Wait(NamedTuple):
    """One thing that a rank waits for."""

    kind: str
    peer: int | None
    """None: all ranks together."""
    waiting_bytes: int
    seconds: float


@dataclass(frozen=True)
class Report:
    """What a rank says of itself."""

    rank: int
    gradients: int
    computed_seconds: float
    """Since its last gradient."""
    waits: tuple[Wait, ...]
    left: bool = False
    """Whether its compute loop has left."""
    calls: bool = False
    """Whether something takes too long for this rank itself: all others report, too."""

    def encode(self) -> str:
        """As text for a message."""
        waits = [[k, p, b, round(s, 3)] for k, p, b, s in self.waits]
        own = [self.rank, self.gradients, round(self.computed_seconds, 3)]
        return json.dumps([*own, waits, self.left, self.calls], separators=(",", ":"))

    @staticmethod
    def decode(text: str) -> "Report":
        """What `encode` made."""
        rank, gradients, computed, waits, *flags = json.loads(text)
        return Report(rank, gradients, computed, tuple(Wait(*w) for w in waits), *flags)


@dataclass(frozen=True)
class Picture:
    """Who waits for whom at one moment, as one rank knows it."""

    seen_by: int
    seconds: float
    """Longest wait of all."""
    reports: tuple[Report, ...]
    silent: tuple[tuple[int, float], ...]
    """Ranks that say nothing, with the seconds since their last word."""
    roots: tuple[int, ...]
    """Ranks that others wait for and that wait for nobody themselves."""
    cycles: tuple[tuple[int, ...], ...]
    """Ranks that wait for one another in a circle."""

    def to_json(self) -> dict[str, Any]:
        """For `stalls.json`."""
        return {
            "seen_by": self.seen_by,
            "longest_wait_seconds": round(self.seconds, 3),
            "roots": list(self.roots),
            "cycles": [list(cycle) for cycle in self.cycles],
            "silent": [{"rank": r, "seconds": round(s, 3)} for r, s in self.silent],
            "ranks": [
                {**_plain(r), "waits": [w._asdict() for w in r.waits]}
                for r in self.reports
            ],
        }

    def lines(self) -> list[str]:
        """The picture as text, at most a screen of it."""
        head = f"who waits for whom (rank {self.seen_by}, {self.seconds:.0f} s)"
        drawn = [self._silent_line(*each) for each in self.silent]
        ordered = sorted(self.reports, key=self._weight, reverse=True)
        drawn += [self._line(report) for report in ordered]
        rest = len(drawn) - MOST_LINES
        if rest > 0:
            drawn = [*drawn[:MOST_LINES], f"  and {rest} more ranks"]
        return [head, *drawn, self._conclusion()]

    def _weight(self, report: Report) -> tuple[bool, float]:
        """Ranks that wait for one other come first, those that waited longest."""
        own = [w.seconds for w in report.waits if w.peer is not None]
        return report.rank in self.roots, max(own, default=-1.0)

    def _silent_line(self, rank: int, seconds: float) -> str:
        why = "stopped, dead, cut off, or busy without polling"
        return f"  rank {rank:<4} silent for {seconds:.1f} s: {why}"

    def _line(self, report: Report) -> str:
        waits = [_said(wait) for wait in report.waits]
        if not waits:
            doing = "has left" if report.left else "computes"
            since = f"{report.computed_seconds:.1f} s"
            waits = [f"waits for nobody, {doing}; last gradient {since} ago"]
        return f"  rank {report.rank:<4} " + "; ".join(waits)

    def _conclusion(self) -> str:
        if self.cycles:
            circle = self.cycles[0]
            names = " -> ".join(str(rank) for rank in (*circle, circle[0]))
            return f"  a circle of waits: {names}"
        if self.roots:
            names = ", ".join(str(rank) for rank in self.roots[:MOST_LINES])
            return f"  all of it comes from rank {names}"
        return "  nobody is the cause for certain"


def _plain(report: Report) -> dict[str, Any]:
    return {key: value for key, value in asdict(report).items() if key != "calls"}


def _said(wait: Wait) -> str:
    whom = "all" if wait.peer is None else f"rank {wait.peer}"
    what = KINDS.get(wait.kind, wait.kind)
    size = f", {wait.waiting_bytes:,} bytes" if wait.waiting_bytes else ""
    return f"waits for {whom}: {what}{size}, {wait.seconds:.1f} s"


def picture(
    seen_by: int, reports: Iterable[Report], silent: Mapping[int, float], stalled: float
) -> Picture:
    """What reports and silences mean together.

    Args:
        seen_by: the rank that has gathered them.
        reports: one of each rank that speaks.
        silent: the others, with the seconds since their last word.
        stalled: waits shorter than this are no cause.
    """
    spoken = tuple(sorted(reports, key=lambda report: report.rank))
    edges = {
        report.rank: _peers(report, stalled)
        for report in spoken
        if report.rank not in silent
    }
    longest = [wait.seconds for report in spoken for wait in report.waits]
    return Picture(
        seen_by=seen_by,
        seconds=max([*longest, *silent.values()], default=0.0),
        reports=tuple(report for report in spoken if report.rank not in silent),
        silent=tuple(sorted(silent.items())),
        roots=_roots(edges, silent),
        cycles=_cycles(edges),
    )


def _peers(report: Report, stalled: float) -> tuple[int, ...]:
    """Whom a rank waits for, each by itself, for longer than is usual."""
    long = (w.peer for w in report.waits if w.seconds >= stalled)
    return tuple(peer for peer in long if peer is not None)


def _roots(
    edges: Mapping[int, tuple[int, ...]], silent: Iterable[int]
) -> tuple[int, ...]:
    """Silent ranks, and those waited for that wait for nobody; most waited for first.

    A silent rank holds up the heartbeat, so it is one even if nobody waits for it alone.
    """
    waited = Counter(peer for peers in edges.values() for peer in peers)
    found = {*silent, *(peer for peer in waited if not edges.get(peer))}
    return tuple(sorted(found, key=lambda rank: (-waited[rank], rank)))


def _cycles(edges: Mapping[int, tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Circles of waits, each from its lowest rank on."""
    found: set[tuple[int, ...]] = set()
    for first in edges:
        path, rank = [first], first
        while edges.get(rank):
            rank = edges[rank][0]
            if rank in path:
                found.add(_from_lowest(path[path.index(rank) :]))
                break
            path.append(rank)
    return tuple(sorted(found))


def _from_lowest(circle: list[int]) -> tuple[int, ...]:
    start = circle.index(min(circle))
    return tuple(circle[start:] + circle[:start])
