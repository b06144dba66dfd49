"""The page of all benchmarks: what is wrong is told before one is started."""

import json
import subprocess
from pathlib import Path

import pytest

LOCAL = Path(__file__).parents[3] / "jobs" / "local"


@pytest.fixture
def record(monkeypatch):
    """The script, which may start nothing."""
    monkeypatch.syspath_prepend(str(LOCAL))
    import record_benchmarks

    monkeypatch.setattr(record_benchmarks.subprocess, "run", started)
    return record_benchmarks


def started(command, **_):
    raise AssertionError(f"{command} was started")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/dev/null/x"], "PAGE must be a file in a folder that can be written"),
        (["."], "PAGE must be a file"),
        (["nowhere/page.md"], "PAGE must be a file"),
        (["page.md", "--only", "nothing"], "--only must be part of one of consensus,"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_started(
    record, capsys, tmp_path, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    assert record.main(words) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith(f"record_benchmarks: error: {said}")
    assert (told.out, list(tmp_path.iterdir())) == ("", [])


def test_without_an_mpi_nothing_is_started(record, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record.main([str(tmp_path / "page.md"), "--only", "exchange"]) == 2
    assert "there is no mpiexec" in capsys.readouterr().err


def test_a_benchmark_that_hangs_costs_only_itself(record, tmp_path, monkeypatch):
    hardware = {"cpu": "c", "cores": 2, "memory_bytes": 2**30, "system": "s"}
    result = {"hardware": hardware, "versions": {"numpy": "2"}, "commit": "abc"}
    known = subprocess.CompletedProcess([], 0, f"a table\n{json.dumps(result)}\n", "")

    def run(command, **_):
        if command[-1] == "kernels":
            raise subprocess.TimeoutExpired(command, 600)
        return known

    monkeypatch.setattr(record.subprocess, "run", run)
    monkeypatch.setattr(record, "RUNS", [(1, "kernels", {}), (1, "step", {})])
    assert record.main([str(tmp_path / "page.md")]) == 1
    assert "a table" in (tmp_path / "page.md").read_text()
    assert record.main([str(tmp_path / "other.md"), "--only", "kernels"]) == 1
    assert not (tmp_path / "other.md").exists()
