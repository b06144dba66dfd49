"""What the scripts beside this one have in common: options are checked in one line each."""

import argparse
from collections.abc import Mapping

from acidmpi.config.options import Bound
from acidmpi.errors import ConfigError


def check(chosen: argparse.Namespace, bounds: Mapping[str, Bound]) -> None:
    """Raise where a number is out of bounds, or one of several is.

    Raises:
        ConfigError: names the option, what it takes and what it got.
    """
    for name, bound in bounds.items():
        given = getattr(chosen, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not bound.holds(value):
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} must be {bound}, got {value}")
