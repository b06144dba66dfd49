"""What a user may choose about a worker."""

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin

from acidmpi.errors import ConfigError
from acidmpi.faults.plan import Plan

Method = Literal["a2cid2", "async", "adpsgd"]
Pairing = Literal["handshake", "schedule", "fifo"]
ProgressChoice = Literal["thread", "inline"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
TransportChoice = Literal["auto", "host", "device", "staged"]

MAX_LAG = 16
"""Exchanges come by chance: less would make ranks wait where none has to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """Choices common to `Worker` and `Gossip`; all ranks must make the same."""

    topology: Any = "ring"
    """A name, the path of an edge-list file, or a networkx graph; rank 0's counts."""

    comm_rate: float = 1.0
    """Mean number of exchanges of a rank per unit of time."""

    method: Method = "a2cid2"
    """`a2cid2` mixes x with x̃; `async` is plain asynchronous gossip and holds no x̃;
    `adpsgd` is that with roles: active ranks start one exchange for each gradient of
    their own, passive ones answer (needs a bipartite graph)."""

    total_gradients: int | None = None
    """Gradients of all ranks together after which all stop; None: when they leave."""

    pairing: Pairing = "handshake"
    """Who exchanges with whom: see docs/pairing.md."""

    progress: ProgressChoice = "thread"
    """Who advances communication: a thread, or the caller through `poll()`."""

    max_lag: int | None = MAX_LAG
    """How many exchanges a rank may be behind its own gradients before its compute loop
    waits; at half of it, it starts more of them. None: it never waits."""

    safety: float = 0.8
    """Draws the constants of A²CiD² back towards plain gossip; 1 is the paper's choice,
    0 no acceleration at all. Delays and noise cost least at 0.8 (docs/results.md)."""

    seed: int = 0
    """Source of all chance in communication."""

    unit_seconds: float | None = None
    """A fixed unit of time; None: the mean time of a gradient, measured."""

    deadline_seconds: float = 300.0
    """How long a wait for others may see no progress before the run fails."""

    chunk_bytes: int = 768 << 10
    """Size of the chunks in which parameters in host memory are mixed and sent."""

    message_bytes: int | None = None
    """Longest message of a chunk, from host memory; None: whole chunks, but 60 KiB to
    other machines where Open MPI has nothing but TCP (docs/cluster.md)."""

    staging_bytes: int = 64 << 20
    """Memory of a GPU in which pieces wait to be sent or applied, beside x̃."""

    device: DeviceChoice = "auto"
    """Where the parameters must be; `auto` takes them where they are."""

    transport: TransportChoice = "auto"
    """How parameters travel: `host` for those in host memory; for a GPU's `device` (MPI
    reads and writes its memory), `staged` (by page-locked host memory), or the best that
    works."""

    average_every: int | None = None
    """Gradients of all ranks between two averages handed to rank 0; None: none."""

    fault_tolerant: bool = False
    """Go on when other ranks die; needs Open MPI 5 started with `--with-ft ulfm`, and the
    pairing `handshake`: see docs/faults.md."""

    fault: str | None = None
    """What is to go wrong, for drills: see docs/faults_to_order.md."""

    def __post_init__(self) -> None:
        for name in ("method", "pairing", "progress", "device", "transport"):
            _check_choice(name, getattr(self, name))
        if not isinstance(self.fault_tolerant, bool):
            raise ConfigError(
                f"fault_tolerant must be True or False, got {self.fault_tolerant!r}"
            )
        for name in (
            "total_gradients",
            "unit_seconds",
            "average_every",
            "message_bytes",
        ):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))
        for name in ("deadline_seconds", "chunk_bytes", "staging_bytes"):
            _check_positive(name, getattr(self, name))
        for name in ("chunk_bytes", "staging_bytes", "seed"):
            _check_whole(name, getattr(self, name))
        if self.message_bytes is not None:
            _check_whole("message_bytes", self.message_bytes)
        for name in ("comm_rate", "safety", "seed"):
            _check_finite(name, getattr(self, name), 0.0)
        _check_plan(self.fault)
        if self.safety > 1:
            raise ConfigError(
                f"safety must lie between 0 (no acceleration) and 1, got {self.safety}"
            )
        if self.max_lag is not None:
            _check_finite("max_lag (None never waits)", self.max_lag, 0.0)
        if self.has_roles:
            _check_left_alone("pairing", self.pairing, "handshake")
            _check_left_alone("comm_rate", self.comm_rate, 1.0)
        if self.fault_tolerant:
            _check_tolerant(self.method, self.pairing)

    @property
    def has_roles(self) -> bool:
        """Whether some ranks ask and others answer."""
        return self.method == "adpsgd"

    @property
    def logical(self) -> bool:
        """Whether time is counted in gradients, so that a run can be repeated exactly."""
        return self.pairing == "schedule" and self.progress == "inline"

    def described(self) -> dict[str, str]:
        """What all ranks must agree on, as text."""
        return {f.name: str(getattr(self, f.name)) for f in fields(self)}


def _check_tolerant(method: str, pairing: str) -> None:
    if method == "adpsgd" or pairing != "handshake":
        raise ConfigError(
            "fault_tolerant=True is for method 'a2cid2' or 'async' with the pairing "
            f"'handshake', got {method!r} with {pairing!r}; choose these, or leave it "
            "out and keep checkpoints to start again from"
        )


def _check_choice(name: str, value: Any) -> None:
    kind = {f.name: f.type for f in fields(WorkerOptions)}[name]
    known = get_args(kind)
    assert get_origin(kind) is Literal
    if value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _check_plan(text: Any) -> None:
    if not isinstance(text, str | None):
        raise ConfigError(f"fault must be a plan as text, or None, got {text!r}")
    try:
        Plan.of(text)
    except ConfigError as error:
        raise ConfigError(f"fault: {error}") from error


def _check_left_alone(name: str, value: Any, default: Any) -> None:
    if value != default:
        raise ConfigError(
            f"{name} must be left at {default!r} with method='adpsgd', whose roles say "
            f"who asks and how often, got {value!r}"
        )


def _check_whole(name: str, value: Any) -> None:
    if not isinstance(value, Integral):
        raise ConfigError(f"{name} must be a whole number, got {value!r}")


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, Real):
        raise ConfigError(f"{name} must be a number, got {value!r}")


def _check_finite(name: str, value: float, least: float) -> None:
    _check_number(name, value)
    if not (math.isfinite(value) and value >= least):
        raise ConfigError(f"{name} must be a finite number ≥ {least:g}, got {value}")


def _check_positive(name: str, value: float) -> None:
    _check_number(name, value)
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} must be positive and finite, got {value}")
