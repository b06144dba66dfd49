"""The handshake: a death, or silence, at every state that a few ranks can reach.

Any rank may die at any state, also while others still learn of an earlier death. A rank
that asks may give up waiting at any state, too. The survivors' graph is the repaired one,
from the moment when a rank hears of the death.
"""

import os
from itertools import combinations

import pytest

from acidmpi.pairing import handshake
from acidmpi.pairing.messages import Kind, Send
from acidmpi.topology import Topology, repaired

GRAPHS = {
    "path-2": (2, [(0, 1)]),
    "path-3": (3, [(0, 1), (1, 2)]),
    "triangle": (3, [(0, 1), (1, 2), (0, 2)]),
    "path-4": (4, [(0, 1), (1, 2), (2, 3)]),
    "ring-4": (4, [(0, 1), (1, 2), (2, 3), (0, 3)]),
    "star-4": (4, [(0, 1), (0, 2), (0, 3)]),
}


class Mortal:
    """Ranks with a number of exchanges due, which may die.

    Args:
        graph: name of the graph before any death.
        deaths: how many may die.
        patient: whether every answer is waited for.
        lasting: whether what was asked for is always still to be had.
    """

    crossing_matches = True
    tied = True

    def __init__(self, graph, deaths=0, *, patient=False, lasting=True):
        size, edges = GRAPHS[graph]
        whole = Topology.equal(size, edges, graph)
        self.patient, self.lasting = patient, lasting
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
        return handshake.State()

    def starts(self, rank, state, left):
        for peer in handshake.candidates(state, self.near(rank, state)):
            yield handshake.start(state, peer)

    def receive(self, rank, state, source, kind):
        return handshake.receive(state, rank, source, kind)

    def finish(self, rank, state):
        return handshake.finish(state)

    def retire(self, rank, state):
        return handshake.retire(state)

    def set_aside(self, rank, state):
        if state.asking is not None and not self.patient:
            yield handshake.set_aside(state)
        if not self.lasting:
            for peer in sorted(state.aside - state.outdated):
                yield handshake.outdate(state, peer), ()

    def remove(self, rank, state, peer):
        return handshake.remove(state, peer)

    def idle(self, state):
        return state.free

    def over(self, state):
        return state.retired and state.free and not (state.aside or state.owing)

    def alone(self, rank, state):
        return not self.near(rank, state)

    def spent(self, left):
        return left - 1

    def essence(self, state, left):
        """Without what nothing will look at any more; the count of starts is `left`."""
        if not left:
            return state._replace(
                started=False, last=None, callers=(), yielded=frozenset()
            )
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
    rules = Mortal(graph, deaths, patient=patient)
    count = explore(rules, due(rules, number), early, deaths)
    print(f"{graph}: {count.states:,} states")
    assert count.ends


@pytest.mark.parametrize(("graph", "deaths"), [("path-2", 1), ("path-3", 0)])
def test_what_is_no_longer_to_be_had_is_called_off(graph, deaths, explore):
    rules = Mortal(graph, deaths, lasting=False)
    count = explore(rules, due(rules, 1), True, deaths)
    print(f"{graph}: {count.states:,} states")


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
    rules = Mortal(graph, deaths, patient=patient)
    count = explore(rules, [starts], False, deaths)
    print(f"{graph} {starts}: {count.states:,} states")


class Sulking(Mortal):
    """Who has gone on leaves alone whoever accepts late."""

    def receive(self, rank, state, source, kind):
        after, sends = super().receive(rank, state, source, kind)
        if source in after.owing:
            after = after._replace(owing=after.owing - {source})
        return after, tuple(send for send in sends if send.kind != Kind.CANCEL)


class Honouring(Mortal):
    """Who has gone on begins the old exchange when it is free, and calls nothing off."""

    def receive(self, rank, state, source, kind):
        if source in state.aside and kind == Kind.ACCEPT:
            state = state._replace(aside=state.aside - {source})
            if state.free:
                state = state._replace(matched=source, started=True)
                return state, ()
            return state._replace(owing=state.owing | {source}), ()
        return super().receive(rank, state, source, kind)

    def finish(self, rank, state):
        after, sends = super().finish(rank, state)
        if after.owing:
            peer = min(after.owing)
            after = after._replace(matched=peer, owing=after.owing - {peer})
        return after, sends


class Impatient(Mortal):
    """Who has begun alone gives it up by itself."""

    def set_aside(self, rank, state):
        yield from super().set_aside(rank, state)
        if state.matched is not None and not state.started:
            yield state._replace(matched=None), ()


class Deaf(Mortal):
    """The late answer of a rank that was set aside is dropped."""

    def receive(self, rank, state, source, kind):
        if source in state.aside and kind in (Kind.ACCEPT, Kind.BUSY):
            return state._replace(aside=state.aside - {source}), ()
        return super().receive(rank, state, source, kind)


class Insistent(Mortal):
    """A rank is asked again before it has answered, or has taken back its part."""

    def starts(self, rank, state, left):
        for peer in self.near(rank, state):
            yield handshake.start(state, peer)


class Stubborn(Mortal):
    """A rank that is told to take back its part goes on waiting."""

    def receive(self, rank, state, source, kind):
        if kind == Kind.CANCEL and state.matched == source:
            return state, (Send(source, Kind.DROPPED),)
        return super().receive(rank, state, source, kind)


class Silent(Mortal):
    """Nobody says that a part was taken back."""

    def receive(self, rank, state, source, kind):
        after, sends = super().receive(rank, state, source, kind)
        return after, tuple(send for send in sends if send.kind != Kind.DROPPED)


class NoCrossing(Mortal):
    """A REQUEST that crosses a question which was set aside is taken for a fresh one."""

    def receive(self, rank, state, source, kind):
        if kind == Kind.REQUEST and source in state.aside:
            fresh = state._replace(aside=state.aside - {source})
            after, sends = super().receive(rank, fresh, source, kind)
            return after._replace(aside=after.aside | {source}), sends
        return super().receive(rank, state, source, kind)


class Unequal(Mortal):
    """A CANCEL that crosses one's own ends whatever exchange is at hand."""

    def receive(self, rank, state, source, kind):
        if kind == Kind.CANCEL and source in state.owing:
            state = state._replace(matched=None, owing=state.owing - {source})
            return state, ()
        return super().receive(rank, state, source, kind)


class Hearing(Mortal):
    """What a dead rank had sent is still taken after the news of its death."""

    def receive(self, rank, state, source, kind):
        gone = state.gone
        after, sends = handshake.receive(
            state._replace(gone=gone - {source}), rank, source, kind
        )
        return after._replace(gone=gone), sends


def forgetting(field, nothing=None):
    """A rank that hears of a death, and leaves one field of its state as it was."""

    class Forgetting(Mortal):
        def remove(self, rank, state, peer):
            after, sends = super().remove(rank, state, peer)
            return after._replace(**{field: getattr(state, field)}), sends

    return Forgetting


STUCK = "waits for ever|no end is left"
TORN = "different exchanges|matches ahead|on one side only|has begun"
ASTRAY = "without a question"


@pytest.mark.parametrize(
    ("planted", "graph", "number", "deaths", "found"),
    [
        (Sulking, "path-3", 1, 0, STUCK),
        (Honouring, "triangle", 1, 0, f"{TORN}|{STUCK}"),
        (Impatient, "path-2", 1, 0, f"{TORN}|{STUCK}"),
        (Deaf, "path-2", 2, 0, STUCK),
        (Insistent, "path-2", 2, 0, f"{ASTRAY}|{TORN}|{STUCK}"),
        (Stubborn, "path-3", 1, 0, f"{TORN}|{STUCK}"),
        (Silent, "path-3", 1, 0, STUCK),
        (NoCrossing, "path-2", 2, 0, f"{ASTRAY}|{STUCK}"),
        (Unequal, "path-4", (0, 1, 1, 0), 0, f"{TORN}|{STUCK}"),
        (Hearing, "path-2", 2, 1, f"{ASTRAY}|{STUCK}"),
        (forgetting("asking"), "path-2", 2, 1, STUCK),
        (forgetting("aside"), "path-2", 2, 1, STUCK),
        (forgetting("owing"), "path-3", 1, 1, STUCK),
        (forgetting("gone"), "path-2", 2, 1, f"{ASTRAY}|{STUCK}"),
    ],
)
def test_a_planted_fault_is_found(
    planted, graph, number, deaths, found, explore, violation
):
    rules = planted(graph, deaths)
    starts = [number] if isinstance(number, tuple) else due(rules, number)
    with pytest.raises(violation, match=found):
        explore(rules, starts, False, deaths)
