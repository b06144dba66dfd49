"""The summary: the promised fields, valid JSON, there completely or not at all."""

import json
import math
import re

import numpy as np
import pytest

from acidmpi.errors import DataError
from acidmpi.telemetry.summary import (
    FIELDS,
    RankFigures,
    RunFigures,
    make_summary,
    write_summary,
)

PROMISED = re.findall(
    r"\w+",
    "task, model, method, pairing, compression, topology, size, seed, batch_size, "
    "comm_rate, comm_rate_measured, chi_1, chi_2, eta, alpha_tilde, transport, "
    "mpi_library, versions, wall_seconds, consensus_distance, mean_drift, train_loss, "
    "test_loss, test_accuracy, dead_ranks, stop_reason, device, device_uuid, "
    "gradients, exchanges, control_messages, bytes_sent, idle_seconds",
)


def run_figures(**changes):
    values = {
        "task": "digits",
        "model": "mlp",
        "method": "a2cid2",
        "pairing": "handshake",
        "compression": "none",
        "topology": "ring",
        "size": 2,
        "seed": 0,
        "batch_size": 16,
        "comm_rate": 1.0,
        "comm_rate_measured": 0.98,
        "chi_1": 0.5,
        "chi_2": 0.5,
        "eta": 1.0,
        "alpha_tilde": 0.5,
        "transport": "host",
        "mpi_library": "Some MPI",
        "versions": {"python": "3"},
        "wall_seconds": 1.5,
        "consensus_distance": 1e-3,
        "mean_drift": 1e-9,
        "train_loss": 0.1,
        "test_loss": 0.2,
        "test_accuracy": 0.9,
        "dead_ranks": (),
        "stop_reason": "finished",
    }
    return RunFigures(**{**values, **changes})


def rank_figures(rank):
    return RankFigures(
        device="cpu",
        device_uuid=None,
        gradients=10 + rank,
        exchanges=20 + rank,
        control_messages=30,
        bytes_sent=1 << 40,
        idle_seconds=0.25,
    )


def test_the_fields_are_those_that_were_promised():
    summary = make_summary(run_figures(), [rank_figures(0), rank_figures(1)])
    assert set(summary) == {"schema", *PROMISED}
    assert list(summary) == list(FIELDS)
    assert summary["schema"] == 1


def test_lists_stand_in_the_order_of_ranks():
    summary = make_summary(run_figures(), [rank_figures(0), rank_figures(1)])
    assert summary["gradients"] == [10, 11]
    assert summary["exchanges"] == [20, 21]
    assert summary["device_uuid"] == [None, None]


def test_a_rank_that_is_not_known_is_null():
    summary = make_summary(run_figures(), [rank_figures(0), None])
    assert summary["idle_seconds"] == [0.25, None]
    assert summary["device"] == ["cpu", None]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_the_file_is_valid_json_whatever_the_numbers(tmp_path, number):
    path = tmp_path / "summary.json"
    run = run_figures(train_loss=number, test_loss=None, consensus_distance=number)
    write_summary(path, make_summary(run, [rank_figures(0)]))

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    read = json.loads(path.read_text(), parse_constant=refuse)
    assert read["train_loss"] is None
    assert read["consensus_distance"] is None
    assert read["wall_seconds"] == 1.5


def test_a_second_summary_replaces_the_first_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "summary.json"
    for reason in ("interrupted", "finished"):
        write_summary(path, make_summary(run_figures(stop_reason=reason), []))
        assert json.loads(path.read_text())["stop_reason"] == reason
    assert [found.name for found in tmp_path.iterdir()] == ["summary.json"]


def test_a_failed_write_leaves_the_earlier_summary(tmp_path):
    path = tmp_path / "summary.json"
    write_summary(path, {"schema": 1})
    with pytest.raises(TypeError):
        write_summary(path, {"schema": object()})
    assert json.loads(path.read_text()) == {"schema": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["summary.json"]


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    run = run_figures(size=np.int64(2), eta=np.float32(0.5), train_loss=np.float64(1))
    write_summary(tmp_path / "summary.json", make_summary(run, []))
    read = json.loads((tmp_path / "summary.json").read_text())
    assert (read["size"], read["eta"], read["train_loss"]) == (2, 0.5, 1.0)


def test_a_missing_folder_is_one_error_with_a_cure(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*--output"):
        write_summary(tmp_path / "nowhere" / "summary.json", {})
