"""The confirmed handshake: a death, or silence, at every state that a few ranks can reach.

Any rank may die at any state, also while others still learn of an earlier death. A rank
that asks may give up waiting at any state, too. The survivors' graph is the repaired one,
from the moment when a rank hears of the death.
"""

import os
from itertools import combinations

import pytest

from acidmpi.pairing import confirmed
from acidmpi.pairing.messages import Kind
from acidmpi.topology import Topology, repaired

GRAPHS = {
    "path-2": (2, [(0, 1)]),
    "path-3": (3, [(0, 1), (1, 2)]),
    "triangle": (3, [(0, 1), (1, 2), (0, 2)]),
    "path-4": (4, [(0, 1), (1, 2), (2, 3)]),
    "ring-4": (4, [(0, 1), (1, 2), (2, 3), (0, 3)]),
    "star-4": (4, [(0, 1), (0, 2), (0, 3)]),
}


class Confirmed:
    """Ranks with a number of exchanges due, which may die.

    Args:
        graph: name of the graph before any death.
        deaths: how many may die.
        patient: whether every answer is waited for.
    """

    crossing_matches = False
    tied = True

    def __init__(self, graph, deaths=0, *, patient=False):
        size, edges = GRAPHS[graph]
        whole = Topology.equal(size, edges, graph)
        self.patient = patient
        self.graphs = {
            frozenset(dead): repaired(whole, dead)
            for number in range(min(deaths, size - 1) + 1)
            for dead in combinations(range(size), number)
        }
        channels = sorted(set().union(*(g.edges for g in self.graphs.values())))
        union = Topology.equal(size, channels, "channels")
        self.neighbours = tuple(union.neighbours(rank) for rank in range(size))

    def near(self, rank, state):
        return self.graphs[state.gone].neighbours(rank)

    def initial(self, rank):
        return confirmed.State()

    def starts(self, rank, state, left):
        for peer in confirmed.candidates(state, self.near(rank, state)):
            yield confirmed.start(state, peer)

    def receive(self, rank, state, source, kind):
        return confirmed.receive(state, rank, source, kind)

    def finish(self, rank, state):
        return confirmed.finish(state)

    def retire(self, rank, state):
        return confirmed.retire(state)

    def set_aside(self, rank, state):
        waits = state.asking is not None and not self.patient
        return (confirmed.set_aside(state),) if waits else ()

    def remove(self, rank, state, peer):
        return confirmed.remove(state, peer)

    def idle(self, state):
        return state.free

    def over(self, state):
        return state.retired and state.free and not state.aside

    def alone(self, rank, state):
        return not self.near(rank, state)

    def spent(self, left):
        return left - 1

    def essence(self, state, left):
        """Without what nothing will look at any more; the count of starts is `left`."""
        if not left:
            return state._replace(started=False, last=None, callers=())
        if state.matched is None:
            return state
        callers = tuple(peer for peer in state.callers if peer != state.matched)
        return state._replace(started=False, last=None, callers=callers)


def due(rules, number):
    return [(number,) * len(rules.neighbours)]


EXPLORED = [
    # graph, starts of each rank, deaths, retiring at any moment, nobody is set aside
    ("path-2", 3, 1, True, False),
    ("path-3", 1, 2, True, False),
    ("path-3", 2, 2, False, True),
    ("path-3", 2, 0, False, False),
    ("triangle", 1, 2, False, True),
    ("path-4", 1, 1, False, True),
]


@pytest.mark.parametrize(("graph", "number", "deaths", "early", "patient"), EXPLORED)
def test_nobody_waits_for_ever(graph, number, deaths, early, patient, explore):
    rules = Confirmed(graph, deaths, patient=patient)
    count = explore(rules, due(rules, number), early, deaths)
    assert count.ends > 1


LARGE = [
    ("path-3", (2, 2, 2), 1, False),
    ("triangle", (1, 1, 1), 0, False),
    ("triangle", (1, 1, 1), 1, False),
    ("path-4", (0, 1, 1, 0), 2, True),
    ("path-4", (0, 1, 1, 0), 1, False),
    ("ring-4", (1, 0, 1, 0), 2, True),
]


@pytest.mark.skipif("ACIDMPI_LARGE" not in os.environ, reason="takes minutes")
@pytest.mark.parametrize(("graph", "starts", "deaths", "patient"), LARGE)
def test_nobody_waits_for_ever_in_larger_explorations(
    graph, starts, deaths, patient, explore
):
    rules = Confirmed(graph, deaths, patient=patient)
    count = explore(rules, [starts], False, deaths)
    print(f"{graph} {starts}: {count.states:,} states")


class Plain(Confirmed):
    """Whoever accepts is matched at once, as if the question could not be old."""

    def receive(self, rank, state, source, kind):
        if kind == Kind.CONFIRM:
            return state, ()
        after, sends = super().receive(rank, state, source, kind)
        if after.promised is not None:
            after = after._replace(matched=source, promised=None, callers=())
        return after, sends


class Deaf(Confirmed):
    """The late answer of a rank that was set aside is dropped."""

    def receive(self, rank, state, source, kind):
        if source in state.aside and kind in (Kind.ACCEPT, Kind.BUSY):
            return state._replace(aside=state.aside - {source}), ()
        return super().receive(rank, state, source, kind)


class Impatient(Confirmed):
    """Who is promised gives up waiting, too."""

    def set_aside(self, rank, state):
        if state.promised is not None:
            return ((state._replace(promised=None), ()),)
        return super().set_aside(rank, state)

    def receive(self, rank, state, source, kind):
        if kind in (Kind.CONFIRM, Kind.CANCEL) and state.promised != source:
            return state, ()
        return super().receive(rank, state, source, kind)


class Insistent(Confirmed):
    """A rank that was set aside is asked again before it has answered."""

    def starts(self, rank, state, left):
        for peer in self.near(rank, state):
            yield confirmed.start(state, peer)


class TwoLeaders(Confirmed):
    """A crossing does not count when its question was set aside."""

    def receive(self, rank, state, source, kind):
        after, sends = super().receive(rank, state, source, kind)
        if kind == Kind.REQUEST and source in state.aside:
            after = after._replace(yielded=state.yielded)
        return after, sends


class NoCrossing(Confirmed):
    """A REQUEST that crosses a question which was set aside is taken for a fresh one."""

    def receive(self, rank, state, source, kind):
        if kind == Kind.REQUEST and source in state.aside:
            fresh = state._replace(aside=state.aside - {source})
            after, sends = super().receive(rank, fresh, source, kind)
            return after._replace(aside=after.aside | {source}), sends
        return super().receive(rank, state, source, kind)


class Hearing(Confirmed):
    """What a dead rank had sent is still taken after the news of its death."""

    def receive(self, rank, state, source, kind):
        gone = state.gone
        after, sends = confirmed.receive(
            state._replace(gone=gone - {source}), rank, source, kind
        )
        return after._replace(gone=gone), sends


def forgetting(field, nothing=None):
    """A rank that hears of a death, and leaves one field of its state as it was."""

    class Forgetting(Confirmed):
        def remove(self, rank, state, peer):
            after, sends = super().remove(rank, state, peer)
            return after._replace(**{field: getattr(state, field)}), sends

    return Forgetting


STUCK = "waits for ever|no end is left"
TORN = "different exchanges|matches ahead|on one side only"
ASTRAY = "without a question"


@pytest.mark.parametrize(
    ("planted", "graph", "number", "deaths", "found"),
    [
        (Plain, "path-3", 1, 0, ASTRAY),
        (Impatient, "path-2", 2, 0, f"{TORN}|{STUCK}"),
        (Deaf, "path-2", 2, 0, STUCK),
        (Insistent, "path-2", 2, 0, f"{ASTRAY}|{STUCK}"),
        (TwoLeaders, "path-2", 2, 0, f"{ASTRAY}|{STUCK}"),
        (NoCrossing, "path-2", 2, 0, f"{ASTRAY}|{STUCK}"),
        (Hearing, "path-2", 2, 1, f"{ASTRAY}|{STUCK}"),
        (forgetting("asking"), "path-2", 2, 1, STUCK),
        (forgetting("promised"), "path-2", 2, 1, STUCK),
        (forgetting("aside"), "path-2", 2, 1, STUCK),
        (forgetting("gone"), "path-2", 2, 1, f"{ASTRAY}|{STUCK}"),
    ],
)
def test_a_planted_fault_is_found(
    planted, graph, number, deaths, found, explore, violation
):
    rules = planted(graph, deaths)
    with pytest.raises(violation, match=found):
        explore(rules, due(rules, number), False, deaths)
