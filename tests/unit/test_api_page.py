"""The reference of the API names what there is, with the values that hold."""

import ast
import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from acidmpi import errors
from acidmpi.worker.options import WorkerOptions
from acidmpi.worker.statistics import WorkerStatistics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()


def section(title):
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title):
    """Cells of the tables of a section."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in section(title).splitlines()
        if line.startswith("| `")
    ]


def names(title):
    """What stands as code in the first column, less the arguments."""
    codes = [code for row in rows(title) for code in row[0].split("`")[1::2]]
    return [code.partition("(")[0] for code in codes]


def public(path, kind):
    """Names that a class defines for others, without importing its module."""
    tree = ast.parse((ROOT / "src" / "acidmpi" / path).read_text())
    bodies = [
        n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == kind
    ]
    found = {n.name for n in bodies[0] if isinstance(n, ast.FunctionDef)}
    # The parts behind an object are nobody's interface.
    return {name for name in found if not name.startswith("_")} - {"engine"}


def test_options_and_their_defaults():
    written = {row[0].strip("`"): row[1].strip("`") for row in rows("Options")}
    defaults = {f.name: f.default for f in fields(WorkerOptions)}
    assert {name: ast.literal_eval(text) for name, text in written.items()} == defaults


def test_statistics():
    assert sorted(names("Statistics")) == sorted(
        f.name for f in fields(WorkerStatistics)
    )


def test_errors():
    kinds = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.AcidError)
    }
    assert {*names("Errors"), "AcidError"} == kinds


@pytest.mark.parametrize(
    ("path", "kind", "unlike"),
    [
        ("worker/torch/worker.py", "Worker", set()),
        # Its page refers to the other's properties.
        (
            "worker/gossip.py",
            "Gossip",
            {"clean", "finished", "progress", "stop_reason", "total_gradients_done"},
        ),
    ],
)
def test_methods(path, kind, unlike):
    shared = public("worker/participant.py", "Participant")
    arguments = {"model", "optimizer", "comm", "nonfinite", "metrics", "options"}
    assert {*names(kind)} - arguments == (public(path, kind) | shared) - unlike
