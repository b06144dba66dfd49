"""`python -m acidmpi.simulate [WHAT]`: from arguments to an exit status.

A part of the command is an entry of `PARTS`: a class of options and a module of this
package with `run(options, out)`. Without a name it is `run`, one simulation.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from textwrap import fill
from typing import Any, TextIO

from acidmpi.config.command_line import make_parser, parse
from acidmpi.config.experiments import (
    CompareConfig,
    LossesConfig,
    SafetyConfig,
    TheoryConfig,
)
from acidmpi.config.launched import version_of
from acidmpi.config.options import did_you_mean
from acidmpi.config.plan import PlanConfig
from acidmpi.config.protocol import ProtocolConfig, RaceConfig
from acidmpi.config.simulate import SimulateConfig
from acidmpi.errors import AcidError, ConfigError, TopologyError

COMMAND = "python -m acidmpi.simulate"
FINISHED, FAILED, USAGE = 0, 1, 2


@dataclass(frozen=True)
class Part:
    """One thing that the command can do."""

    options: type
    """A configuration class; its docstring says what the part does."""

    module: str
    """Where `run(options, out)` is."""


PARTS: dict[str, Part] = {
    "run": Part(SimulateConfig, "acidmpi.simulate.course"),
    "theory": Part(TheoryConfig, "acidmpi.simulate.theory"),
    "protocol": Part(ProtocolConfig, "acidmpi.simulate.protocol_course"),
    "race": Part(RaceConfig, "acidmpi.simulate.race"),
    "plan": Part(PlanConfig, "acidmpi.simulate.plan"),
    "compare": Part(CompareConfig, "acidmpi.simulate.compare"),
    "losses": Part(LossesConfig, "acidmpi.simulate.losses"),
    "safety": Part(SafetyConfig, "acidmpi.simulate.safety"),
}


def main(arguments: list[str] | None = None, out: TextIO | None = None) -> int:
    """Run the command.

    Args:
        arguments: those of the command line.
        out: where results are printed; by default standard output.

    Returns:
        The exit status.
    """
    try:
        name, options = _read(sys.argv[1:] if arguments is None else arguments)
        _runner(name)(options, out or sys.stdout)
    except SystemExit as asked:  # --help and --version
        return int(asked.code or 0)
    except AcidError as error:
        print(f"acidmpi: error: {error}", file=sys.stderr, flush=True)
        return USAGE if isinstance(error, ConfigError | TopologyError) else FAILED
    except KeyboardInterrupt:
        print("acidmpi: error: interrupted", file=sys.stderr, flush=True)
        return 130
    return FINISHED


def _read(arguments: list[str]) -> tuple[str, Any]:
    """The part's name and its options."""
    named = bool(arguments) and not arguments[0].startswith("-")
    name, rest = (arguments[0], arguments[1:]) if named else ("run", arguments)
    if name not in PARTS:
        hint = did_you_mean(name, PARTS) or "; see --help"
        known = ", ".join(PARTS)
        raise ConfigError(
            f"what to simulate must be one of {known}, got {name!r}{hint}"
        )
    options = PARTS[name].options
    command = f"{COMMAND} {name}" if named else COMMAND
    text = fill(_about(options), 79)
    if not named:
        text += f"\nOPTIONS\n{_others()}"
    parser = make_parser(options, command, text, f"acidmpi {version_of('acidmpi')}")
    return name, parse(parser, options, rest)


def _runner(name: str) -> Callable[[Any, TextIO], None]:
    run: Callable[[Any, TextIO], None] = import_module(PARTS[name].module).run
    return run


def _about(options: type) -> str:
    """What a part does: the first paragraph of its options' docstring, on one line."""
    return " ".join((options.__doc__ or "").split("\n\n")[0].split())


def _others() -> str:
    """The parts that have a name of their own, for the end of the help."""
    lines = [
        fill(f"{name}: {_about(part.options)}", 79, subsequent_indent="    ")
        for name, part in PARTS.items()
    ]
    return "\n".join([f"other parts ({COMMAND} NAME --help):", *lines])
