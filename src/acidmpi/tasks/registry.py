"""The tasks by name, each loaded only when it is asked for.

Importing this module and showing the defaults of tasks needs neither torch nor data.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from acidmpi.errors import ConfigError
from acidmpi.tasks import cifar10, digits, imagenet, mnist, quadratic
from acidmpi.tasks.interface import TaskDefaults, TaskOptions, known_name
from acidmpi.tasks.quadratic import Quadratic

if TYPE_CHECKING:
    from acidmpi.tasks.interface import TorchTask

_IMAGE_TASKS = {
    "digits": digits,
    "mnist": mnist,
    "cifar10": cifar10,
    "imagenet": imagenet,
}

TASK_NAMES = (*_IMAGE_TASKS, "quadratic")
DEFAULT_TASK = "digits"


def task_defaults(name: str) -> TaskDefaults:
    """The options that task `name` sets when the user does not."""
    known_name("task", name, TASK_NAMES)
    return quadratic.DEFAULTS if name == "quadratic" else _IMAGE_TASKS[name].DEFAULTS


def load_task(
    name: str,
    *,
    data_dir: str | Path | None = None,
    model: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    rank: int = 0,
    size: int = 1,
    dirichlet: float | None = None,
    heterogeneity: float | None = None,
    augment: bool = True,
    subset: int | None = None,
) -> "TorchTask | Quadratic":
    """Load task `name` for one rank; None stands for the task's own default.

    Args:
        name: one of `TASK_NAMES`.
        data_dir: where the data lie, for tasks that need some; the others refuse it.
        model: one of `MODEL_NAMES`, for tasks that train a model.
        batch_size: samples in a gradient.
        seed: fixes the initial model and, with the rank, the order of the data.
        rank: this rank.
        size: number of ranks.
        dirichlet: concentration of a label-skewed share per rank; None: all hold all.
        heterogeneity: standard deviation, over ranks, of the elements of their minima, for
            the quadratic.
        augment: change training images at random, where the task knows how.
        subset: train on this many samples and test on at most as many.

    Raises:
        ConfigError: an unknown name, or a value that cannot be.
        DataError: data files that are missing, truncated or malformed.
    """
    known_name("task", name, TASK_NAMES)
    options = TaskOptions(
        data_dir=data_dir,
        model=model,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        size=size,
        dirichlet=dirichlet,
        heterogeneity=heterogeneity,
        augment=augment,
        subset=subset,
    )
    if data_dir is not None and not task_defaults(name).needs_data_dir:
        raise ConfigError(
            f"task {name} has no data_dir, got {str(data_dir)!r}; leave it out"
        )
    return _quadratic(options) if name == "quadratic" else _images(name, options)


def _quadratic(options: TaskOptions) -> Quadratic:
    for option in ("model", "dirichlet", "subset"):
        if (value := getattr(options, option)) is not None:
            raise ConfigError(
                f"task quadratic has no {option}, got {value!r}; leave it out"
            )
    apart = options.heterogeneity
    return Quadratic(
        seed=options.seed,
        rank=options.rank,
        size=options.size,
        batch_size=options.batch_size or quadratic.DEFAULTS.batch_size,
        heterogeneity=quadratic.HETEROGENEITY if apart is None else apart,
    )


def _images(name: str, options: TaskOptions) -> "TorchTask":
    from acidmpi.tasks.classification import ClassificationTask

    if options.heterogeneity is not None:
        raise ConfigError(
            f"task {name} has no heterogeneity, got {options.heterogeneity!r}; leave it "
            "out, or give each rank its own data with dirichlet"
        )
    module = _IMAGE_TASKS[name]
    return ClassificationTask(name, module.DEFAULTS, module.load(options), options)
