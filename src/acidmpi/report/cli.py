"""`python -m acidmpi.report RUN…`: from arguments to a page and an exit status."""

import sys
from importlib import metadata
from pathlib import Path

from acidmpi.config.command_line import make_parser, parse
from acidmpi.errors import AcidError, ConfigError
from acidmpi.report.options import ReportOptions

COMMAND = "python -m acidmpi.report"
ABOUT = """\
Compare training runs: one HTML page that needs no network, its pictures, and a table.

RUN is the folder of a run, or a folder that holds such folders. Runs that differ in
nothing but their seed are put together, as mean and standard deviation; kinds of runs
are named by the options in which they differ, and by the keys of a `notes.toml` of your
own in their folders.
OPTIONS
exit status: 0 done, 1 failed, 2 wrong usage"""

FINISHED, FAILED, USAGE = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    try:
        paths, options = _read(sys.argv[1:] if arguments is None else arguments)
        return _report(paths, options)
    except SystemExit as asked:  # --help and --version
        return int(asked.code or 0)
    except AcidError as error:
        print(f"acidmpi: error: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else FAILED


def _report(paths: list[Path], options: ReportOptions) -> int:
    from acidmpi.report.make import make_report

    made = make_report(paths, options, told=lambda text: print(text, flush=True))
    for path, what in made.missing:
        print(f"acidmpi: not finished: {path}: {what}", file=sys.stderr)
    print(f"\n{made.table}\n{made.page}")
    return FINISHED


def _read(arguments: list[str]) -> tuple[list[Path], ReportOptions]:
    parser = make_parser(ReportOptions, COMMAND, ABOUT, f"acidmpi {_version()}")
    parser.usage = f"{COMMAND} RUN [RUN ...] [--config FILE] [OPTION ...]"
    parser.add_argument("runs", nargs="*", metavar="RUN", default=[])
    options = parse(parser, ReportOptions, arguments)
    runs = parser.parse_known_args(arguments)[0].runs
    if not runs:
        raise ConfigError(f"name the folder of a run, got none; {COMMAND} RUN…")
    return [Path(run) for run in runs], options


def _version() -> str:
    try:
        return metadata.version("acidmpi")
    except metadata.PackageNotFoundError:
        return "unknown"
