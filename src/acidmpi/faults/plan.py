"""Plans of faults, read from a line of text or from a TOML file.

    rank=2 at=exchange:50 do=kill; rank=all at=chunk:1- do=delay:0.001~0.01

or, in a file whose name ends in `.toml`:

    [[fault]]
    rank = 2
    at = "exchange:50"
    do = "kill"
"""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acidmpi.errors import ConfigError

PHASES = ("agree", "topology", "kernels", "parameters", "assemble")
"""Parts of the start of a worker, in their order."""

COUNTED = (
    "gradient",
    "exchange",
    "chunk",
    "request",
    "answer",
    "message",
    "heartbeat",
    "average",
    "final",
    "checkpoint",
    "recovery",
)
"""Events that have a number: the first of its kind on its rank is 1."""

EVENTS = (*COUNTED, "start", "seconds")

EVERYWHERE = frozenset(EVENTS)
ACTIONS: dict[str, frozenset[str]] = {
    "kill": EVERYWHERE,
    "stop": EVERYWHERE,
    "pause": EVERYWHERE - {"seconds"},
    "slow": frozenset(COUNTED),
    "raise": EVERYWHERE - {"seconds"},
    "delay": frozenset({"chunk", "message"}),
    "nan": frozenset({"gradient"}),
    "full": frozenset({"checkpoint"}),
}
"""What can be done, and at which events."""

WITH_SECONDS = ("stop", "pause", "delay")
KEYS = ("rank", "at", "do")


@dataclass(frozen=True)
class Span:
    """Numbers from `low` to `high`; a draw when `drawn`."""

    low: float
    high: float
    drawn: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Fault:
    """One planned fault, for all ranks that it names."""

    text: str
    """As it was written, for messages."""
    ranks: tuple[int, ...] | None
    """Those named; None where they are all of them or drawn."""
    drawn_ranks: int
    """How many ranks are drawn; 0: none, and `ranks=None` means all."""
    event: str
    when: Span
    phase: str
    """Of the start, where `event` is that."""
    action: str
    amount: Span
    """Seconds, or a factor."""


@dataclass(frozen=True)
class Plan:
    """All planned faults of a run; an empty one is false."""

    faults: tuple[Fault, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.faults)

    @staticmethod
    def of(text: str | None) -> "Plan":
        """Read a plan: faults separated by `;`, or the path of a TOML file.

        Raises:
            ConfigError: it is no plan; says which rule it breaks.
        """
        if text is None or not text.strip():
            return Plan()
        if text.strip().endswith(".toml"):
            return Plan(tuple(map(_fault, _tables(Path(text.strip()).expanduser()))))
        lines = (line.strip() for line in text.replace("\n", ";").split(";"))
        return Plan(tuple(_fault(_pairs(line)) for line in lines if line))


def _tables(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"a plan of faults must be readable, got {path} ({error.strerror}); check "
            "the path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    tables = read.get("fault")
    if set(read) != {"fault"} or not isinstance(tables, list):
        raise ConfigError(
            f"a plan of faults must hold tables [[fault]] and nothing else, got {path} "
            f"with {', '.join(read) or 'nothing'}"
        )
    return tables


def _pairs(line: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in line.split()]
    for key, sign, _ in pairs:
        if not sign:
            raise ConfigError(
                "a fault must be written 'rank=R at=EVENT:WHEN do=ACTION', got "
                f"{key!r} in {line!r}"
            )
    if len({key for key, _, _ in pairs}) < len(pairs):
        raise ConfigError(f"a fault must name each key once, got {line!r}")
    return {key: value for key, _, value in pairs}


def _fault(given: Mapping[str, Any]) -> Fault:
    text = " ".join(f"{key}={value}" for key, value in given.items())
    if set(given) != set(KEYS):
        raise ConfigError(f"a fault must have exactly {', '.join(KEYS)}, got {text!r}")
    ranks, drawn = _ranks(str(given["rank"]), text)
    event, when, phase = _event(str(given["at"]), text)
    action, amount = _action(str(given["do"]), text)
    if event not in ACTIONS[action]:
        places = ", ".join(e for e in EVENTS if e in ACTIONS[action])
        raise ConfigError(f"do={action} must be at one of {places}, got {text!r}")
    return Fault(text, ranks, drawn, event, when, phase, action, amount)


def _ranks(value: str, text: str) -> tuple[tuple[int, ...] | None, int]:
    if value == "all":
        return None, 0
    if found := re.fullmatch(r"random:([1-9]\d*)", value):
        return None, int(found[1])
    if re.fullmatch(r"\d+(,\d+)*", value):
        return tuple(int(part) for part in value.split(",")), 0
    raise ConfigError(
        f"rank must be a rank, several with commas, all, or random:HOW-MANY, got {text!r}"
    )


def _event(value: str, text: str) -> tuple[str, Span, str]:
    name, _, when = value.partition(":")
    if name not in EVENTS:
        raise ConfigError(
            f"at must begin with one of {', '.join(EVENTS)}, got {text!r}"
        )
    if name == "start":
        if when not in PHASES:
            raise ConfigError(f"at=start must be one of {_phases()}, got {text!r}")
        return name, Span(1, 1), when
    if name == "seconds":
        return name, _numbers(when, "at=seconds", text), ""
    return name, _count(when, text), ""


def _phases() -> str:
    return ", ".join(f"start:{phase}" for phase in PHASES)


def _count(when: str, text: str) -> Span:
    """`K`, `K-L`, `K-` for from K on, `K~L` for one drawn between them."""
    found = re.fullmatch(r"([1-9]\d{0,17})(?:(-|~)([1-9]\d{0,17})?)?", when)
    if not found or (found[2] == "~" and not found[3]):
        raise ConfigError(
            "an event's number must be K, K-L, K- (from K on) or K~L (one of them by "
            f"chance), counted from 1, got {text!r}"
        )
    low = int(found[1])
    high = int(found[3]) if found[3] else (math.inf if found[2] else low)
    if high < low:
        raise ConfigError(f"a range must not end before it begins, got {text!r}")
    return Span(low, high, found[2] == "~")


def _action(value: str, text: str) -> tuple[str, Span]:
    name, _, amount = value.partition(":")
    if name not in ACTIONS:
        raise ConfigError(
            f"do must begin with one of {', '.join(ACTIONS)}, got {text!r}"
        )
    if name in WITH_SECONDS:
        return name, _numbers(amount, f"do={name}", text)
    if name == "slow":
        factor = _numbers(amount, "do=slow", text)
        if factor.low < 1:
            raise ConfigError(f"do=slow must have a factor of at least 1, got {text!r}")
        return name, factor
    if amount:
        raise ConfigError(f"do={name} must have no amount, got {text!r}")
    return name, Span(0, 0)


def _numbers(value: str, what: str, text: str) -> Span:
    """`A` or `A~B`, drawn between them."""
    parts = value.split("~")
    try:
        low, high = float(parts[0]), float(parts[-1])
    except ValueError:
        low = high = math.nan
    if len(parts) > 2 or not 0 <= low <= high < math.inf:
        raise ConfigError(
            f"{what} must be followed by a number or by A~B (drawn between them), both "
            f"finite and not negative, got {text!r}"
        )
    return Span(low, high, len(parts) == 2)
