"""An explorer of all states that a few ranks can reach, whatever the order of events.

One global state is, for each rank, its *component* (protocol state, starts left, queued
messages) and, for each edge, by how many matches the lower end is ahead of the higher one.
Components are numbered as they turn up, so that a global state is one integer and a whole
generation is expanded by array operations.

A rank may die at any state. What it had sent stays in the inboxes, what is sent to it is
lost, and the news of its death comes to each of the others at any later moment: before,
between or after the dead rank's last messages. A message that the network loses with its
sender is one that comes after the news.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from acidmpi.pairing.messages import Kind

MOST_MOVES = 12


class Violation(AssertionError):
    """A state, or a step, that the protocol promises to exclude."""


class Rules(Protocol):
    """A protocol as the explorer sees it; each step is (new state, messages)."""

    neighbours: tuple[tuple[int, ...], ...]

    def initial(self, rank): ...
    def starts(self, rank, state, left): ...
    def receive(self, rank, state, source, kind): ...
    def finish(self, rank, state): ...
    def retire(self, rank, state): ...
    def set_aside(self, rank, state): ...
    def remove(self, rank, state, peer): ...
    def idle(self, state): ...
    def over(self, state): ...
    def alone(self, rank, state): ...
    def spent(self, left): ...
    def essence(self, state, left): ...

    crossing_matches: bool
    tied: bool
    """Whether an exchange ends on one side only once the other side has begun it."""


class Component(NamedTuple):
    """What one rank is and what is on its way to it."""

    state: Any
    left: Any
    inboxes: tuple[tuple[int, ...], ...]
    news: frozenset[int] = frozenset()
    """Ranks that have died; this one will hear of it."""


DEAD = Component(None, None, ())


class Move(NamedTuple):
    """A step of one rank; `must` says that it will be taken some day."""

    component: Component
    sends: tuple
    matched: int
    must: bool
    finishes: bool = False
    called_off: int = -1
    """Whose match with this rank is over before the peer has begun it."""
    buried: int = -1
    """Whose death this rank has just heard of."""


class Count(NamedTuple):
    """What an exploration has seen."""

    states: int
    steps: int
    ends: int


class Side:
    """Everything known of one rank's components, as tables."""

    def __init__(self, rules, rank, early, capacity):
        self.rules, self.rank, self.early = rules, rank, early
        self.neighbours = rules.neighbours[rank]
        degree = len(self.neighbours)
        self.numbers: dict[Component, int] = {}
        self.components: list[Component] = []
        self.expanded = np.zeros(capacity, bool)
        self.to = np.full((capacity, MOST_MOVES), -1)
        self.match = np.full((capacity, MOST_MOVES), -1)
        self.called_off = np.full((capacity, MOST_MOVES), -1)
        self.buried = np.full((capacity, MOST_MOVES), -1)
        self.send = np.full((capacity, MOST_MOVES, degree), -1, np.int8)
        self.messages = degree * len(Kind)
        columns = self.messages + len(rules.neighbours)
        self.pushed = np.full((capacity, columns), -1)
        self.peer = np.full(capacity, -1)
        self.must = np.zeros(capacity, bool)
        self.finish = np.zeros((capacity, MOST_MOVES), bool)
        self.over = np.zeros(capacity, bool)
        self.dead = self.number(DEAD)
        self.expanded[self.dead] = True
        self.pushed[self.dead] = self.dead

    def number(self, component: Component) -> int:
        known = self.numbers.get(component)
        if known is None:
            known = self.numbers[component] = len(self.components)
            assert known < len(self.to), "too many components for one integer"
            self.components.append(component)
            state = component.state
            if state is None:
                self.over[known] = True
                return known
            self.peer[known] = -1 if state.matched is None else state.matched
            self.over[known] = self.rules.over(state)
        return known

    def expand(self, numbers) -> None:
        """Fill the tables for components that turn up for the first time."""
        present = np.zeros_like(self.expanded)
        present[numbers] = True
        for number in np.flatnonzero(present & ~self.expanded).tolist():
            for k, move in enumerate(self._moves(self.components[number])):
                self.to[number, k] = self.number(move.component)
                self.match[number, k] = move.matched
                self.called_off[number, k] = move.called_off
                self.buried[number, k] = move.buried
                self.must[number] |= move.must and not move.finishes
                self.finish[number, k] = move.finishes
                for peer, kind in move.sends:
                    self.send[number, k, self.neighbours.index(peer)] = kind
            self.expanded[number] = True

    def push(self, numbers, columns):
        """Components after a message has joined an inbox (column = inbox and kind).

        Further columns are the news of each rank's death.
        """
        after = self.pushed[numbers, columns]
        for row in np.flatnonzero(after < 0).tolist():
            number, column = int(numbers[row]), int(columns[row])
            if self.pushed[number, column] < 0:
                self.pushed[number, column] = self.number(
                    self._pushed(self.components[number], column)
                )
            after[row] = self.pushed[number, column]
        return after

    def _pushed(self, component: Component, column: int) -> Component:
        if column >= self.messages:
            news = component.news | {column - self.messages}
            return component._replace(news=news)
        box, kind = divmod(column, len(Kind))
        inboxes = component.inboxes
        grown = replaced(inboxes, box, (*inboxes[box], kind))
        return component._replace(inboxes=grown)

    def _moves(self, component: Component) -> Iterator[Move]:
        rules, rank = self.rules, self.rank
        state, left, inboxes, news = component
        idle = rules.idle(state)
        for peer in sorted(news):
            yield self._remove(component, peer)
        if left and idle and not state.retired:
            for step in rules.starts(rank, state, left):
                yield self._move(component, step)
        if state.matched is not None:
            step = rules.finish(rank, state)
            before = component._replace(state=step[0])
            yield self._move(before, step, again=True)._replace(finishes=True)
        if not state.retired and (self.early or (idle and not left)):
            yield self._move(
                component, rules.retire(rank, state), must=idle and not left
            )
        for step in rules.set_aside(rank, state):
            yield self._move(component, step, must=False)
        for box, inbox in enumerate(inboxes):
            if inbox:
                yield self._receive(component, box)

    def _remove(self, component: Component, peer: int) -> Move:
        state, sends = self.rules.remove(self.rank, component.state, peer)
        left = component.left
        if self.rules.alone(self.rank, state):
            left = type(left)()
        news = component.news - {peer}
        essence = self.rules.essence(state, left)
        after = Component(essence, left, component.inboxes, news)
        return Move(after, sends, -1, True, buried=peer)

    def _receive(self, component: Component, box: int) -> Move:
        state, left, inboxes, news = component
        source, kind = self.neighbours[box], Kind(inboxes[box][0])
        try:
            step = self.rules.receive(self.rank, state, source, kind)
        except RuntimeError as error:
            raise Violation(f"a message without a question: {error}") from error
        if (
            self.rules.crossing_matches
            and state.asking == source
            and kind == Kind.REQUEST
            and step[0].matched != source
        ):
            raise Violation(f"requests crossed without a match: {state}")
        rest = replaced(inboxes, box, inboxes[box][1:])
        return self._move(Component(state, left, rest, news), step)

    def _move(self, before: Component, step, *, must=True, again=False) -> Move:
        state, sends = step
        was, left = before.state, before.left
        matched = -1
        if state.matched is not None and (again or was.matched is None):
            matched = state.matched
            left = self.rules.spent(left) if state.started and left else left
        elif not again and state.matched not in (None, was.matched):
            raise Violation(f"a second exchange: {was} became {state}")
        over = not again and state.matched is None and was.matched is not None
        left = type(left)() if state.retired else left
        essence = self.rules.essence(state, left)
        after = before._replace(state=essence, left=left)
        return Move(after, sends, matched, must, called_off=was.matched if over else -1)


def replaced(row: tuple, place: int, value) -> tuple:
    return (*row[:place], value, *row[place + 1 :])


class Explorer:
    """All reachable states of `rules`.

    Args:
        rules: the protocol on its graph.
        beginnings: what each rank has left to start, for each way to begin.
        early: whether ranks may also retire before that is done.
        deaths: how many ranks may die; the last one alive does not.
    """

    def __init__(self, rules: Rules, beginnings, early: bool, deaths: int = 0) -> None:
        self.deaths = min(deaths, len(rules.neighbours) - 1)
        degrees = [len(row) for row in rules.neighbours]
        edges = [(i, j) for i, row in enumerate(rules.neighbours) for j in row if i < j]
        room = 62 - 2 * len(edges)
        widths = [
            min(17, room * (d + 1) // sum(d + 1 for d in degrees)) for d in degrees
        ]
        self.masks = [(1 << width) - 1 for width in widths]
        self.shifts = [sum(widths[:rank]) for rank in range(len(widths))]
        ghosts = sum(widths)
        self.ahead = {edge: ghosts + 2 * k for k, edge in enumerate(edges)}
        self.ghosts, self.level = ghosts, sum(1 << 2 * k for k in range(len(edges)))
        self.sides = [
            Side(rules, rank, early, mask + 1) for rank, mask in enumerate(self.masks)
        ]
        self.first = np.array(sorted({self._pack(lefts) for lefts in beginnings}))

    def _pack(self, lefts) -> int:
        packed = self.level << self.ghosts
        for side, left, shift in zip(self.sides, lefts, self.shifts, strict=True):
            boxes = ((),) * len(side.neighbours)
            whole = Component(side.rules.initial(side.rank), left, boxes)
            packed += side.number(whole) << shift
        return packed

    def run(self) -> Count:
        """Visit everything; raise `Violation` where a promise is broken."""
        seen = fresh = self.first
        steps, ends = [], []
        while fresh.size:
            found = list(self._successors(fresh))
            ends.append(self._ends(fresh))
            steps += [(fresh[rows], after) for rows, after in found]
            after = np.unique(np.concatenate([a for _, a in found])) if found else fresh
            places = np.minimum(np.searchsorted(seen, after), seen.size - 1)
            fresh = after[seen[places] != after]
            seen = np.sort(np.concatenate([seen, fresh]), kind="stable")
        return self._check_exits(seen, steps, np.concatenate(ends))

    def _successors(self, states):
        for side in self.sides:
            shift, numbers = self.shifts[side.rank], self._numbers(side, states)
            side.expand(numbers)
            for k in range(MOST_MOVES):
                to = side.to[numbers, k]
                kept = side.finish[numbers, k] & ~self._can_finish(side, states)
                rows = np.flatnonzero((to >= 0) & ~kept)
                if rows.size:
                    here = numbers[rows]
                    after = states[rows] + ((to[rows] - here) << shift)
                    self._count_matches(side, side.match[here, k], after)
                    self._uncount(side, side.called_off[here, k], after)
                    self._forget(side, side.buried[here, k], after)
                    self._deliver(side, side.send[here, k], after)
                    yield rows, after
        if self.deaths:
            yield from self._deaths(states)

    def _can_finish(self, side: Side, states):
        """Whether the peer has begun the exchange as well, whatever became of it."""
        if not side.rules.tied:
            return np.ones(states.size, bool)
        peers = side.peer[self._numbers(side, states)]
        can = peers >= 0
        for peer in side.neighbours:
            shift = self.ahead[min(side.rank, peer), max(side.rank, peer)]
            lead = ((states >> shift) & 3) - 1
            waits = lead > 0 if side.rank < peer else lead < 0
            can &= ~((peers == peer) & waits)
        return can

    def _deaths(self, states):
        """Each rank that is alive dies, and all others will hear of it."""
        dead = [self._numbers(side, states) == side.dead for side in self.sides]
        few = np.sum(dead, axis=0) < self.deaths
        for side in self.sides:
            rows = np.flatnonzero(few & ~dead[side.rank])
            if not rows.size:
                continue
            here = self._numbers(side, states[rows])
            after = states[rows] + ((side.dead - here) << self.shifts[side.rank])
            for peer in side.neighbours:
                shift = self.ahead[min(side.rank, peer), max(side.rank, peer)]
                level = (after & ~(3 << shift)) | (1 << shift)
                after = np.where(dead[peer][rows], level, after)
            for other in self.sides:
                if other is not side:
                    numbers = self._numbers(other, after)
                    news = np.full(rows.size, other.messages + side.rank)
                    pushed = other.push(numbers, news) - numbers
                    after = after + (pushed << self.shifts[other.rank])
            yield rows, after

    def _deliver(self, side: Side, kinds, after) -> None:
        for place, peer in enumerate(side.neighbours):
            rows = np.flatnonzero(kinds[:, place] >= 0)
            if rows.size:
                other, shift = self.sides[peer], self.shifts[peer]
                numbers = self._numbers(other, after[rows])
                box = other.neighbours.index(side.rank)
                columns = box * len(Kind) + kinds[rows, place]
                after[rows] += (other.push(numbers, columns) - numbers) << shift

    def _count_matches(self, side: Side, peers, after) -> None:
        for peer in side.neighbours:
            other = self.sides[peer]
            rows = np.flatnonzero(peers == peer)
            if rows.size:
                lower = side.rank < peer
                shift = self.ahead[min(side.rank, peer), max(side.rank, peer)]
                ahead = ((after[rows] >> shift) & 3) + (1 if lower else -1)
                if (ahead < 0).any() or (ahead > 2).any():
                    raise Violation("two matches ahead of the peer")
                back = other.peer[self._numbers(other, after[rows])] == side.rank
                if (ahead[back] != 1).any():
                    raise Violation("matched with each other for different exchanges")
                after[rows] += (1 if lower else -1) << shift

    def _uncount(self, side: Side, peers, after) -> None:
        """Matches that only this side had begun are over."""
        for peer in side.neighbours:
            rows = np.flatnonzero(peers == peer)
            if rows.size:
                sign = 1 if side.rank < peer else -1
                shift = self.ahead[min(side.rank, peer), max(side.rank, peer)]
                lead = sign * (((after[rows] >> shift) & 3) - 1)
                if (lead != 1).any():
                    raise Violation("called off after the peer has begun")
                after[rows] -= sign << shift

    def _forget(self, side: Side, peers, after) -> None:
        """A dead rank will begin nothing more that this side may have begun."""
        for peer in side.neighbours:
            rows = np.flatnonzero(peers == peer)
            if rows.size:
                shift = self.ahead[min(side.rank, peer), max(side.rank, peer)]
                after[rows] = (after[rows] & ~(3 << shift)) | (1 << shift)

    def _ends(self, states):
        """States in which nothing has to happen any more."""
        moving = np.zeros(states.size, bool)
        over = np.ones(states.size, bool)
        for side in self.sides:
            numbers = self._numbers(side, states)
            moving |= side.must[numbers]
            finishing = side.finish[numbers].any(axis=1)
            moving |= finishing & self._can_finish(side, states)
            over &= side.over[numbers]
        ends = states[~moving]
        if not over[~moving].all():
            raise Violation("a rank waits for ever", self._describe(ends))
        if (ends >> self.ghosts != self.level).any():
            raise Violation("a match on one side only", self._describe(ends))
        return ends

    def _numbers(self, side: Side, states):
        return (states >> self.shifts[side.rank]) & self.masks[side.rank]

    def _describe(self, states) -> list[Component]:
        return [s.components[int(self._numbers(s, states)[0])] for s in self.sides]

    def _check_exits(self, seen, steps, ends) -> Count:
        """From every state some end can be reached: no trap of endless retries."""
        size = seen.size
        source = np.concatenate([before for before, _ in steps])
        target = np.concatenate([after for _, after in steps])
        source = np.searchsorted(seen, source).astype(np.int32)
        target = np.searchsorted(seen, target).astype(np.int32)
        root = np.full(ends.size, size, np.int32)
        rows = np.concatenate([target, root])
        columns = np.concatenate([source, np.searchsorted(seen, ends).astype(np.int32)])
        backwards = coo_array(
            (np.ones(rows.size, np.int8), (rows, columns)), (size + 1, size + 1)
        ).tocsr()
        reached = breadth_first_order(backwards, size, return_predecessors=False)
        if reached.size != size + 1:
            raise Violation(
                f"{size + 1 - reached.size} states from which no end is left"
            )
        return Count(size, source.size, ends.size)


@pytest.fixture(scope="session")
def explore() -> Callable[..., Count]:
    """Explore rules from ways to begin.

    `early` lets ranks retire at any moment, `deaths` so many of them die.
    """

    def run(rules: Rules, beginnings, early: bool = False, deaths: int = 0) -> Count:
        return Explorer(rules, beginnings, early, deaths).run()

    return run


@pytest.fixture(scope="session")
def violation() -> type[Violation]:
    return Violation
