"""Options read off a dataclass: its fields, their types, bounds and explanations.

A field is written `name: Annotated[float | None, above(0)] = None` with a docstring
under it. From this follow the check of a value, the command line and the configuration
file, so that an option is described in one place. A kind is one of `str`, `int`,
`float`, `bool`, `Path` or a `Literal` of strings; `| None` allows the word `none`.
"""

import ast
import difflib
import inspect
import math
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from acidmpi.errors import ConfigError

NONE = "none"
"""How an option says `None` on the command line and in a file."""


_LARGEST = 2**63
"""No option needs more, and every number up to here fits where it is passed on to."""


@dataclass(frozen=True)
class Bound:
    """The numbers that an option takes."""

    low: float
    low_included: bool = True
    high: float = math.inf
    high_included: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` is finite and within."""
        above = value >= self.low if self.low_included else value > self.low
        below = value <= self.high if self.high_included else value < self.high
        return above and below and value <= _LARGEST

    def __str__(self) -> str:
        text = f"{'at least' if self.low_included else 'above'} {self.low:.12g}"
        if math.isinf(self.high):
            return text
        return f"{text} and {'at most' if self.high_included else 'below'} {self.high:.12g}"


@dataclass(frozen=True)
class Alone:
    """What an option means on the command line when nothing follows it."""

    value: str


def at_least(low: float, below: float = math.inf) -> Bound:
    """Finite numbers from `low` on, `low` included."""
    return Bound(low, True, below)


def between(low: float, high: float) -> Bound:
    """Numbers from `low` to `high`, both included."""
    return Bound(low, True, high, True)


def above(low: float) -> Bound:
    """Finite numbers greater than `low`."""
    return Bound(low, False)


@dataclass(frozen=True, kw_only=True)
class Option:
    """One field of a configuration, seen from outside."""

    name: str
    kind: type
    choices: tuple[str, ...]
    nullable: bool
    bound: Bound | None
    alone: str | None
    """The value when nothing follows it on the command line; None: something must."""
    default: Any
    explanation: str

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            text = "one of " + ", ".join(self.choices)
        else:
            text = _WORDS[self.kind] + (f" {self.bound}" if self.bound else "")
        return f"{text} or {NONE!r}" if self.nullable else text

    def parse(self, text: str) -> Any:
        """The value that `text`, from the command line, stands for.

        Raises:
            ConfigError: it stands for none.
        """
        if not _is_utf8(text):
            raise ConfigError(
                f"{self.flag} must be text in UTF-8, as run folders record it, got "
                f"{text!r}; rename the file, or give a link to it"
            )
        if self.nullable and text.lower() == NONE:
            return None
        if self.kind not in (int, float):
            return self.check(text)
        try:
            return self.check(_whole(text) if self.kind is int else float(text))
        except ValueError as error:
            raise self.refuse(text) from error

    def check(self, value: Any) -> Any:
        """`value` in the option's own type (an `int` for a `float` is taken).

        Raises:
            ConfigError: it has another type or is out of bounds.
        """
        if value is None and self.nullable:
            return None
        if not self._has_type(value) or not self._is_within(value):
            raise self.refuse(value)
        return Path(value).expanduser() if self.kind is Path else self.kind(value)

    def _has_type(self, value: Any) -> bool:
        if isinstance(value, bool):  # which Python takes for an int
            return self.kind is bool
        return isinstance(value, _TAKEN[self.kind])

    def _is_within(self, value: Any) -> bool:
        if self.choices:
            return str(value) in self.choices
        if self.bound is not None:
            return self.bound.holds(value)
        return bool(value != "")

    def refuse(self, value: Any) -> ConfigError:
        """The error that says what this option takes."""
        hint = did_you_mean(value, self.choices) if isinstance(value, str) else ""
        if self.bound is not None and _is_too_large(value):
            hint = f"; no number may be above {_LARGEST:.3g}"
        shown = str(value) if isinstance(value, Path) else value
        return ConfigError(f"{self.flag} must be {self.wanted}, got {shown!r}{hint}")


_WORDS: dict[type, str] = {
    str: "a word",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
}
_TAKEN: dict[type, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
    Path: (str, Path),
}


def _is_utf8(text: str) -> bool:
    """Whether it can be written down: bytes of a command line may be anything."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_too_large(value: Any) -> bool:
    try:
        return float(value) > _LARGEST
    except OverflowError:
        return True
    except (TypeError, ValueError):
        return False


def _whole(text: str) -> int:
    """A whole number, also as 1e6.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        if (number := float(text)).is_integer():
            return int(number)
        raise


def options_of(config: type) -> tuple[Option, ...]:
    """The options of a configuration class, in the order of its fields."""
    return _options_of(config)


@cache
def _options_of(config: type) -> tuple[Option, ...]:
    """Read once from the source: every configuration that is made asks for them."""
    hints = get_type_hints(config, include_extras=True)
    explanations = _explanations(config)
    return tuple(
        _option(f.name, hints[f.name], f.default, explanations.get(f.name, ""))
        for f in fields(config)
    )


def check_fields(config: Any) -> None:
    """Check every field of a frozen dataclass and put its value into the right type.

    Raises:
        ConfigError: some value is not acceptable.
    """
    for option in options_of(type(config)):
        value = option.check(getattr(config, option.name))
        object.__setattr__(config, option.name, value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when `word` resembles one that is known, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _option(name: str, hint: Any, default: Any, explanation: str) -> Option:
    extras: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        extras = tuple(rest)
    kind, nullable = _without_none(hint)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return Option(
        name=name,
        kind=str if choices else kind,
        choices=choices,
        nullable=nullable,
        bound=next((e for e in extras if isinstance(e, Bound)), None),
        alone=next((e.value for e in extras if isinstance(e, Alone)), None),
        default=None if default is MISSING else default,
        explanation=explanation,
    )


def _without_none(hint: Any) -> tuple[Any, bool]:
    """`T` and whether `None` was allowed beside it, for `T` and `T | None`."""
    if get_origin(hint) not in (UnionType, Union):
        return hint, False
    (kind,) = (part for part in get_args(hint) if part is not NoneType)
    return kind, True


def _explanations(config: type) -> dict[str, str]:
    """The docstring under each field, on one line, by the field's name."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    found: dict[str, str] = {}
    name = ""
    for node in getattr(body, "body", []):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if name:
                found[name] = " ".join(str(node.value.value).split())
            name = ""
        else:
            name = ""
    return found
