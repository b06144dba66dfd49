"""What the communication loop sees of a pairing protocol, whichever it is.

Guarantees of every machine:
- it is pure: it keeps no clock, touches no network, and draws only from the generator
  it was given;
- a rank is in at most one exchange: `matched` changes from one peer to another only
  through `finish`, or by way of nobody: `receive` and `remove` may leave it unmatched;
- it answers at once; in return, what a call returns must be sent at once and in that
  order, because the protocols rest on the order of each channel.

Only `handshake.HandshakeMachine` can lose a peer; the others refuse it with one message.
"""

from collections.abc import Sequence
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from acidmpi.errors import ConfigError
from acidmpi.pairing.messages import Sends


class Shown(Protocol):
    """The fields that the states of all protocols share."""

    @property
    def matched(self) -> int | None: ...  # noqa: D102 - see Facade
    @property
    def started(self) -> bool: ...  # noqa: D102
    @property
    def asking(self) -> int | None: ...  # noqa: D102
    @property
    def retired(self) -> bool: ...  # noqa: D102


class Machine(Protocol):
    """One rank's side of a pairing protocol.

    Any of `start`, `receive`, `finish` and `retire` may leave the machine matched: look
    at `matched` after each. `receive` and `remove` may leave it unmatched.
    """

    @property
    def neighbours(self) -> tuple[int, ...]:
        """Ranks that this one may be matched with."""
        ...

    @property
    def matched(self) -> int | None:
        """The peer of the exchange at hand."""
        ...

    @property
    def started(self) -> bool:
        """Whether that exchange is to be counted off this rank's due exchanges."""
        ...

    @property
    def asking(self) -> int | None:
        """The neighbour whose answer is outstanding."""
        ...

    @property
    def retired(self) -> bool:
        """Whether this rank starts no more."""
        ...

    @property
    def settled(self) -> bool:
        """Retired, nothing at hand, no answer outstanding: fit to enter the barrier."""
        ...

    @property
    def can_start(self) -> bool:
        """Whether `start` may be called."""
        ...

    def start(self) -> Sends:
        """An exchange is due: look for a peer."""
        ...

    def receive(self, source: int, kind: int) -> Sends:
        """Take the next message of the channel from `source`."""
        ...

    def finish(self) -> Sends:
        """The exchange at hand is over on this rank."""
        ...

    def retire(self) -> Sends:
        """This rank will start no more; it goes on answering."""
        ...

    def patience(self) -> float:
        """How long to wait before the next `start`, in exchange times.

        To be drawn once after each `finish` and after each BUSY received.
        """
        ...

    @property
    def can_set_aside(self) -> bool:
        """Whether `set_aside` may be called: an answer is outstanding."""
        ...

    def set_aside(self) -> Sends:
        """Wait no longer for the rank that is `asking`; its answer is taken later."""
        ...

    @property
    def aside(self) -> frozenset[int]:
        """Ranks that were set aside and have not answered since."""
        ...

    def outdate(self, peer: int) -> None:
        """`peer`, which was set aside, was asked for what this rank no longer offers."""
        ...

    def remove(self, peer: int) -> Sends:
        """`peer` is dead. What was at hand with it is over and does not count."""
        ...

    def rewire(self, neighbours: Sequence[int], weights: Sequence[float]) -> None:
        """New neighbours, for the next start; whoever asks is answered all the same."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of a machine that is in no exchange."""
        ...

    def restore(self, state: dict[str, Any], units: float) -> None:
        """Go on from what `state` gave, before anything else; `units` have passed."""
        ...


S = TypeVar("S", bound=Shown)


class Facade(Generic[S]):
    """The part of a machine that only shows its state; the verbs are the subclass's.

    Args:
        state: where the machine begins.
        neighbours: ranks that this one may be matched with.
    """

    def __init__(self, state: S, neighbours: tuple[int, ...]) -> None:
        self._state = state
        self._neighbours = neighbours

    @property
    def neighbours(self) -> tuple[int, ...]:
        """Ranks that this one may be matched with."""
        return self._neighbours

    @property
    def matched(self) -> int | None:
        """The peer of the exchange at hand."""
        return self._state.matched

    @property
    def started(self) -> bool:
        """Whether that exchange is to be counted off this rank's due exchanges."""
        return self._state.started

    @property
    def asking(self) -> int | None:
        """The neighbour whose answer is outstanding."""
        return self._state.asking

    @property
    def retired(self) -> bool:
        """Whether this rank starts no more."""
        return self._state.retired

    @property
    def settled(self) -> bool:
        """Retired, nothing at hand, no answer outstanding: fit to enter the barrier."""
        state = self._state
        return state.retired and state.matched is None and state.asking is None

    @property
    def can_set_aside(self) -> bool:
        """Never: this protocol waits for every answer."""
        return False

    @property
    def aside(self) -> frozenset[int]:
        """Nobody: this protocol waits for every answer."""
        return frozenset()

    def set_aside(self) -> Sends:
        """Refused.

        Raises:
            ConfigError: this protocol waits for every answer.
        """
        self._refuse()

    def outdate(self, peer: int) -> None:
        """Refused.

        Raises:
            ConfigError: this protocol waits for every answer.
        """
        self._refuse()

    def remove(self, peer: int) -> Sends:
        """Refused.

        Raises:
            ConfigError: this protocol cannot lose a peer.
        """
        self._refuse()

    def rewire(self, neighbours: Sequence[int], weights: Sequence[float]) -> None:
        """Refused.

        Raises:
            ConfigError: this protocol keeps its neighbours.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            "only the handshake goes on without a peer, got "
            f"{type(self).__name__}; choose the pairing 'handshake'"
        )

    def state(self) -> dict[str, Any]:
        """Nothing, unless a protocol has more to say."""
        return {}

    def restore(self, state: dict[str, Any], units: float) -> None:
        """Nothing, unless a protocol has more to say."""
