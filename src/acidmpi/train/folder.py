"""The folder of a training run, named after its task and method."""

from datetime import datetime

from acidmpi.config.train import TrainConfig
from acidmpi.telemetry import folder
from acidmpi.telemetry.folder import RunFolder, join, write_config

__all__ = ["RunFolder", "create", "join", "write_config"]


def create(config: TrainConfig, now: datetime) -> RunFolder:
    """Make the folder of a new run; for one rank only.

    Args:
        config: has the folder's path, or what its name is made from.
        now: becomes part of the name when the path is left open.

    Raises:
        ConfigError: an earlier run is in it.
        DataError: it cannot be made or written.
    """
    name = f"{config.task}-{config.method}"
    return folder.create(config.output, name, config.overwrite, now)
