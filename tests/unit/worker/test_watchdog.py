"""Stalls are noticed by whoever waits, without the help of the rank that stands still."""

import random
from dataclasses import replace

import numpy as np
import pytest

from acidmpi.clocks import ManualClock
from acidmpi.pairing.handshake import HandshakeMachine
from acidmpi.progress.limits import Limits
from acidmpi.telemetry.stalls import Report, Wait
from acidmpi.worker.exchange import Exchanger
from acidmpi.worker.watchdog import Watchdog


class Ranks:
    """Watchdogs that talk to one another; some ranks may stand still."""

    def __init__(self, size, deadline=300.0):
        self.clock, self.size = ManualClock(100.0), size
        self.waits = dict.fromkeys(range(size), ())
        self.stopped, self.shown, self.sent = set(), [], 0
        self.age = 0.5
        self.dogs = [self._dog(rank, deadline) for rank in range(size)]
        self.queues = {rank: [] for rank in range(size)}

    def _dog(self, rank, deadline):
        def report(now):
            waits = [Wait(k, p, 0, now - since) for k, p, since in self.waits[rank]]
            return Report(rank, 0, 0.0, tuple(waits))

        def tell_all(text):
            self.sent += 1
            for other in range(self.size):
                if other != rank:
                    self.queues[other].append((rank, text))

        dog = Watchdog(rank, self.size, Limits(deadline), self.clock, report, tell_all)
        dog.tell = lambda picture: self.shown.append((self.clock.now() - 100, picture))
        return dog

    def run(self, seconds, step=0.05):
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            self.clock.advance(step)
            for rank, dog in enumerate(self.dogs):
                if rank in self.stopped:
                    continue
                for source, text in self.queues[rank]:
                    dog.heard(source, 0)
                    dog.hear(source, text)
                self.queues[rank].clear()
                if self.age < 1.0:
                    dog.heard_all(self.clock.now())
                dog.poll(self.clock.now(), self.age)


def test_nothing_is_said_while_nothing_is_late():
    ranks = Ranks(4)
    ranks.run(60)
    assert (ranks.sent, ranks.shown) == (0, [])


@pytest.mark.parametrize("stopped", [0, 2])
def test_a_rank_that_stands_still_is_shown_by_the_lowest_that_does_not(stopped):
    ranks = Ranks(4)
    ranks.run(5)
    ranks.stopped, ranks.age = {stopped}, 100.0
    other = (stopped + 1) % 4
    ranks.waits[other] = [("answer", stopped, ranks.clock.now())]
    ranks.run(30)
    moments, pictures = zip(*ranks.shown, strict=True)
    assert {picture.seen_by for picture in pictures} == {0 if stopped else 1}
    assert 5 + 10 <= moments[0] <= 5 + 12
    assert pictures[0].roots == (stopped,)
    assert [rank for rank, _ in pictures[0].silent] == [stopped]
    assert len(moments) <= 3, "each picture waits longer for the next"


def test_a_pair_that_waits_for_each_other_is_seen_while_heartbeats_go_on():
    ranks = Ranks(4)
    now = ranks.clock.now()
    ranks.waits[2], ranks.waits[3] = [("chunk", 3, now)], [("chunk", 2, now)]
    ranks.run(15)
    _, picture = ranks.shown[0]
    assert picture.seen_by == 0
    assert picture.silent == ()
    assert picture.cycles == ((2, 3),)


def test_when_it_is_over_all_are_quiet_again():
    ranks = Ranks(3)
    ranks.stopped, ranks.age = {2}, 100.0
    ranks.run(20)
    assert ranks.dogs[0].stalled
    ranks.stopped, ranks.age = set(), 0.5
    ranks.run(5)
    sent = ranks.sent
    ranks.run(60)
    assert ranks.sent == sent
    assert not any(dog.stalled for dog in ranks.dogs)
    assert [dog.stalls for dog in ranks.dogs] == [1, 1, 0]


def test_the_rank_that_stood_still_does_not_take_its_own_sleep_for_others_silence():
    ranks = Ranks(3)
    ranks.run(5)
    ranks.stopped, ranks.age = {2}, 100.0
    ranks.waits[2] = [("answer", 1, ranks.clock.now())]
    ranks.run(40)
    ranks.stopped, ranks.age, before = set(), 0.5, len(ranks.shown)
    ranks.run(1)
    assert ranks.dogs[2].stalls == 0
    assert len(ranks.shown) == before


def test_a_late_heartbeat_makes_ranks_tell_their_counts_before_it_is_a_stall():
    ranks = Ranks(3)
    ranks.age = 9.0
    ranks.run(3)
    assert 3 * 4 <= ranks.sent <= 3 * 7
    assert ranks.shown == []


def test_the_dead_surprise_nobody():
    ranks = Ranks(4)
    ranks.run(5)
    ranks.stopped, ranks.age = {0, 2}, 100.0
    for dog in ranks.dogs:
        dog.dead = {0}
    ranks.run(20)
    assert ranks.shown[0][1].seen_by == 1
    assert [rank for rank, _ in ranks.shown[0][1].silent] == [2]


def test_one_rank_alone_never_barks():
    ranks = Ranks(1)
    ranks.age = 100.0
    ranks.run(60)
    assert (ranks.sent, ranks.shown) == (0, [])


# With everything of a rank but MPI.


@pytest.fixture
def stopping(fleet):
    """Four ranks on a ring, one of which can be stopped and continued."""
    ships = fleet(4, deadline=300.0)
    stopped, advance = set(), ships.advance

    def unless_stopped(one):
        if one.rank not in stopped:
            advance(one)

    ships.advance = unless_stopped
    return ships, stopped


def exchanges(ships):
    return [one.tally.exchanges for one in ships.ranks]


def free(one):
    machine = one.machine
    return machine.matched is None and machine.asking is None


def test_others_go_on_without_a_rank_that_is_stopped_and_use_it_again(stopping):
    ships, stopped = stopping
    ships.run(20)
    while not all(map(free, ships.ranks)):
        ships.run(0.02)
    stopped.add(2)
    before = exchanges(ships)
    ships.run(60)
    made = [now - then for now, then in zip(exchanges(ships), before, strict=True)]
    assert made[2] == 0
    assert min(made[0], made[1], made[3]) > 25
    assert ships.ranks[1].tally.set_aside + ships.ranks[3].tally.set_aside >= 2
    assert ships.ranks[0].machine.aside == frozenset()
    stopped.clear()
    before = exchanges(ships)
    ships.run(60)
    made = [now - then for now, then in zip(exchanges(ships), before, strict=True)]
    assert min(made) > 25
    assert all(one.machine.aside == frozenset() for one in ships.ranks)
    ships.retire()
    ships.run(30)
    assert ships.ended


def stop_and_go(ships, stopped, chance):
    """Ranks stop and go on at random; then all end."""
    for _ in range(80):
        stopped ^= {chance.randrange(4)}
        ships.run(chance.uniform(0.2, 3.0), chance=chance)
    stopped.clear()
    ships.retire()
    ships.run(60)


@pytest.mark.parametrize("seed", range(5))
def test_what_was_begun_in_vain_is_taken_back_and_the_mean_stays(stopping, seed):
    ships, stopped = stopping
    mean = ships.mean
    stop_and_go(ships, stopped, random.Random(seed))
    assert ships.ended
    assert sum(one.tally.called_off for one in ships.ranks) > 0
    assert not any(ships.hub.sent.values()), "all that was withdrawn is drained"
    np.testing.assert_allclose(ships.mean, mean, rtol=0, atol=1e-12)


def test_planted_fault_what_was_sent_in_vain_would_be_taken_for_the_next(
    stopping, monkeypatch
):
    monkeypatch.setattr(Exchanger, "drain", lambda *_: None)
    with pytest.raises((AssertionError, RuntimeError)):
        test_what_was_begun_in_vain_is_taken_back_and_the_mean_stays(stopping, 0)


def test_totals_are_known_while_a_stopped_rank_holds_up_the_heartbeat(stopping):
    ships, stopped = stopping
    ships.run(5)
    stopped.add(2)
    for _ in range(100):
        ships.ranks[1].ledger.count_gradient(None, 1)
    ships.ranks[0].wire._post[0].clear()
    ships.run(10)
    assert ships.ranks[3].ledger.total_gradients == 100, "3 and 1 are no neighbours"


def test_planted_fault_without_setting_aside_they_would_wait(fleet, monkeypatch):
    monkeypatch.setattr(HandshakeMachine, "can_set_aside", False)
    ships = fleet(4, deadline=300.0)
    ships.run(20)
    advance = ships.advance
    ships.advance = lambda one: None if one.rank == 2 else advance(one)
    ships.run(20)
    before = exchanges(ships)
    ships.run(60)
    assert exchanges(ships) == before


def test_a_slow_rank_holds_up_its_own_exchanges_only(stopping):
    """It looks ten times less often than the others."""
    ships, _ = stopping
    ships.run(20)
    before, looks, advance = exchanges(ships), [0], ships.advance

    def slowly(one):
        looks[0] += one.rank == 2
        if one.rank != 2 or looks[0] % 10 == 0:
            advance(one)

    ships.advance = slowly
    ships.run(60)
    made = [now - then for now, then in zip(exchanges(ships), before, strict=True)]
    assert min(made[0], made[1], made[3]) > 40
    assert made[2] > 10
    assert sum(one.tally.set_aside for one in ships.ranks) == 0, "slow is not silent"


def test_a_program_without_more_reads_it_in_its_log(caplog):
    ranks = Ranks(2)
    fresh = Watchdog(0, 2, Limits(1.0), ranks.clock, lambda now: None, print)
    ranks.dogs[0].tell = fresh.tell
    ranks.stopped, ranks.age = {1}, 100.0
    ranks.run(15)
    assert "all of it comes from rank 1" in caplog.records[0].getMessage()


# Faults that the tests above must find.


def test_reports_that_always_call_would_never_end(monkeypatch):
    own = Watchdog._own
    monkeypatch.setattr(
        Watchdog,
        "_own",
        lambda self, now, late: replace(own(self, now, late), calls=True),
    )
    with pytest.raises(AssertionError):
        test_when_it_is_over_all_are_quiet_again()


def test_own_sleep_would_be_taken_for_silence(monkeypatch):
    monkeypatch.setattr(Watchdog, "_notice_own_absence", lambda self, now: None)
    with pytest.raises(AssertionError):
        test_the_rank_that_stood_still_does_not_take_its_own_sleep_for_others_silence()


def test_without_heartbeats_as_news_silence_would_count_from_the_start(monkeypatch):
    monkeypatch.setattr(Watchdog, "heard_all", lambda self, now: None)
    with pytest.raises(AssertionError):
        test_a_rank_that_stands_still_is_shown_by_the_lowest_that_does_not(2)


def test_without_reports_totals_would_not_be_known(stopping, monkeypatch):
    monkeypatch.setattr(Watchdog, "poll", lambda self, now, age: False)
    with pytest.raises(AssertionError):
        test_totals_are_known_while_a_stopped_rank_holds_up_the_heartbeat(stopping)


def test_limits_grow_with_what_is_measured_and_reach_every_wait(fleet):
    ships = fleet(2, deadline=5.0)
    ships.run(5)
    one = ships.ranks[0]
    assert one.exchanger.deadline_seconds == 5.0
    assert one.pulse.heartbeat._deadline.seconds == 5.0
    one.loop.limits.exchanges.seconds = 1.0
    one.loop.limits.rounds.seconds = 10.0
    ships.run(0.6)
    assert 25.0 < one.exchanger.deadline_seconds <= 32.0
    assert 64.0 < one.pulse.heartbeat._deadline.seconds <= 80.0
