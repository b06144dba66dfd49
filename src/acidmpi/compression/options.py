"""Checks of what users ask of a compressor."""

from collections.abc import Iterable
from typing import Any

from acidmpi.errors import ConfigError


def check_density(value: Any) -> None:
    """A share of elements.

    Raises:
        ConfigError: it is not a number in (0, 1].
    """
    if not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ConfigError(
            f"density is a share of elements in (0, 1], got {value!r}; "
            "use 0.01 for one element in a hundred"
        )


def check_choice(what: str, value: Any, choices: Iterable[Any]) -> None:
    """One of a few values.

    Raises:
        ConfigError: it is none of them.
    """
    known = tuple(choices)
    if not any(type(value) is type(one) and value == one for one in known):
        names = ", ".join(map(repr, known))
        raise ConfigError(f"{what} must be one of {names}, got {value!r}; choose one")


def check_flag(what: str, value: Any) -> None:
    """A truth value.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{what} must be True or False, got {value!r}; pass one")


def check_whole(what: str, value: Any, least: int) -> None:
    """A whole number.

    Raises:
        ConfigError: it is none, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(
            f"{what} must be a whole number of at least {least}, got {value!r}; "
            f"use {least} or more"
        )


def check_multiple(what: str, value: Any, unit: int) -> None:
    """A multiple of `unit`.

    Raises:
        ConfigError: it is no whole number, not positive or no multiple.
    """
    check_whole(what, value, unit)
    if value % unit:
        raise ConfigError(
            f"{what} must be a multiple of {unit}, got {value}; "
            f"use {value // unit * unit} or {(value // unit + 1) * unit}"
        )
