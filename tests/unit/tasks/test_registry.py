import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from acidmpi.errors import ConfigError
from acidmpi.tasks.interface import MODEL_NAMES
from acidmpi.tasks.quadratic import Quadratic
from acidmpi.tasks.registry import DEFAULT_TASK, TASK_NAMES, load_task, task_defaults


def test_neither_names_nor_defaults_nor_the_quadratic_need_torch():
    program = (
        "import sys\n"
        "from acidmpi.tasks.registry import TASK_NAMES, load_task, task_defaults\n"
        "import acidmpi.tasks.groups, acidmpi.tasks.recipe\n"
        "print([task_defaults(name).epochs for name in TASK_NAMES])\n"
        "task = load_task('quadratic', rank=3, size=64)\n"
        "task.gradient(task.initial(), task.generator)\n"
        "sys.exit('torch' in sys.modules or 'mpi4py.MPI' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_defaults_stand_without_data_and_name_known_models():
    assert DEFAULT_TASK == TASK_NAMES[0] == "digits"
    for name in TASK_NAMES:
        defaults = task_defaults(name)
        assert (defaults.model in MODEL_NAMES) == defaults.uses_torch


@pytest.mark.parametrize("ask", [task_defaults, load_task])
def test_unknown_task_lists_the_known(ask):
    with pytest.raises(
        ConfigError, match="'svhn'; known: digits, mnist, cifar10, imagenet, quad"
    ):
        ask("svhn")


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"subset": 0},
        {"dirichlet": 0.0},
        {"dirichlet": float("nan")},
        {"heterogeneity": -1.0},
        {"heterogeneity": float("nan")},
        {"seed": -1},
        {"rank": 4, "size": 4},
        {"rank": -1, "size": 4},
    ],
)
def test_options_that_cannot_be_are_refused_and_shown(options):
    name, value = next(iter(options.items()))
    with pytest.raises(ConfigError, match=f"{name} .*got .*{value}"):
        load_task("digits", **options)


@pytest.mark.parametrize("name", ["model", "dirichlet", "subset"])
def test_quadratic_refuses_what_it_would_ignore(name):
    value = {"model": "mlp", "dirichlet": 0.3, "subset": 5}[name]
    with pytest.raises(ConfigError, match=f"quadratic has no {name}"):
        load_task("quadratic", **{name: value})


@pytest.mark.parametrize("name", ["digits", "quadratic"])
def test_a_folder_of_data_is_for_tasks_that_need_one(name):
    with pytest.raises(ConfigError, match=f"{name} has no data_dir, got '/nope'; "):
        load_task(name, data_dir=Path("/nope"))


def test_heterogeneity_is_for_the_quadratic_alone():
    with pytest.raises(ConfigError, match=r"digits has no heterogeneity, got 0\.5"):
        load_task("digits", heterogeneity=0.5)


@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_heterogeneity_sets_the_minima_apart(apart):
    tasks = [
        load_task("quadratic", heterogeneity=apart, rank=r, size=2) for r in (0, 1)
    ]
    spread = float(np.std(tasks[0]._own - tasks[1]._own)) / 2**0.5
    assert spread == pytest.approx(apart, rel=0.1)


def test_quadratic_is_built_for_its_rank():
    task = load_task("quadratic", seed=2, rank=1, size=3, batch_size=4)
    assert isinstance(task, Quadratic)
    same = Quadratic(seed=2, rank=1, size=3, batch_size=4)
    x = task.initial()
    first, second = (t.gradient(x, t.generator) for t in (task, same))
    assert (first == second).all()
