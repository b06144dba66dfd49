"""Configurations as TOML files."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from acidmpi.config.options import NONE, did_you_mean, options_of
from acidmpi.errors import ConfigError


def read_values(path: Path, config: type) -> dict[str, Any]:
    """The values that a file gives to fields of `config`, by field.

    Keys may be written with `-` or `_`.

    Raises:
        ConfigError: the file cannot be read, is not TOML, has a key that `config` does
            not know or a value that it does not take.
    """
    try:
        return check_values(_load(path), config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def check_values(given: dict[str, Any], config: type) -> dict[str, Any]:
    """`given` with its keys as field names and its values in the fields' types.

    Raises:
        ConfigError: a key is unknown or given twice, or a value is not acceptable.
    """
    options = {option.name: option for option in options_of(config)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in options:
            hint = did_you_mean(name, options)
            raise ConfigError(f"unknown key {key!r}{hint or _all(options)}")
        if name in values:
            raise ConfigError(f"key {name!r} stands twice, with - and with _; keep one")
        option = options[name]
        none = option.nullable and value == NONE
        values[name] = None if none else option.check(value)
    return values


def to_toml(config: Any) -> str:
    """`config` as TOML that `read_values` takes back to an equal one."""
    import tomli_w

    options = {option.name: option for option in options_of(type(config))}
    table: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if value is None and options[field.name].default is None:
            continue  # TOML has no null; leaving the key out says the same
        table[field.name] = _plain(value)
    return tomli_w.dumps(table)


def _plain(value: Any) -> Any:
    if value is None:
        return NONE
    return str(value) if isinstance(value, Path) else value


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the configuration cannot be read: {error.strerror}; check --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML: {error}") from error


def _all(options: dict[str, Any]) -> str:
    return "; known keys are " + ", ".join(options)
