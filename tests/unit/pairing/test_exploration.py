"""Every state that a few ranks can reach, in every order that the channels allow.

A rank starts, takes the head of a channel, finishes or retires at any moment, whatever
the others do; a draw goes to every neighbour that it could go to. Even the end of an
exchange is not tied to the peer's, which allows more than real exchanges do.
"""

from itertools import product

import pytest

from acidmpi.pairing import fifo, handshake, roles, schedule
from acidmpi.pairing.messages import Kind

PATH_2 = ((1,), (0,))
PATH_3 = ((1,), (0, 2), (1,))
PATH_4 = ((1,), (0, 2), (1, 3), (2,))
TRIANGLE = ((1, 2), (0, 2), (0, 1))
RING_4 = ((1, 3), (0, 2), (1, 3), (0, 2))
STAR_4 = ((1, 2, 3), (0,), (0,), (0,))


class Lasting:
    """Ranks that do not die and wait for every answer."""

    crossing_matches = True
    tied = False

    def __init__(self, neighbours):
        self.neighbours = neighbours

    def idle(self, state):
        return state.matched is None and state.asking is None

    def over(self, state):
        return state.retired and self.idle(state)

    def set_aside(self, rank, state):
        return ()


class Counted(Lasting):
    """Ranks with a number of exchanges due."""

    def spent(self, left):
        return left - 1

    def essence(self, state, left):
        return state


class Handshake(Counted):
    def initial(self, rank):
        return handshake.State()

    def starts(self, rank, state, left):
        for peer in handshake.candidates(state, self.neighbours[rank]):
            yield handshake.start(state, peer)

    def receive(self, rank, state, source, kind):
        return handshake.receive(state, rank, source, kind)

    def finish(self, rank, state):
        return handshake.finish(state)

    def retire(self, rank, state):
        return handshake.retire(state)

    def essence(self, state, left):
        """Without what nothing will look at any more; the count of starts is `left`."""
        if not left:
            return handshake.State(state.matched, False, state.asking, state.retired)
        if state.matched is None:
            return state
        return state._replace(
            started=False,
            last=None,
            callers=tuple(peer for peer in state.callers if peer != state.matched),
        )


class Fifo(Counted):
    def initial(self, rank):
        return fifo.State()

    def starts(self, rank, state, left):
        if not state.waiting:
            yield fifo.start(state, self.neighbours[rank])

    def receive(self, rank, state, source, kind):
        return fifo.receive(state, rank, self.neighbours[rank], source, kind)

    def finish(self, rank, state):
        return fifo.finish(state)

    def retire(self, rank, state):
        return fifo.retire(state, self.neighbours[rank])


class Roles(Counted):
    """Ranks of even number ask, the others answer."""

    def initial(self, rank):
        return roles.State()

    def starts(self, rank, state, left):
        for peer in self.neighbours[rank]:
            yield roles.start(state, peer)

    def receive(self, rank, state, source, kind):
        return roles.receive(state, rank % 2 == 0, source, kind)

    def finish(self, rank, state):
        return roles.finish(state)

    def retire(self, rank, state):
        return roles.retire(state)


class Schedule(Lasting):
    """Ranks with a list of peers to meet."""

    def initial(self, rank):
        return schedule.State()

    def starts(self, rank, state, left):
        yield schedule.start(state, left[0])

    def receive(self, rank, state, source, kind):
        return schedule.receive(state, source, kind)

    def finish(self, rank, state):
        return schedule.finish(state)

    def retire(self, rank, state):
        return schedule.retire(state)

    def spent(self, left):
        return left[1:]

    def essence(self, state, left):
        return state


def due(number, neighbours):
    """One way to begin: every rank is due `number` exchanges."""
    return [(number,) * len(neighbours)]


def schedules(length, neighbours):
    """All lists of `length` events, as each rank sees them."""
    ranks = range(len(neighbours))
    edges = [(i, j) for i in ranks for j in neighbours[i] if i < j]
    for events in product(edges, repeat=length):
        yield tuple(
            tuple(sum(event) - rank for event in events if rank in event)
            for rank in ranks
        )


def due_where_even(number, neighbours):
    """One way to begin: active ranks are due `number` exchanges, passive ones none."""
    return [tuple(number if rank % 2 == 0 else 0 for rank in range(len(neighbours)))]


@pytest.fixture
def show(capsys, request):
    """Print what an exploration has seen, past the capture."""

    def line(count):
        with capsys.disabled():
            print(
                f"\n{request.node.name}: {count.states:,} states, {count.steps:,} steps"
            )

    return line


GRAPHS = {
    "path-2": PATH_2,
    "path-3": PATH_3,
    "path-4": PATH_4,
    "triangle": TRIANGLE,
    "ring-4": RING_4,
    "star-4": STAR_4,
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_handshake_two_exchanges_a_rank(graph, explore, show):
    neighbours = GRAPHS[graph]
    show(explore(Handshake(neighbours), due(2, neighbours)))


@pytest.mark.parametrize(
    ("graph", "number"),
    [("path-2", 3), ("path-3", 2), ("triangle", 2), ("path-4", 1), ("ring-4", 1)],
)
def test_handshake_retiring_at_any_moment(graph, number, explore, show):
    neighbours = GRAPHS[graph]
    show(explore(Handshake(neighbours), due(number, neighbours), early=True))


@pytest.mark.parametrize(
    ("graph", "number"),
    [("path-2", 3), ("path-3", 2), ("path-4", 2), ("triangle", 2), ("ring-4", 1)],
)
def test_fifo(graph, number, explore, show):
    neighbours = GRAPHS[graph]
    show(explore(Fifo(neighbours), due(number, neighbours)))


@pytest.mark.parametrize(
    ("graph", "number"), [("path-2", 3), ("path-3", 2), ("triangle", 1), ("star-4", 1)]
)
def test_fifo_retiring_at_any_moment(graph, number, explore, show):
    neighbours = GRAPHS[graph]
    show(explore(Fifo(neighbours), due(number, neighbours), early=True))


@pytest.mark.parametrize("early", [False, True], ids=["", "retiring"])
@pytest.mark.parametrize(
    ("neighbours", "number"),
    [(PATH_2, 3), (PATH_3, 3), (PATH_4, 2), (RING_4, 2)],
    ids=["path-2", "path-3", "path-4", "ring-4"],
)
def test_roles(neighbours, number, early, explore, show):
    show(explore(Roles(neighbours), due_where_even(number, neighbours), early=early))


@pytest.mark.parametrize("graph", GRAPHS)
def test_schedule_all_lists_retiring_at_any_moment(graph, explore, show):
    neighbours = GRAPHS[graph]
    show(explore(Schedule(neighbours), schedules(4, neighbours), early=True))


class LostBusy(Handshake):
    """A busy rank that does not answer."""

    def receive(self, rank, state, source, kind):
        state, sends = super().receive(rank, state, source, kind)
        return state, tuple(send for send in sends if send.kind != Kind.BUSY)


class DoubleAccept(Handshake):
    """A matched rank that accepts as if it were free."""

    def receive(self, rank, state, source, kind):
        free = state._replace(matched=None, started=False)
        if kind == Kind.REQUEST and state.matched is not None:
            return state, super().receive(rank, free, source, kind)[1]
        return super().receive(rank, state, source, kind)


class NoCrossing(Handshake):
    """A rank that asks is busy even for the one whom it asks."""

    def receive(self, rank, state, source, kind):
        if kind == Kind.REQUEST and state.asking == source:
            busy, sends = super().receive(
                rank, state._replace(asking=rank), source, kind
            )
            return busy._replace(asking=source), sends
        return super().receive(rank, state, source, kind)


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        (LostBusy, "waits for ever"),
        (DoubleAccept, "different exchanges|two matches ahead|on one side only"),
        (NoCrossing, "crossed without a match"),
    ],
)
@pytest.mark.parametrize("graph", ["path-2", "path-3"])
def test_a_planted_fault_is_found(planted, found, graph, explore, violation):
    neighbours = GRAPHS[graph]
    with pytest.raises(violation, match=found):
        explore(planted(neighbours), due(2, neighbours))


class ForgottenRefusal(Fifo):
    """A rank that refuses without remembering whom."""

    def receive(self, rank, state, source, kind):
        after, sends = super().receive(rank, state, source, kind)
        if kind == Kind.REQUEST and after.matched == state.matched:
            after = after._replace(known=state.known)
        return after, sends


class ForgottenRequest(Schedule):
    """A rank that retires without a look at the requests it has kept."""

    def retire(self, rank, state):
        return state._replace(retired=True), ()


class NoQueue(Roles):
    """A passive rank that forgets who asks while it is in an exchange."""

    def receive(self, rank, state, source, kind):
        if kind == Kind.REQUEST and state.matched is not None:
            return state, ()
        return super().receive(rank, state, source, kind)


class TwoAtOnce(Roles):
    """A passive rank that accepts all who ask."""

    def receive(self, rank, state, source, kind):
        if kind == Kind.REQUEST:
            return roles.receive(roles.State(), False, source, kind)
        return super().receive(rank, state, source, kind)


class GoneHome(Roles):
    """A passive rank that answers nobody any more once it has retired."""

    def receive(self, rank, state, source, kind):
        if kind == Kind.REQUEST and state.retired:
            return state, ()
        return super().receive(rank, state, source, kind)


class BothAsk(Roles):
    """Passive ranks that ask, too."""

    def receive(self, rank, state, source, kind):
        return roles.receive(state, False, source, kind)


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        (NoQueue, "waits for ever"),
        (TwoAtOnce, "second exchange|two matches ahead"),
        (GoneHome, "waits for ever"),
        (BothAsk, "without a question"),
    ],
)
def test_a_planted_fault_of_roles_is_found(planted, found, explore, violation):
    ways = due if planted is BothAsk else due_where_even
    with pytest.raises(violation, match=found):
        explore(planted(RING_4), ways(1, RING_4), early=True)


@pytest.mark.parametrize("planted", [ForgottenRefusal, ForgottenRequest])
def test_a_planted_fault_of_the_others_is_found(planted, explore, violation):
    ways = due(2, PATH_3) if planted is ForgottenRefusal else schedules(3, PATH_3)
    with pytest.raises(violation, match=r"waits for ever|without a question"):
        explore(planted(PATH_3), ways, early=True)
