"""The command before any rank computes: names, options, help, mistakes."""

import subprocess
import sys

import pytest

from acidmpi.bench.cli import BENCHMARKS, main
from acidmpi.config.options import options_of

FROZEN = {
    "kernels": "size rounds",
    "exchange": "size dtype method chunk-bytes message-bytes rounds deadline-seconds",
    "pairing": "size topology method pairing seconds rounds seed deadline-seconds",
    "consensus": "topology method comm-rate unit-seconds units since seeds size dtype "
    "exchanges deadline-seconds",
    "step": "depth rounds",
    "idle": "size topology seconds deadline-seconds",
    "checkpoint": "size seconds rounds step-seconds folder deadline-seconds",
    "fault-tolerance": "task model batch-size gradients rounds topology comm-rate seed "
    "deadline-seconds",
    "iteration": "model method methods rivals batch-size image-size sentence-length "
    "matrix-rank start-step density bits bucket-bytes warmup iterations repeats rounds "
    "deadline-seconds",
    "gpu-kernels": "sizes rounds",
    "gpu-exchange": "size transport chunk-bytes rounds deadline-seconds",
    "gpu-step": "depth batch-size image-size precision transport steps warmup rounds "
    "deadline-seconds",
}


def test_the_command_line_is_frozen():
    found = {
        name: " ".join(o.flag[2:] for o in options_of(benchmark.options))
        for name, benchmark in BENCHMARKS.items()
    }
    assert found == FROZEN


@pytest.mark.parametrize("name", ["", *BENCHMARKS])
def test_help_needs_neither_mpi_nor_torch(name):
    code = (
        "import sys; from acidmpi.bench.cli import main; "
        f"status = main([*'{name}'.split(), '--help']); "
        "print('loaded:', *({'mpi4py', 'numba', 'torch'} & set(sys.modules))); "
        "sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "loaded:"
    names = FROZEN[name].split() if name else list(BENCHMARKS)
    for word in names:
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["exchnge"], "did you mean 'exchange'?"),
        (["all"], "must be one of kernels, exchange"),
        (["exchange", "--sise", "3"], "did you mean '--size'?"),
        (["exchange", "--size", "0"], "--size must be a whole number at least 1"),
        (["consensus", "--method", "none"], "--method must be one of"),
        (["idle", "5"], "unexpected argument '5'"),
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(capsys, arguments, said):
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("acidmpi: error: ")
    assert said in line


def test_only_rank_0_tells_of_it(capsys, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert main(["nothing"]) == 2
    told = capsys.readouterr()
    assert told.out + told.err == ""


def test_no_name_shows_what_there_is(capsys):
    assert main([]) == 2
    assert "consensus" in capsys.readouterr().out
