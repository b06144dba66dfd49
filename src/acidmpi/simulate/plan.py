"""`python -m acidmpi.simulate plan`: ways to train on a described cluster, best first.

What a step takes is computed; how many more steps a consensus distance or a lossy gradient
costs is not known beforehand. So the rule is: among ways within a tenth of the fastest one
SGD on the exact mean gradient comes first, then the way whose ranks stay nearer together
(lossy gradients last, because encoding takes time that is not counted), then the one that
needs less memory; the next tenth follows. Ways whose ranks stay further apart than
`--most-distance` come last, as do those in which half of the ranks run ahead of the others.
"""

import math
from typing import TextIO

from acidmpi.config.plan import PlanConfig
from acidmpi.simulate.plan_ways import Cluster, Way, ways
from acidmpi.simulate.tell import number, table

TENTH = 1.1
"""Steps within this factor count as equally fast."""

SHOWN = 10
"""Rows of the table; the best of each method follows if it is not among them."""


def run(config: PlanConfig, out: TextIO) -> None:
    """Print the ways, ranked, and why the first one is.

    Raises:
        ConfigError: a compression that does not exist.
        TopologyError: a graph that cannot be.
    """
    cluster = Cluster.of(config)
    ranked = rank(ways(cluster), config.most_distance)
    print(_overview(ranked), file=out)
    print(f"\nuse {_named(ranked[0])}: {reason(cluster, ranked)}", file=out)
    if config.check:
        from acidmpi.simulate.plan_check import check

        print(f"\n{check(cluster, ranked)}", file=out)
    out.flush()


def rank(found: list[Way], most_distance: float = math.inf) -> list[Way]:
    """Best first, by the rule above; ways too far apart, or lopsided, after all others."""
    best = min(way.step_seconds for way in found)

    def key(way: Way) -> tuple[float, ...]:
        return (way.distance > most_distance or way.lopsided, *_key(way, best))

    return sorted(found, key=key)


def _key(way: Way, best: float) -> tuple[float, ...]:
    tier = math.floor(math.log(way.step_seconds / best) / math.log(TENTH) + 1e-9)
    far = math.inf if math.isnan(way.distance) else way.distance
    return tier, not way.exact, float(f"{far:.2g}"), way.memory_bytes, way.step_seconds


def reason(cluster: Cluster, ranked: list[Way]) -> str:
    """Why the first one is first, in one sentence or two."""
    first = ranked[0]
    exact = next(way for way in ranked if way.exact)
    if first.exact:
        return _why_exact(first, ranked)
    gain = exact.step_seconds / first.step_seconds
    text = f"a step takes {_seconds(first.step_seconds)}, 1/{gain:.3g} of all-reduce's"
    causes = []
    if exact.waiting_seconds > 0.05 * exact.step_seconds:
        waits = _seconds(exact.waiting_seconds)
        causes.append(f"waits {waits} for the slowest rank")
    if exact.exposed_seconds > 0.05 * exact.step_seconds:
        bare = _seconds(exact.exposed_seconds)
        causes.append(f"spends {bare} on communication that nothing hides")
    text += f", which {' and '.join(causes)}" if causes else ""
    return f"{text}. {_price(cluster, first, ranked)}"


def _why_exact(first: Way, ranked: list[Way]) -> str:
    others = [way for way in ranked if not way.exact]
    text = (
        f"it waits {_seconds(first.waiting_seconds)} for the slowest rank and "
        f"{_seconds(first.exposed_seconds)} for communication in a step of "
        f"{_seconds(first.step_seconds)}"
    )
    if not others:
        return text
    fastest = min(others, key=lambda way: way.step_seconds)
    if fastest.step_seconds >= first.step_seconds:
        return f"{text}; nothing is faster, and it averages exactly"
    gain = first.step_seconds / fastest.step_seconds - 1
    return (
        f"{text}; the fastest other way, {_named(fastest)}, would gain {gain:.0%}, less "
        "than an average that is not exact may cost"
    )


def _price(cluster: Cluster, first: Way, ranked: list[Way]) -> str:
    """What is paid for it."""
    if math.isnan(first.distance):
        return "Its gradients are lossy: compare the loss on your task first."
    text = f"Its ranks stay {number(first.distance, 2)} squared updates apart"
    if first.method == "a2cid2":
        other = next(
            way
            for way in ranked
            if way.method == "async"
            and (way.graph, way.comm_rate) == (first.graph, first.comm_rate)
        )
        text += (
            f", {number(other.distance, 2)} without the momentum, which costs "
            f"{_bytes(4 * cluster.config.parameters)} a rank"
        )
    return f"{text}: compare the loss on your task first."


def _overview(ranked: list[Way]) -> str:
    head = (
        "method, graph, rate",
        "step",
        "waiting",
        "exposed",
        "sent",
        "memory",
        "distance",
    )
    first = {way.method: way for way in reversed(ranked)}
    shown = [w for k, w in enumerate(ranked) if k < SHOWN or w is first[w.method]]
    text = table([head, *map(_row, shown)])
    left = len(ranked) - len(shown)
    return f"{text}\n({left} slower or looser ways left out)" if left else text


def _row(way: Way) -> tuple[str, ...]:
    return (
        _named(way),
        _seconds(way.step_seconds),
        _seconds(way.waiting_seconds),
        _seconds(way.exposed_seconds),
        _bytes(way.sent_bytes),
        _bytes(way.memory_bytes),
        "lossy" if math.isnan(way.distance) else number(way.distance, 2),
    )


def _named(way: Way) -> str:
    rate = f", {way.comm_rate:.3g}" if way.comm_rate else ""
    graph = f", {way.graph}" if way.graph else ""
    return f"{way.method}{graph}{rate}"


def _seconds(seconds: float) -> str:
    if seconds < 1e-6:
        return "0"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
