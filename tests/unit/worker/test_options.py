"""What a user may choose, and that every mistake is told with its name and its value."""

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from acidmpi.errors import ConfigError
from acidmpi.worker.options import WorkerOptions
from acidmpi.worker.participant import make_options

INFINITE, NAN = float("inf"), float("nan")
BAD = {
    "method": ["magic", "", None, 1, ["a2cid2"]],
    "pairing": ["random", None],
    "progress": ["threads", True],
    "comm_rate": [-1, -1e-9, NAN, INFINITE, "fast", None, [1.0]],
    "safety": [-0.1, 1.1, NAN, "1", None],
    "total_gradients": [0, -1, NAN, INFINITE, "all"],
    "average_every": [0, -5, NAN, "often"],
    "unit_seconds": [0, 0.0, -1.0, NAN, INFINITE, "second"],
    "deadline_seconds": [0, -1, NAN, INFINITE, None, "soon"],
    "chunk_bytes": [0, -4, NAN, 0.5, 1e6, None, "1M"],
    "message_bytes": [0, -4, NAN, 0.5, "60k"],
    "max_lag": [-1, NAN, INFINITE, "none"],
    "seed": [-1, 0.5, None, "chance"],
    "staging_bytes": [0, -4, NAN, 0.5, None, "64M"],
    "device": ["gpu", "cuda:1", 0, None],
    "transport": ["mpi", 1, None],
    "fault_tolerant": [1, "yes", None],
    "fault": [3, "rank=0", "rank=0 at=lunch:1 do=kill"],
}
GOOD = {
    "method": ["a2cid2", "async", "adpsgd"],
    "pairing": ["handshake", "schedule", "fifo"],
    "progress": ["thread", "inline"],
    "comm_rate": [0, 0.1, 100, np.float32(2)],
    "safety": [0, 0.5, 1],
    "total_gradients": [None, 1, np.int64(5), 1e5],
    "average_every": [None, 1, 1000],
    "unit_seconds": [None, 1e-6, 3600],
    "deadline_seconds": [1e-3, 1e6],
    "chunk_bytes": [8, 1 << 30, np.int32(64)],
    "message_bytes": [None, 1, np.int64(1 << 16)],
    "max_lag": [None, 0, 1000],
    "seed": [0, 2**40, np.uint32(7)],
    "staging_bytes": [1 << 20, np.int64(1 << 30)],
    "device": ["auto", "cpu", "cuda"],
    "transport": ["auto", "host", "device", "staged"],
    "fault_tolerant": [False, True],
    "fault": [None, "rank=0 at=gradient:1 do=raise"],
    "topology": ["ring", "some/file", object()],
}


def cases(table):
    return [(name, value) for name, values in table.items() for value in values]


@pytest.mark.parametrize(("name", "value"), cases(BAD))
def test_a_mistake_is_told_with_its_name_and_value(name, value):
    with pytest.raises(ConfigError) as caught:
        WorkerOptions(**{name: value})
    assert str(caught.value).startswith(name)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(("name", "value"), cases(GOOD))
def test_what_makes_sense_is_accepted(name, value):
    assert getattr(WorkerOptions(**{name: value}), name) == value


def test_every_option_is_tried():
    names = {field.name for field in fields(WorkerOptions)}
    assert set(GOOD) == names
    assert set(BAD) == names - {"topology"}


def test_options_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        WorkerOptions().seed = 1


@pytest.mark.parametrize(("name", "value"), [("pairing", "fifo"), ("comm_rate", 2.0)])
def test_roles_say_who_asks_and_how_often(name, value):
    with pytest.raises(ConfigError, match=rf"{name} must be left at .* got {value!r}"):
        WorkerOptions(method="adpsgd", **{name: value})


@pytest.mark.parametrize("pairing", GOOD["pairing"])
@pytest.mark.parametrize("progress", GOOD["progress"])
def test_time_is_logical_only_where_a_run_can_be_repeated(pairing, progress):
    options = WorkerOptions(pairing=pairing, progress=progress)
    assert options.logical == (pairing == "schedule" and progress == "inline")


@pytest.mark.parametrize("name", GOOD)
def test_ranks_compare_every_option(name):
    one, other = GOOD[name][:2]
    held = [WorkerOptions(**{name: value}).described() for value in (one, other)]
    assert held[0][name] != held[1][name]
    assert {k for k in held[0] if held[0][k] != held[1][k]} == {name}


def test_an_option_that_does_not_exist_is_told_with_those_that_do():
    with pytest.raises(ConfigError, match=r"no option 'rate'; .*comm_rate.*topology"):
        make_options({"rate": 1.0})
    assert make_options({"comm_rate": 2.0}).comm_rate == 2.0


@pytest.mark.parametrize(
    "others",
    [{"pairing": "schedule"}, {"pairing": "fifo"}, {"method": "adpsgd"}],
)
def test_only_the_handshake_survives_deaths(others):
    with pytest.raises(ConfigError, match="checkpoints"):
        WorkerOptions(fault_tolerant=True, **others)
