"""Everything acidmpi raises on purpose.

    AcidError
    ├── ConfigError          an option, a key or a value (also ValueError)
    ├── TopologyError        a graph that cannot be used (also ValueError)
    ├── DataError            a data file that is missing, truncated or malformed
    ├── DisagreementError    ranks that differ on the model or the options
    ├── ThreadLevelError     MPI grants less than the chosen driver needs
    ├── DeviceMemoryError    a GPU has not enough memory for the model's computation
    ├── NonFiniteError       a NaN or an infinity in a gradient or a loss
    ├── DeadlineExceeded     a wait that took longer than its deadline (also TimeoutError)
    ├── PeerFailed           a peer that cannot take part any more
    │   └── PeerDied         its process has died, as MPI tells
    │       └── DiedAtStart  so before all ranks were ready; those who live all know
    ├── RemoteError          another rank failed first; carries that rank and its text
    └── Interrupted          a signal asked this rank, or another one, to stop
        └── Preempted        one that means to start the run again later

A message names the rule, the value received and the cure, in that order, lower case and
without a full stop, so that it reads well behind `acidmpi: error:`.
"""


class AcidError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(AcidError, ValueError):
    """An option, a configuration key or a value is not acceptable."""


class TopologyError(AcidError, ValueError):
    """A communication graph cannot be used."""


class DataError(AcidError):
    """A data file is missing, truncated or malformed."""


class DisagreementError(AcidError):
    """Ranks differ where they must agree."""


class ThreadLevelError(AcidError):
    """MPI grants a lower thread level than the chosen driver needs."""


class DeviceMemoryError(AcidError):
    """A GPU has not enough memory for what the model computes."""


class NonFiniteError(AcidError):
    """A gradient or a loss is not finite."""


class DeadlineExceeded(AcidError, TimeoutError):
    """A wait took longer than its deadline."""


class PeerFailed(AcidError):
    """A peer cannot take part any more.

    Args:
        peer: its rank.
        what: what this rank was waiting for.
    """

    def __init__(self, peer: int, what: str) -> None:
        super().__init__(f"rank {peer} failed while this rank waited for {what}")
        self.peer = peer
        self.what = what

    def __reduce__(self) -> tuple[type["PeerFailed"], tuple[int, str]]:
        return PeerFailed, (self.peer, self.what)


class PeerDied(PeerFailed):
    """The process of a peer has died.

    Args:
        peer: its rank; -1 where MPI says only that somebody has died.
        what: what this rank was waiting for.
    """

    def __str__(self) -> str:
        who = f"rank {self.peer}" if self.peer >= 0 else "a rank"
        return f"{who} has died while this one waited for {self.what}"

    def __reduce__(self) -> tuple[type["PeerDied"], tuple[int, str]]:
        return PeerDied, (self.peer, self.what)


class DiedAtStart(PeerDied):
    """A rank has died before all were ready: all that live raise this.

    Args:
        peer: its rank; -1 where MPI says only that somebody has died.
        what: what the ranks were doing.
    """

    def __str__(self) -> str:
        who = f"rank {self.peer}" if self.peer >= 0 else "a rank"
        return (
            f"{who} has died in {self.what}, before all ranks were ready; the others can "
            "begin again on a communicator of their own (comm.Shrink())"
        )

    def __reduce__(self) -> tuple[type["DiedAtStart"], tuple[int, str]]:
        return DiedAtStart, (self.peer, self.what)


class RemoteError(AcidError):
    """Another rank failed first.

    Args:
        rank: the rank that failed.
        text: its error, as it would have printed it.
    """

    def __init__(self, rank: int, text: str) -> None:
        super().__init__(f"rank {rank} failed: {text}")
        self.rank = rank
        self.text = text

    def __reduce__(self) -> tuple[type["RemoteError"], tuple[int, str]]:
        return RemoteError, (self.rank, self.text)


class Interrupted(AcidError):
    """A signal asked for the end of the run."""


class Preempted(Interrupted):
    """A signal asked for the end of the run, which is to be gone on with later."""
