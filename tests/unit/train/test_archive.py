"""The archive: partial summaries while there is nothing better, then the final one."""

import contextlib
import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from acidmpi.clocks import ManualClock
from acidmpi.config.train import TrainConfig
from acidmpi.errors import DataError
from acidmpi.telemetry.summary import FIELDS
from acidmpi.train.archive import Archive
from acidmpi.train.course import Figures
from acidmpi.train.folder import RunFolder
from acidmpi.train.outcome import rank_figures, result_rows

STATISTICS = Figures(
    total_gradients=30,
    gradients=10,
    exchanges=8,
    control_messages=12,
    bytes_sent=4096,
    idle_seconds=0.5,
    comm_rate_measured=0.9,
    chi_1=1.0,
    chi_2=0.5,
    eta=0.3,
    alpha_tilde=0.7,
    transport="host",
    consensus_distance=1e-3,
    mean_drift=1e-9,
    train_loss=0.2,
)


@pytest.fixture
def archive(tmp_path):
    clock = ManualClock(100.0)
    made = Archive(TrainConfig(), RunFolder(tmp_path), 0, 3, clock, 100.0)
    clock.advance(2.5)
    return made


def read(archive):
    return json.loads(archive._folder.summary.read_text())


def course():
    return SimpleNamespace(statistics=lambda: STATISTICS)


def test_a_partial_summary_has_every_field_even_before_there_is_a_course(archive):
    archive.keep_partial("failed")
    summary = read(archive)
    assert list(summary) == list(FIELDS)
    assert summary["stop_reason"] == "failed"
    assert summary["wall_seconds"] == 2.5
    assert summary["chi_1"] is None
    assert summary["gradients"] == [None, None, None]
    assert summary["versions"]["python"]


def test_a_partial_summary_has_what_rank_0_knows(archive):
    archive.course = course()
    archive.scores = (0.25, 0.75)
    archive.keep_partial("interrupted")
    summary = read(archive)
    assert summary["gradients"] == [10, None, None]
    assert summary["chi_1"] == 1.0
    assert (summary["test_loss"], summary["test_accuracy"]) == (0.25, 0.75)


def test_a_partial_summary_never_replaces_the_final_one(archive):
    ranks = [rank_figures(STATISTICS)] * 3
    archive.keep_partial("interrupted")
    archive.keep(archive.figures(STATISTICS, "finished"), ranks)
    archive.keep_partial("interrupted")
    summary = read(archive)
    assert summary["stop_reason"] == "finished"
    assert summary["bytes_sent"] == [4096] * 3


@pytest.mark.parametrize("planted", [False, True], ids=["lock", "no lock"])
def test_the_lock_lets_the_final_summary_be_the_last(archive, planted):
    """Planted fault: without it a partial one that began earlier ends later."""
    if planted:
        archive._lock = contextlib.nullcontext()
    began, final_kept = threading.Event(), threading.Event()

    def slow():
        began.set()
        final_kept.wait(0.3)
        return STATISTICS

    archive.course = SimpleNamespace(statistics=slow)
    partial = threading.Thread(target=archive.keep_partial, args=["interrupted"])
    partial.start()
    assert began.wait(5)
    archive.keep(archive.figures(STATISTICS, "finished"), [rank_figures(STATISTICS)])
    final_kept.set()
    partial.join()
    expected = "interrupted" if planted else "finished"
    assert read(archive)["stop_reason"] == expected


def test_a_failure_to_keep_the_partial_one_hides_no_other_error(archive, tmp_path):
    tmp_path.rename(tmp_path.with_name("moved"))
    archive.keep_partial("failed")
    with pytest.raises(DataError):
        archive.keep(archive.figures(STATISTICS, "finished"), [])


def test_the_table_has_the_figures_that_people_ask_for(archive):
    archive.scores = (0.25, 0.75)
    run = archive.figures(STATISTICS, "finished")
    rows = dict(result_rows(run, [rank_figures(STATISTICS)] * 3, "runs/x"))
    assert rows["test accuracy"] == "75.00%"
    assert rows["gradients"] == "30 (10 to 10 a rank)"
    assert rows["exchange rate"] == "0.9 of 1"
    assert rows["messages per exchange"] == "3"
    assert rows["folder"] == "runs/x"


def test_the_table_of_ranks_in_step_has_no_exchanges(tmp_path):
    config = TrainConfig(method="allreduce", compression="topk")
    clock = ManualClock(0.0)
    archive = Archive(config, RunFolder(tmp_path), 0, 3, clock, 0.0)
    nothing = replace(STATISTICS, comm_rate_measured=None)
    run = archive.figures(nothing, "finished")
    assert (run.compression, run.topology, run.comm_rate) == ("topk", None, None)
    rows = dict(result_rows(run, [rank_figures(STATISTICS)] * 3, "runs/x"))
    assert rows["run"].endswith("allreduce with compression topk")
    assert not [name for name in rows if "exchange" in name]


def test_the_table_of_synchronous_gossip_has_exchanges_at_no_asked_rate(tmp_path):
    config = TrainConfig(method="gossip", topology="ring")
    archive = Archive(config, RunFolder(tmp_path), 0, 3, ManualClock(0.0), 0.0)
    run = archive.figures(STATISTICS, "finished")
    assert (run.pairing, run.topology, run.comm_rate) == (None, "ring", None)
    rows = dict(result_rows(run, [rank_figures(STATISTICS)] * 3, "runs/x"))
    assert rows["run"].endswith("gossip on ring")
    assert rows["exchange rate"] == "0.9"


def test_adpsgd_is_paired_by_its_roles(tmp_path):
    config = TrainConfig(method="adpsgd")
    archive = Archive(config, RunFolder(tmp_path), 0, 2, ManualClock(0.0), 0.0)
    run = archive.figures(STATISTICS, "finished")
    assert (run.pairing, run.comm_rate) == ("roles", 1.0)


def test_the_table_of_one_rank_that_learned_nothing(archive):
    run = archive.figures(STATISTICS, "interrupted")
    rows = dict(result_rows(run, [rank_figures(STATISTICS)], "runs/x"))
    assert rows["test accuracy"] == "-"
    assert rows["gradients"] == "10"
