"""Which trainer a run needs: by its method, and by whether its task has a model."""

from typing import Any

from acidmpi.config.train import ASYNCHRONOUS, TrainConfig
from acidmpi.train.bases import Setting
from acidmpi.train.course import Trainer
from acidmpi.train.keeping import Kept
from acidmpi.train.lost import Lost
from acidmpi.train.plan import Plan


def make_trainer(
    task: Any,
    comm: Any,
    config: TrainConfig,
    plan: Plan,
    metrics: Any,
    kept: Kept | None = None,
    device: int | None = None,
    lost: Lost | None = None,
) -> Trainer:
    """The trainer of this run; collective over `comm`.

    Args:
        task: a `TorchTask` or a `Quadratic`.
        comm: the ranks.
        config: resolved options.
        plan: the work.
        metrics: where events are recorded.
        kept: checkpoints, or None for none.
        device: index of this rank's GPU; None is the CPU.
        lost: those who died before these ranks began; None where nobody did.

    Raises:
        AcidError: it cannot be made here, or not on another rank.
    """
    has_model = task.defaults.uses_torch
    if config.method in ASYNCHRONOUS:
        kind = _asynchronous(has_model)
    else:
        kinds = _synchronous_network() if has_model else _synchronous_vector()
        kind = kinds[config.method]
    given = Setting(task, comm, config, plan, metrics, kept, device, lost)
    trainer: Trainer = kind(given)
    return trainer


def _asynchronous(has_model: bool) -> Any:
    from acidmpi.train.asynchronous import NetworkTrainer, VectorTrainer

    return NetworkTrainer if has_model else VectorTrainer


def _synchronous_network() -> dict[str, Any]:
    from acidmpi.train.synchronous_networks import AllReduce, OwnSteps

    return {"allreduce": AllReduce, "localsgd": OwnSteps, "gossip": OwnSteps}


def _synchronous_vector() -> dict[str, Any]:
    from acidmpi.train.synchronous_vectors import AllReduce, OwnSteps

    return {"allreduce": AllReduce, "localsgd": OwnSteps, "gossip": OwnSteps}
