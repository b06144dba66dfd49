"""The folder of a training run, named after its task and method."""

import shutil
from datetime import datetime

from acidmpi.config.train import OWN_FOLDER, TrainConfig
from acidmpi.telemetry import folder
from acidmpi.telemetry.folder import RunFolder, join, write_config

__all__ = ["RunFolder", "create", "join", "write_config"]

CHECKPOINTS = "checkpoints"


def create(config: TrainConfig, now: datetime) -> RunFolder:
    """Make the folder of a new run; for one rank only.

    Args:
        config: has the folder's path, or what its name is made from.
        now: becomes part of the name when the path is left open.

    Raises:
        ConfigError: an earlier run is in it.
        DataError: it cannot be made or written.
    """
    if config.resume == OWN_FOLDER and config.output is not None:
        return folder.join(config.output)
    if config.overwrite and config.output is not None:
        # Or --resume would find the earlier run's before the new one has any.
        shutil.rmtree(config.output / CHECKPOINTS, ignore_errors=True)
    name = f"{config.task}-{config.method}"
    return folder.create(config.output, name, config.overwrite, now)
