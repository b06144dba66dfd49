"""All protocols on larger graphs: random interleavings, every rank retires some day."""

from collections import defaultdict, deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acidmpi.pairing.events import meetings_of
from acidmpi.pairing.fifo import FifoMachine
from acidmpi.pairing.handshake import HandshakeMachine
from acidmpi.pairing.roles import RolesMachine
from acidmpi.pairing.schedule import ScheduleMachine
from acidmpi.topology import make_topology
from acidmpi.topology.roles import active_ranks

MOST_STEPS = 200_000


def handshake(rank, topology, seed):
    weights, generator = topology.edge_weights(rank), np.random.default_rng(seed)
    return HandshakeMachine(rank, topology.neighbours(rank), weights, generator)


def fifo(rank, topology, seed):
    return FifoMachine(rank, topology.neighbours(rank))


def schedule(rank, topology, seed):
    meetings = meetings_of(rank, topology, 1.0, seed)
    return ScheduleMachine(topology.neighbours(rank), meetings)


def roles(rank, topology, seed):
    weights, generator = topology.edge_weights(rank), np.random.default_rng(seed)
    active = bool(active_ranks(topology)[rank])
    return RolesMachine(topology.neighbours(rank), weights, generator, active=active)


class Company:
    """Ranks whose messages wait in channels until chance picks them."""

    def __init__(self, machines, starts, chance):
        self.machines, self.starts, self.chance = machines, starts, chance
        self.channels = defaultdict(deque)
        self.met = defaultdict(list)

    def step(self, early):
        """One possible step; False when there is none."""
        steps = [
            (self.receive, channel)
            for channel, queued in self.channels.items()
            if queued
        ]
        for rank, machine in enumerate(self.machines):
            if machine.matched is not None:
                steps.append((self.finish, rank))
            elif machine.can_start and self.starts[rank]:
                steps.append((self.start, rank))
            elif not self.starts[rank] and not machine.retired:
                steps.append((self.retire, rank))
        if not steps:
            return False
        if self.chance.random() < early:
            steps = [(self.retire, int(self.chance.integers(len(self.machines))))]
        call, argument = steps[self.chance.integers(len(steps))]
        call(argument)
        return True

    def receive(self, channel):
        source, rank = channel
        kind = self.channels[channel].popleft()
        before = self.machines[rank].matched
        self.send(rank, self.machines[rank].receive(source, kind))
        if before is None:
            self.look(rank)
        else:
            assert self.machines[rank].matched == before

    def start(self, rank):
        self.send(rank, self.machines[rank].start())
        self.look(rank)

    def finish(self, rank):
        self.send(rank, self.machines[rank].finish())
        self.look(rank)

    def retire(self, rank):
        before = self.machines[rank].matched
        self.send(rank, self.machines[rank].retire())
        self.starts[rank] = 0
        if before is None:
            self.look(rank)

    def send(self, rank, sends):
        for peer, kind in sends:
            self.channels[rank, peer].append(kind)

    def look(self, rank):
        machine = self.machines[rank]
        if machine.matched is not None:
            self.met[rank, machine.matched].append(machine.started)
            if machine.started and self.starts[rank]:
                self.starts[rank] -= 1


def run_to_the_end(company, early):
    for _ in range(MOST_STEPS):
        if not company.step(early):
            break
    else:
        pytest.fail(f"not over after {MOST_STEPS} steps")
    assert all(machine.settled for machine in company.machines)


@pytest.mark.parametrize("make", [handshake, fifo, schedule])
@given(
    name=st.sampled_from(["ring", "path", "star", "complete", "exponential"]),
    size=st.integers(2, 10),
    early=st.sampled_from([0.0, 0.002, 0.02]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_every_start_is_served_and_matches_agree(make, name, size, early, seed):
    topology = make_topology(name, size)
    machines = [make(rank, topology, seed) for rank in range(size)]
    company = Company(machines, [4] * size, np.random.default_rng(seed))
    run_to_the_end(company, early)
    assert company.starts == [0] * size
    for i, j in topology.edges:
        assert len(company.met[i, j]) == len(company.met[j, i])
        if make is handshake:
            counted = zip(company.met[i, j], company.met[j, i], strict=True)
            assert all(one + other == 1 for one, other in counted)


@given(
    name=st.sampled_from(["ring", "path", "star", "grid"]),
    half=st.integers(1, 5),
    early=st.sampled_from([0.0, 0.002, 0.02]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_active_ranks_are_served_by_passive_ones(name, half, early, seed):
    topology = make_topology(name, 2 * half)
    active = active_ranks(topology)
    machines = [roles(rank, topology, seed) for rank in range(2 * half)]
    starts = [4 * int(asks) for asks in active]
    company = Company(machines, starts, np.random.default_rng(seed))
    run_to_the_end(company, early)
    for i, j in topology.edges:
        one, other = (i, j) if active[i] else (j, i)
        assert all(company.met[one, other])
        assert not any(company.met[other, one])
        assert len(company.met[one, other]) == len(company.met[other, one])
    if not early:
        made = [len(met) for (rank, _), met in company.met.items() if active[rank]]
        assert sum(made) == 4 * active.sum()
