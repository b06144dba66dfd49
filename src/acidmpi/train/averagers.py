"""Averagers with the options of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from acidmpi.arrays.accelerator import Accelerator
from acidmpi.compression.protocol import Compressor, Spec
from acidmpi.compression.registry import make
from acidmpi.config.train import TrainConfig
from acidmpi.parallel.averager import Averager


def open_averager(
    comm: Any,
    config: TrainConfig,
    specs: Sequence[Spec],
    compressor: Compressor,
    accelerator: Accelerator | None = None,
) -> Averager:
    """An averager with the run's options; collective over `comm`."""
    return Averager(
        specs,
        compressor,
        comm,
        bucket_bytes=config.bucket_bytes,
        seed=config.seed,
        progress=config.progress,
        deadline_seconds=config.deadline_seconds,
        accelerator=accelerator,
    )


def open_dense_averager(
    comm: Any, config: TrainConfig, accelerator: Accelerator | None = None
) -> Averager:
    """An averager for votes and parameters, which is handed no gradients; collective."""
    nothing = Spec((1,), np.dtype(np.float64))
    return open_averager(comm, config, [nothing], make("none"), accelerator)
