"""Reading folders: what they hold, what they lack, and files that do not fit together."""

import json
import time

import numpy as np
import pytest

from acidmpi.errors import ConfigError, DataError
from acidmpi.report.records import read_records
from acidmpi.report.runs import find_runs, ranges, read_run
from acidmpi.report.timeline import BINS


def test_a_run_as_lines(make):
    run = read_run(make("a", steps=40))
    assert (run.size, run.seed, run.finished, run.train_seconds) == (4, 0, True, 4.0)
    curves = run.curves
    assert curves.gradients[-1] == 160
    assert curves.bytes[-1] == 160 * 100
    assert np.all(np.diff(curves.bytes) >= 0)
    known = np.isfinite(curves.test_loss)
    assert known.sum() == 4
    np.testing.assert_allclose(
        curves.test_loss[known], 2 * np.exp(-np.arange(1, 5) * 1.0)
    )
    at = np.flatnonzero(np.isfinite(curves.loss))
    np.testing.assert_allclose(
        curves.loss[at], np.exp(-curves.seconds[at]), rtol=0.15, atol=1e-3
    )


def test_bytes_of_a_method_without_exchanges_are_spread_over_its_gradients(make):
    curves = read_run(make("a", method="allreduce")).curves
    np.testing.assert_allclose(curves.bytes, curves.gradients / 160 * 10_000)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"summary": False}, "no summary"),
        ({"stop_reason": "interrupted"}, "ended early: interrupted"),
        ({"stop_reason": "failed"}, "ended early: failed"),
        ({"ranks": [1]}, "no metrics of ranks 0, 2-3"),
    ],
)
def test_what_a_run_lacks_is_said(make, options, said):
    run = read_run(make("a", **options))
    assert not run.finished
    assert said in run.missing
    assert len(run.curves.seconds) > 0


def test_a_simulated_run_has_one_file_and_counts_gradients_by_heartbeats(make):
    folder = mixed(make("a", ranks=[0]), transport="simulated")
    path = folder / "metrics-0.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "heartbeat" in line))
    run = read_run(folder)
    assert run.finished
    assert run.train_seconds == 4.0
    assert run.curves.gradients[-1] == 160
    assert np.all(np.diff(run.curves.gradients) >= 0)


def test_a_run_without_any_metrics_is_not_finished(make):
    run = read_run(make("a", ranks=[], summary=False))
    assert (run.size, run.finished, len(run.curves.loss)) == (0, False, 0)


def test_half_a_last_line_is_passed_over_and_half_a_line_elsewhere_is_not(make):
    path = make("a") / "metrics-0.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"schema": 1, "kind": "gra')
    assert read_records(path).gradients == 40
    path.write_text(whole[:500] + "\n" + whole[500:])
    with pytest.raises(
        DataError, match=r"line \d+ of .*metrics-0.jsonl must be a record"
    ):
        read_records(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hello", "not JSON"),
        ("[1]", "cannot be used"),
        ("{}", "without 'schema'"),
        ('{"schema": 2, "kind": "gradient"}', "schema 2, not 1"),
        ('{"schema": 1, "kind": "gradient", "seconds": 1}', "without 'loss'"),
        ('{"schema": 1, "kind": "gradient", "seconds": -1, "loss": 1}', "not negative"),
        ('{"schema": 1, "kind": "gradient", "seconds": "1", "loss": 1}', "cannot be"),
        ('{"schema": 1, "kind": "gradient", "seconds": 1, "loss": "x"}', "cannot be"),
        ('{"schema": 1, "kind": "gradient", "seconds": Infinity, "loss": 1}', "finite"),
        (
            '{"schema": 1, "kind": "exchange", "seconds": 1, "sent_bytes": 1,'
            ' "peer": Infinity}',
            "infinity",
        ),
        (f'{{"schema": 1, "kind": "gradient", "seconds": 1{"0" * 400}}}', "too large"),
    ],
)
def test_a_line_that_is_no_record_is_told(tmp_path, line, said):
    path = tmp_path / "metrics-0.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match="line 1 of") as caught:
        read_records(path)
    assert said in str(caught.value)


@pytest.mark.parametrize("before", [0, 1, 2000])
def test_bytes_that_are_not_text_are_told(tmp_path, before):
    path = tmp_path / "metrics-0.jsonl"
    path.write_bytes(b'{"schema": 1, "kind": "new"}\n' * before + b"\xff\xfe\n")
    with pytest.raises(DataError, match=f"line {before + 1} of .*must be a record"):
        read_records(path)


def test_kinds_of_later_versions_and_unknown_losses_are_passed_over(tmp_path):
    path = tmp_path / "metrics-0.jsonl"
    lines = [
        {"schema": 1, "kind": "new"},
        {"schema": 1, "kind": "gradient", "seconds": 1, "loss": None},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_records(path)
    assert (found.records, found.gradients) == (2, 1)


def mixed(folder, **changes):
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "async"}, "different runs: method is 'a2cid2' in config.toml"),
        ({"seed": 5}, "different runs: seed"),
        ({"size": 2}, "2 ranks, but there are metrics of ranks 2-3"),
        ({"schema": 7}, "schema 1"),
        ({"size": "4"}, "no whole summary"),
        ({"bytes_sent": ["x"]}, "bytes_sent"),
        ({"idle_seconds": 3}, "idle_seconds"),
        ({"dead_ranks": 3.0}, "dead_ranks"),
        ({"dead_ranks": [{}]}, "dead_ranks"),
        ({"versions": 1.0}, "versions"),
        ({"test_accuracy": float("nan")}, "test_accuracy"),
    ],
)
def test_files_that_do_not_belong_together_are_told(make, changes, said):
    with pytest.raises(DataError) as caught:
        read_run(mixed(make("a"), **changes))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.toml", "= 1"), ("summary.json", "{"), ("notes.toml", "x")],
)
def test_files_that_cannot_be_read_are_told(make, name, text):
    folder = make("a")
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name} is not valid"):
        read_run(folder)


def test_runs_are_found_by_their_folder_or_the_one_above(make, tmp_path):
    a, b = make("many/a"), make("many/b")
    assert find_runs([b, tmp_path / "many"]) == [b, a]
    with pytest.raises(ConfigError, match="there is no such folder"):
        find_runs([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="it has neither"):
        find_runs([tmp_path / "empty"])


def test_ranges_of_ranks():
    assert ranges([0, 2, 3, 4, 9, 10]) == "0, 2-4, 9-10"
    assert ranges([]) == ""


def test_a_run_that_went_on_from_a_checkpoint_is_one(make):
    path = make("a") / "metrics-0.jsonl"
    path.write_text(2 * path.read_text())
    found = read_records(path)
    assert found.gradients == 80
    assert found.last_gradient_seconds == pytest.approx(4.0 + 4.0)


def test_records_a_little_out_of_order_are_no_restart(tmp_path):
    path = tmp_path / "metrics-0.jsonl"
    one = '{{"schema": 1, "kind": "gradient", "seconds": {}, "loss": 1.0}}\n'
    path.write_text("".join(one.format(s) for s in (1.0, 5.0, 4.9, 6.0)))
    assert read_records(path).last_gradient_seconds == 6.0


def long_file(path, count):
    one = '{{"schema": 1, "kind": "gradient", "seconds": {}, "loss": 1.0}}\n'
    path.write_text("".join(one.format(i / 100) for i in range(count)))
    return path


def seconds_of(path):
    began = time.process_time()
    found = read_records(path)
    return time.process_time() - began, found


def test_the_time_of_a_long_file_grows_with_its_length_only_and_the_memory_does_not(
    tmp_path,
):
    short, long = (long_file(tmp_path / str(n), n) for n in (10_000, 80_000))
    quick = min(seconds_of(short)[0] for _ in range(3))
    slow, found = min((seconds_of(long) for _ in range(2)), key=lambda each: each[0])
    assert found.gradients == 80_000
    assert slow / quick < 8 * 2
    assert all(len(values) == BINS for values in found.timeline._sums.values())
