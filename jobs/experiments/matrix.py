"""Experiments of a file: training runs, their seeds, and the report that compares them.

A file has
- `title`, above the report;
- `seeds`, a list: every row is run with each;
- `[defaults]`, options of `acidmpi.train` for every row, as in a configuration file, and
  `ranks`;
- `[[rows]]`, each with a `name` and options of its own, and perhaps a `sweep`
  (jobs/benchmarks/sweeps.py). `network = "1gbit"` gives each rank a link of that speed
  (jobs/local/shaped_network.sh; one machine, as root);
- `[report]`, `target_loss` and `target_accuracy`, as for `acidmpi.report`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launch import read_toml, refuse_unknown
from sweeps import check_names, flags, rows_of, spread, table_of, take_ranks

from acidmpi.config.files import check_values
from acidmpi.config.options import options_of
from acidmpi.config.train import OWN_FOLDER, TrainConfig
from acidmpi.errors import ConfigError
from acidmpi.report.options import ReportOptions

SECTIONS = ("title", "seeds", "defaults", "rows", "report")
TARGETS = ("target_loss", "target_accuracy")
NOT_IN_A_ROW = ("seed", "output", "overwrite", "data_dir", "resume")
"""What the driver sets."""

CHECKPOINTS = "checkpoints/set-*/manifest.json"
"""Of complete sets: a run that has one goes on from it."""

OPTIONS = tuple(o.name for o in options_of(TrainConfig) if o.name not in NOT_IN_A_ROW)
KEYS = ("ranks", "network", *OPTIONS)


@dataclass(frozen=True)
class Experiment:
    """One training run."""

    name: str
    """Of its folder."""

    ranks: int
    network: str | None
    config: TrainConfig

    def arguments(self, folder: Path, data_dir: Path | None) -> list[str]:
        """What follows `python`."""
        config = replace(self.config, output=folder, data_dir=data_dir)
        if any(folder.glob(CHECKPOINTS)):
            config = replace(config, resume=OWN_FOLDER)
        else:
            config = replace(config, overwrite=True)
        return ["-m", "acidmpi.train", *flags(config)]


@dataclass(frozen=True)
class Matrix:
    """What a file describes."""

    title: str
    experiments: list[Experiment]
    targets: dict[str, float]

    def report_options(self, output: Path) -> ReportOptions:
        """Of the report on all of it."""
        return ReportOptions(title=self.title, output=output, **self.targets)


def read_matrix(path: Path) -> Matrix:
    """Read and check a whole file before anything runs.

    Raises:
        ConfigError: a key, a name or a value is not acceptable.
    """
    where = str(path)
    content = read_toml(path)
    refuse_unknown(content, SECTIONS, where)
    defaults = table_of(content, "defaults", where)
    targets = table_of(content, "report", where)
    refuse_unknown(targets, TARGETS, f"{where}, [report]")
    rows = [
        (name, {**defaults, **values})
        for given in rows_of(content, where)
        for name, values in spread(given, where)
    ]
    check_names([name for name, _ in rows], where)
    # Seeds outermost: a matrix that is cut short has all kinds of runs.
    experiments = [
        _experiment(name, values, seed, where)
        for seed in _seeds(content.get("seeds", [0]), where)
        for name, values in rows
    ]
    if not experiments:
        raise ConfigError(f"{where}: there must be [[rows]], got none")
    matrix = Matrix(str(content.get("title", path.stem)), experiments, targets)
    matrix.report_options(Path())  # its checks
    return matrix


def _seeds(seeds: Any, where: str) -> list[int]:
    whole = isinstance(seeds, list) and all(type(seed) is int for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"{where}: seeds must be different whole numbers, got {seeds!r}"
        )
    return seeds


def _experiment(name: str, values: dict[str, Any], seed: int, where: str) -> Experiment:
    where = f"{where}, row {name!r}"
    refuse_unknown(values, KEYS, where)
    options = dict(values)
    ranks = take_ranks(options, where)
    network = options.pop("network", "none")
    if not isinstance(network, str) or not network:
        raise ConfigError(
            f"{where}: network must be a rate such as '1gbit', or 'none', got {network!r}"
        )
    try:
        config = TrainConfig(**check_values(options, TrainConfig), seed=seed)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    shaped = None if network == "none" else network
    return Experiment(f"{name}-seed{seed}", ranks, shaped, config)
