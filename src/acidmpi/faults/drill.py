"""The faults of one rank: which function is replaced by which.

Every event is counted by the one thread in which it happens, so no lock is needed.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from acidmpi.errors import ConfigError
from acidmpi.faults import actions
from acidmpi.faults.messages import LateTransport, LateWire
from acidmpi.faults.plan import Fault, Plan, Span

P = ParamSpec("P")
R = TypeVar("R")

ELSEWHERE = ("delay", "nan")
"""Actions that are carried out where the message or the gradient is."""


class Drill:
    """What is to go wrong on one rank; false when nothing is.

    Args:
        plan: the faults of all ranks.
        rank: this one.
        size: number of ranks.
        seed: of everything that the plan leaves to chance; the same on all ranks.

    Raises:
        ConfigError: the plan names a rank that there is not.
    """

    def __init__(self, plan: Plan, rank: int, size: int, seed: int = 0) -> None:
        self._rank = rank
        self._chance = random.Random(f"{seed} {rank}")
        self._seen: Counter[str] = Counter()
        self._before: dict[str, float] = {}
        self._faults = [
            _fixed(fault, self._chance)
            for index, fault in enumerate(plan.faults)
            if rank in _ranks_of(fault, size, random.Random(f"{seed} fault {index}"))
        ]

    def __bool__(self) -> bool:
        return bool(self._faults)

    def start(self) -> None:
        """Begin to count seconds."""
        for fault in self._of("seconds"):
            timer = threading.Timer(fault.when.low, self._do, (fault, "that moment"))
            timer.daemon = True
            timer.start()

    def reach(self, event: str) -> None:
        """`event` is about to happen: do what is planned for it, now.

        Raises:
            PlannedFault: an error was ordered.
        OSError: a full disk was.
        """
        self._seen[event] += 1
        number = self._seen[event]
        for fault in self._of(event):
            if number in fault.when and fault.action not in ELSEWHERE:
                self._do(fault, f"{event} {number}")
        self._before[event] = time.perf_counter()

    def begin(self, event: str) -> None:
        """What `slow` makes longer begins now, not with the event before."""
        self._before[event] = time.perf_counter()

    def phase(self, name: str) -> None:
        """This part of the start is about to begin."""
        for fault in self._of("start"):
            if fault.phase == name:
                self._do(fault, f"start:{name}")

    def hook(self, event: str, function: Callable[P, R]) -> Callable[P, R]:
        """`function`, preceded by the faults at `event`; itself where none is planned."""
        if all(fault.action in ELSEWHERE for fault in self._of(event)):
            return function

        @wraps(function)
        def hooked(*args: P.args, **kwargs: P.kwargs) -> R:
            self.reach(event)
            return function(*args, **kwargs)

        return hooked

    def attach(self, owner: Any, method: str, event: str) -> None:
        """Replace `owner`'s method by its hook, if a fault is planned there."""
        function = getattr(owner, method)
        hooked = self.hook(event, function)
        if hooked is not function:
            setattr(owner, method, hooked)

    def transport(self, transport: Any) -> Any:
        """`transport`, whose chunks come late where that is planned."""
        late = [f for f in self._of("chunk") if f.action == "delay"]
        return LateTransport(transport, self._delays(late)) if late else transport

    def wire(self, wire: Any) -> Any:
        """`wire`, whose messages leave late where that is planned."""
        late = [f for f in self._of("message") if f.action == "delay"]
        return LateWire(wire, self._delays(late)) if late else wire

    def spoil_result(
        self, gradient: Callable[P, Any], number: Callable[[], int]
    ) -> Callable[P, Any]:
        """`gradient`, whose result holds NaN where planned; itself without a plan.

        Args:
            gradient: returns an array.
            number: tells which gradient of this rank it is.
        """
        if not self.plans("gradient", "nan"):
            return gradient

        @wraps(gradient)
        def spoilt(*args: P.args, **kwargs: P.kwargs) -> Any:
            result = gradient(*args, **kwargs)
            self._spoil(result, number())
            return result

        return spoilt

    def spoil_before(
        self,
        owner: Any,
        method: str,
        array: Callable[[], Any],
        number: Callable[[], int],
    ) -> None:
        """Put NaN into `array()` before `owner`'s method looks at it, where planned."""
        if not self.plans("gradient", "nan"):
            return
        function = getattr(owner, method)

        def spoilt() -> Any:
            self._spoil(array(), number())
            return function()

        setattr(owner, method, spoilt)

    def plans(self, event: str, action: str = "") -> bool:
        """Whether something (or this action) is planned at `event`."""
        return any(action in ("", fault.action) for fault in self._of(event))

    def _spoil(self, array: Any, gradient: int) -> None:
        for fault in self._of("gradient"):
            if fault.action == "nan" and gradient in fault.when:
                self._do(fault, f"gradient {gradient}")
                array.reshape(-1)[0] = float("nan")

    def _of(self, event: str) -> list[Fault]:
        return [fault for fault in self._faults if fault.event == event]

    def _delays(self, faults: list[Fault]) -> Callable[[int], float]:
        """Seconds by which the message of this number is late."""

        def seconds(number: int) -> float:
            late = [self._drawn(f.amount) for f in faults if number in f.when]
            return max(late, default=0.0)

        return seconds

    def _drawn(self, span: Span) -> float:
        return self._chance.uniform(span.low, span.high)

    def _do(self, fault: Fault, where: str) -> None:
        amount = self._drawn(fault.amount)
        if fault.when.high == fault.when.low:  # once only: say so
            what = f"{fault.action} {amount:g}" if amount else fault.action
            actions.announce(self._rank, where, what)
        if fault.action == "kill":
            actions.kill()
        elif fault.action == "stop":
            actions.stop(amount)
        elif fault.action == "pause":
            actions.pause(amount)
        elif fault.action == "full":
            actions.full_disk()
        elif fault.action == "slow":
            self._slow_down(fault.event, amount)
        elif fault.action == "raise":
            raise actions.PlannedFault(f"an error to order at {where} ({fault.text})")

    def _slow_down(self, event: str, factor: float) -> None:
        """Make the time since the last event of this kind so many times longer."""
        before = self._before.get(event)
        if before is not None:
            actions.pause((factor - 1) * (time.perf_counter() - before))


def _ranks_of(fault: Fault, size: int, chance: random.Random) -> Iterable[int]:
    """The ranks that a fault is for; the same on every rank."""
    if fault.drawn_ranks > size or (fault.ranks and max(fault.ranks) >= size):
        raise ConfigError(
            f"a fault must be for ranks of the run, 0 to {size - 1}, got {fault.text!r}"
        )
    if fault.drawn_ranks:
        return chance.sample(range(size), fault.drawn_ranks)
    return range(size) if fault.ranks is None else fault.ranks


def renumbered(plan: Plan, size: int, ranks: Sequence[int], seed: int = 0) -> str:
    """`plan` as text, for those of its ranks that are left, numbered anew.

    Args:
        plan: for ranks 0 to `size` − 1.
        size: number of ranks at first.
        ranks: those that are left, by their new numbers.
        seed: see `Drill`.
    """
    lines = []
    for index, fault in enumerate(plan.faults):
        chosen = set(_ranks_of(fault, size, random.Random(f"{seed} fault {index}")))
        left = [str(new) for new, old in enumerate(ranks) if old in chosen]
        if left:
            words = [word for word in fault.text.split() if word[:5] != "rank="]
            lines.append(" ".join([f"rank={','.join(left)}", *words]))
    return "; ".join(lines)


def _fixed(fault: Fault, chance: random.Random) -> Fault:
    """`fault` with the moment that chance decides."""
    if not fault.when.drawn:
        return fault
    low, high = fault.when.low, fault.when.high
    whole = fault.event != "seconds"
    moment = chance.randint(int(low), int(high)) if whole else chance.uniform(low, high)
    return Fault(**{**fault.__dict__, "when": Span(moment, moment)})
