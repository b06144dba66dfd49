"""Matrices of experiments: what files may say, what runs, what is left to run."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import mpirun

from acidmpi.errors import ConfigError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "jobs" / "experiments"
FILES = sorted(FOLDER.glob("*.toml"))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    for folder in (ROOT / "jobs" / "benchmarks", FOLDER):
        monkeypatch.syspath_prepend(str(folder))


def matrix_of(text, tmp_path):
    from matrix import read_matrix

    path = tmp_path / "m.toml"
    path.write_text(text)
    return read_matrix(path)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_the_files_that_come_along_are_understood(path, tmp_path):
    from matrix import read_matrix

    from acidmpi.config.command_line import make_parser, parse
    from acidmpi.config.train import TrainConfig

    experiments = read_matrix(path).experiments
    assert len({each.name for each in experiments}) == len(experiments)
    parser = make_parser(TrainConfig, "train", "", "")
    for each in experiments:
        said = parse(parser, TrainConfig, each.arguments(tmp_path, Path("d"))[2:])
        assert said.seed == each.config.seed
        assert (said.method, said.comm_rate, said.fault, said.topology) == (
            *(each.config.method, each.config.comm_rate),
            *(each.config.fault, each.config.topology),
        )


def test_a_sweep_is_every_combination_with_every_seed(tmp_path):
    matrix = matrix_of(
        """
        seeds = [3, 4]
        [defaults]
        task = "quadratic"
        [[rows]]
        name = "gossip"
        sweep = { method = ["async", "a2cid2"], comm_rate = [1.0, 2.0], ranks = [2, 4] }
        [[rows]]
        name = "sum"
        method = "allreduce"
        network = "100mbit"
        """,
        tmp_path,
    )
    assert len(matrix.experiments) == 2 * (2 * 2 * 2 + 1)
    first, *_ = matrix.experiments
    assert (first.name, first.ranks) == ("gossip-async-1-2-seed3", 2)
    assert [e.config.seed for e in matrix.experiments] == [3] * 9 + [4] * 9
    assert [e.network for e in matrix.experiments[8::9]] == ["100mbit"] * 2


def test_a_run_goes_on_from_its_checkpoint_if_it_is_complete(tmp_path):
    matrix = matrix_of('[[rows]]\nname = "a"', tmp_path)
    (only,) = matrix.experiments
    folder = tmp_path / "run"
    (folder / "checkpoints" / "set-000003").mkdir(parents=True)
    assert "--overwrite" in only.arguments(folder, None)
    assert "--resume" not in only.arguments(folder, None)
    (folder / "checkpoints" / "set-000003" / "manifest.json").touch()
    assert "--overwrite" not in only.arguments(folder, None)
    assert "--resume" in only.arguments(folder, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[row]]", "did you mean 'rows'"),
        ('[[rows]]\nname = "a"\nmethdo = "async"', "did you mean 'method'"),
        ('[[rows]]\nname = "a"\nseed = 1', "unknown key 'seed'"),
        ('[report]\ntarget = 1\n[[rows]]\nname = "a"', "unknown key 'target'"),
        ('[report]\ntarget_loss = -1\n[[rows]]\nname = "a"', "--target-loss must be"),
        ('[[rows]]\nname = "a"\nmethod = "sgd"', "row 'a': --method must be"),
        (
            '[[rows]]\nname = "a"\nmethod = "allreduce"\ncomm_rate = 2.0',
            "--comm-rate is for",
        ),
        ('seeds = [1, 1]\n[[rows]]\nname = "a"', "seeds must be different"),
        ('seeds = 3\n[[rows]]\nname = "a"', "seeds must be"),
        ('[[rows]]\nname = "a"\nnetwork = 5', "network must be a rate"),
        ('[[rows]]\nname = "a"\nranks = 0', "ranks must be 1 or more"),
        ("rows = 3", "rows are tables"),
        ("defaults = 3", r"defaults is a table \[defaults\], got 3"),
        ("report = [1]", r"report is a table \[report\], got \[1\]"),
        ("[[rows]]\nname = 3\nsweep = { bits = [2] }", "letters, digits and hyphens"),
        ("title = 'x'", "there must be"),
        ("= 1", "not valid TOML"),
    ],
)
def test_a_mistake_in_a_file_is_told(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        matrix_of(text, tmp_path)


def start(*arguments, **more):
    return subprocess.Popen(
        [sys.executable, FOLDER / "run.py", *arguments],
        env=mpirun.environment()
        | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def experiments(*arguments, **more):
    with start(*arguments, **more) as process:
        said, told = process.communicate(timeout=100)
    return subprocess.CompletedProcess(arguments, process.returncode, said, told)


SMALL = """
[defaults]
task = "quadratic"
epochs = 0.2
[[rows]]
name = "good"
[[rows]]
name = "bad"
topology = "nowhere"
"""


def test_what_finished_is_not_run_again_and_what_failed_is_named(tmp_path):
    path, results = tmp_path / "small.toml", tmp_path / "results"
    path.write_text(SMALL)
    first = experiments(path, "--results", results)
    assert first.returncode == 1, first.stderr
    assert "bad-seed0: FAILED" in first.stdout
    assert "not finished:" in first.stdout
    assert (results / "report" / "report.html").exists()
    written = json.loads((results / "good-seed0" / "summary.json").read_text())
    assert written["stop_reason"] == "finished"
    path.write_text(SMALL.replace("nowhere", "ring"))
    again = experiments(path, "--results", results)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 runs, 1 done before" in again.stdout
    assert json.loads((results / "good-seed0" / "summary.json").read_text()) == written


def test_an_interruption_ends_the_run_in_good_order(tmp_path):
    path, results = tmp_path / "long.toml", tmp_path / "results"
    path.write_text(
        '[defaults]\ntask = "quadratic"\nepochs = 1e6\n[[rows]]\nname = "a"\n'
    )
    with start(path, "--results", results) as driver:
        metrics = results / "a-seed0" / "metrics-1.jsonl"
        for _ in range(600):
            if metrics.exists() and metrics.stat().st_size:
                break
            time.sleep(0.1)
        driver.terminate()
        said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    assert "the same command goes on from here" in said
    summary = json.loads((results / "a-seed0" / "summary.json").read_text())
    assert summary["stop_reason"] == "interrupted"


def test_arrays_of_slurm_hold_what_is_missing_by_ranks(tmp_path):
    path, called = tmp_path / "m.toml", tmp_path / "bin"
    path.write_text(
        '[defaults]\ntask = "quadratic"\n[[rows]]\nname = "a"\n'
        "sweep = { ranks = [2, 4], comm_rate = [1.0, 2.0] }\n"
    )
    called.mkdir()
    (called / "sbatch").write_text('#!/bin/sh\necho "sbatch $@"\n')
    (called / "sbatch").chmod(0o755)
    results = tmp_path / "r"
    done = results / "a-2-1-seed0"
    done.mkdir(parents=True)
    (done / "summary.json").write_text('{"stop_reason": "finished"}')
    found = experiments(
        path, "--submit", "--results", results, PATH=f"{called}:/usr/bin:/bin"
    )
    assert found.returncode == 0, found.stderr
    lines = [x for x in found.stdout.splitlines() if x.startswith("sbatch")]
    assert [line.split()[1:3] for line in lines] == [
        ["--ntasks=2", "--array=1"],
        ["--ntasks=4", "--array=2-3"],
    ]
    one = experiments(
        *(path, "--submit", "--results", results, "--index", "3"),
        PATH=f"{called}:/usr/bin:/bin",
    )
    (line,) = [x for x in one.stdout.splitlines() if x.startswith("sbatch")]
    assert line.split()[1:3] == ["--ntasks=4", "--array=3"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.toml"], "No such file"),
        ([str(FOLDER / "cifar10.toml")], "got no --data-dir"),
        ([str(FOLDER / "doubling.toml"), "--index", "99"], "--index must be"),
    ],
)
def test_one_message_for_each_mistake(arguments, said):
    done = experiments(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_slurm_is_one():
    script = ROOT / "jobs" / "slurm" / "experiments.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
