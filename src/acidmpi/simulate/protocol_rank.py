"""One rank's talk in virtual time: what `worker.loop` does, by events instead of polls.

The machine, the demand and the tally are those of real ranks. What differs: a message is
read when it arrives, not when the loop looks up next; give that delay to the latency.
"""

import math
from collections.abc import Callable

from acidmpi.pairing.machine import Machine
from acidmpi.pairing.messages import Kind, Sends
from acidmpi.simulate.network import EventQueue
from acidmpi.worker.demand import Demand
from acidmpi.worker.tally import Tally

BUSY = int(Kind.BUSY)

LEAST_SLEEP_SECONDS = 1e-9
"""A moment that rounding put before the one it was meant for is looked at again."""


class Conversation:
    """Asks, answers and waits for one rank.

    Args:
        machine: the pairing protocol.
        demand: when exchanges are due.
        seconds_to_due: a bound on how long nothing new becomes due.
        tally: what happened.
        events: the clock.
        send: hands messages to the network: `(sends)`.
        matched: told when an exchange may begin on this side: `(peer)`.
    """

    def __init__(
        self,
        machine: Machine,
        demand: Demand,
        seconds_to_due: Callable[[], float],
        tally: Tally,
        events: EventQueue,
        send: Callable[[Sends], None],
        matched: Callable[[int], None],
    ) -> None:
        self.machine = machine
        self.exchanging = False
        """Whether this side has begun the exchange at hand."""
        self._demand = demand
        self._seconds_to_due = seconds_to_due
        self._tally = tally
        self._events = events
        self._send = send
        self._matched = matched
        self._ask_again_seconds = 0.0
        self._free_since = 0.0
        self._wake: float | None = None

    def act(self) -> None:
        """Begin the exchange at hand, or ask for one if it is due, or set the alarm."""
        machine = self.machine
        if machine.matched is not None:
            if not self.exchanging:
                self._begin(machine.matched)
        elif machine.asking is None:
            self._start()

    def hear(self, source: int, kind: int) -> None:
        """A message has arrived."""
        self._send(self.machine.receive(source, kind))
        if kind == BUSY:
            self._be_patient()
        self.act()

    def finish(self, sent_bytes: int, seconds: float) -> None:
        """The exchange at hand is over on this side."""
        machine = self.machine
        assert machine.matched is not None
        if machine.started:
            self._demand.served()
        self._tally.exchanged(machine.matched, sent_bytes, seconds)
        self.exchanging = False
        self._free_since = self._events.now()
        self._send(machine.finish())
        self._be_patient()
        self.act()

    def _begin(self, peer: int) -> None:
        self.exchanging = True
        if self.machine.started:
            self._demand.begun()
        self._tally.matched(peer, self._events.now() - self._free_since)
        self._matched(peer)

    def _start(self) -> None:
        machine, now = self.machine, self._events.now()
        if not self._demand.due():
            self._look_in(self._seconds_to_due())
        elif not machine.can_start:
            return  # it waits for a message (`fifo`)
        elif now < self._ask_again_seconds:
            self._look_in(self._ask_again_seconds - now)
        else:
            self._send(machine.start())
            self.act()  # a schedule's start may find its match waiting

    def _be_patient(self) -> None:
        patience = self.machine.patience()
        if patience:
            pause = patience * self._tally.typical_exchange_seconds
            self._ask_again_seconds = self._events.now() + pause

    def _look_in(self, seconds: float) -> None:
        """Set the alarm, unless it is set for an earlier time."""
        if math.isinf(seconds):
            return
        when = self._events.now() + max(seconds, LEAST_SLEEP_SECONDS)
        if self._wake is None or when < self._wake:
            self._wake = when
            self._events.at(when, self._look, when)

    def _look(self, when: float) -> None:
        if when == self._wake:
            self._wake = None
            self.act()
