"""Command lines generated from configuration classes."""

import argparse
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from acidmpi.config.files import read_values
from acidmpi.config.options import Option, did_you_mean, options_of
from acidmpi.errors import ConfigError

C = TypeVar("C")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: raised, not printed."""

    def error(self, message: str) -> NoReturn:
        """Raise `message` as a `ConfigError`."""
        raise ConfigError(f"{message}; see --help")


def make_parser(config: type, command: str, about: str, version: str) -> Parser:
    """A parser with one option for each field of `config`, and `--config`.

    Args:
        config: the dataclass.
        command: how the user starts it, for example `python -m acidmpi.train`.
        about: what it does, above the options; may end in more text below them after a
            line of its own that holds `OPTIONS`.
        version: printed by `--version`.
    """
    above, _, below = about.partition("\nOPTIONS\n")
    parser = Parser(
        prog=command,
        usage=f"{command} [--config FILE] [OPTION ...]",
        description=above,
        epilog=below or None,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="TOML file with any of the options below as keys; the command line wins",
    )
    for option in options_of(config):
        _add(parser, option)
    return parser


def parse(parser: Parser, config: type[C], arguments: list[str]) -> C:
    """The configuration that `arguments`, and the file they may name, describe.

    Raises:
        ConfigError: an option, a key or a value is not acceptable.
        SystemExit: `--help` or `--version` was asked for and printed.
    """
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise _unknown(unknown[0], config)
    given = vars(known)
    path = given.pop("config", None)
    values = {} if path is None else read_values(Path(path), config)
    return config(**{**values, **_parsed(given, config)})


def _parsed(given: dict[str, Any], config: type) -> dict[str, Any]:
    """What the command line itself gives, by field."""
    return {
        option.name: _value(option, given[option.name])
        for option in options_of(config)
        if option.name in given
    }


def _value(option: Option, given: Any) -> Any:
    return given if isinstance(given, bool) else option.parse(given)


def _add(parser: Parser, option: Option) -> None:
    text = f"{option.explanation} {_default(option)}".strip().replace("%", "%%")
    if option.kind is bool:
        action = argparse.BooleanOptionalAction
        parser.add_argument(option.flag, action=action, help=text)
        return
    if option.alone is not None:
        parser.add_argument(
            option.flag,
            nargs="?",
            const=option.alone,
            metavar=_metavar(option),
            help=text,
        )
        return
    parser.add_argument(option.flag, metavar=_metavar(option), help=text)


def _default(option: Option) -> str:
    if option.default is None or isinstance(option.default, bool):
        return ""
    number = isinstance(option.default, float)
    return f"[{option.default:g}]" if number else f"[{option.default}]"


def _metavar(option: Option) -> str:
    if option.choices:
        return "{" + ",".join(option.choices) + "}"
    return {int: "N", float: "NUMBER", Path: "PATH"}.get(option.kind, "NAME")


def _unknown(argument: str, config: type) -> ConfigError:
    flag = argument.split("=")[0]
    if not flag.startswith("-"):
        return ConfigError(
            f"unexpected argument {argument!r}; every option starts with --, see --help"
        )
    flags = [option.flag for option in options_of(config)] + ["--config"]
    hint = did_you_mean(flag.replace("_", "-"), flags) or "; see --help"
    return ConfigError(f"unknown option {flag}{hint}")
