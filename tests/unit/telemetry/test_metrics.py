"""Metrics: every line is valid JSON with the fields of the format, whoever wrote it."""

import contextlib
import json
import threading
import time

import numpy as np
import pytest

from acidmpi.errors import DataError
from acidmpi.telemetry.metrics import SCHEMA, MetricsWriter

COMMON = ["schema", "kind", "seconds", "time", "gradients"]
FIELDS = {
    "gradient": ["loss", "lr"],
    "exchange": ["peer", "sent_bytes", "exchange_seconds"],
    "heartbeat": ["total_gradients", "comm_rate", "consensus_distance"],
    "evaluation": ["test_loss", "test_accuracy"],
}


def records(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    lines = path.read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def write_one_of_each(writer, number=0.5):
    writer.gradient(1.5, number, 3, number, number)
    writer.exchange(1.5, number, 3, 2, 4096, number)
    writer.heartbeat(1.5, number, 3, 12, number, number)
    writer.evaluation(1.5, number, 3, number, number)


def test_each_kind_has_exactly_its_fields(tmp_path):
    path = tmp_path / "metrics-0.jsonl"
    with MetricsWriter(path) as writer:
        write_one_of_each(writer)
    written = records(path)
    assert [record["kind"] for record in written] == list(FIELDS)
    for record in written:
        assert list(record) == COMMON + FIELDS[record["kind"]]
        assert record["schema"] == SCHEMA
        assert (record["seconds"], record["gradients"]) == (1.5, 3)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_becomes_null(tmp_path, number):
    path = tmp_path / "metrics-0.jsonl"
    with MetricsWriter(path) as writer:
        write_one_of_each(writer, number)
    gradient, exchange, heartbeat, evaluation = records(path)
    assert gradient["loss"] is None
    assert gradient["lr"] is None
    assert exchange["exchange_seconds"] is None
    assert heartbeat["consensus_distance"] is None
    assert evaluation["test_accuracy"] is None


def test_numpy_numbers_are_written_as_plain_numbers(tmp_path):
    path = tmp_path / "metrics-0.jsonl"
    with MetricsWriter(path) as writer:
        writer.gradient(
            np.float64(1), np.float32(0.5), np.int64(3), np.float32(0.25), 1
        )
    assert records(path)[0]["loss"] == 0.25


def test_two_threads_lose_and_tear_nothing(tmp_path):
    path = tmp_path / "metrics-0.jsonl"
    count = 5000

    def compute():
        for k in range(count):
            writer.gradient(0.0, 0.0, k, 0.5, 0.1)

    def communicate():
        for k in range(count):
            writer.exchange(0.0, 0.0, k, 1, 8, 0.1)

    with MetricsWriter(path, block_seconds=0.001) as writer:
        threads = [threading.Thread(target=run) for run in (compute, communicate)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for kind in ("gradient", "exchange"):
        own = [r["gradients"] for r in records(path) if r["kind"] == kind]
        assert own == list(range(count))


def test_records_reach_the_file_without_close(tmp_path):
    path = tmp_path / "metrics-0.jsonl"
    with MetricsWriter(path) as writer:
        write_one_of_each(writer)
        end = time.monotonic() + 5
        while len(path.read_text().splitlines()) < 4:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_flush_does_not_wait_for_the_block_to_fill(tmp_path):
    path = tmp_path / "metrics-0.jsonl"
    with MetricsWriter(path, block_seconds=1000.0) as writer:
        write_one_of_each(writer)
        writer.flush()
        end = time.monotonic() + 5
        while len(path.read_text().splitlines()) < 4:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_recording_does_not_wait_for_the_disk(tmp_path):
    path = tmp_path / "metrics-0.jsonl"
    writing, release = threading.Event(), threading.Event()

    class SlowFile:
        def write(self, text):
            writing.set()
            assert release.wait(10)

        def flush(self):
            pass

        def close(self):
            pass

    writer = MetricsWriter(path, block_seconds=0.001)
    writer._file.close()
    writer._file = SlowFile()
    write_one_of_each(writer)
    assert writing.wait(5)
    write_one_of_each(writer)
    release.set()
    writer.close()


class Paused(list):
    """A list whose `append` lets the writer's thread have its turn first."""

    def __init__(self, writer):
        self.writer = writer

    def append(self, line):
        self.writer.flush()
        end = time.monotonic() + 0.3
        while self.writer._lines is self and time.monotonic() < end:
            time.sleep(0.001)
        super().append(line)


@pytest.mark.parametrize("planted", [False, True], ids=["lock", "no lock"])
def test_the_lock_keeps_a_record_that_is_being_added(tmp_path, planted):
    """Planted fault: without the lock the writer takes the list away too early."""
    path = tmp_path / "metrics-0.jsonl"
    with MetricsWriter(path, block_seconds=1000.0) as writer:
        if planted:
            writer._lock = contextlib.nullcontext()
        writer._lines = Paused(writer)
        writer.gradient(0.0, 0.0, 1, 0.5, 0.1)
    assert len(records(path)) == (0 if planted else 1)


def test_a_record_is_cheap(tmp_path):
    with MetricsWriter(tmp_path / "metrics-0.jsonl") as writer:
        count, best = 2000, float("inf")
        for _ in range(10):
            start = time.perf_counter()
            for k in range(count):
                writer.gradient(1.234567, 0.333333333, k, 0.123456, 0.1)
            best = min(best, (time.perf_counter() - start) / count)
    assert best < 20e-6  # 2 to 3 microseconds, but this machine may be busy


def test_an_unwritable_path_names_path_and_cure(tmp_path):
    with pytest.raises(DataError, match=r"missing.*--output"):
        MetricsWriter(tmp_path / "missing" / "metrics-0.jsonl")


def test_a_full_disk_is_told_once_at_close(tmp_path):
    writer = MetricsWriter(tmp_path / "metrics-0.jsonl", block_seconds=0.001)
    writer._file.close()
    writer._file = open("/dev/full", "w")  # noqa: PTH123, SIM115 - closed by the writer
    write_one_of_each(writer)
    with pytest.raises(DataError, match="No space left"):
        writer.close()
    writer.close()
