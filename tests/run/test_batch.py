"""The batch of benchmarks: rows from a file, commands for each launcher, results kept."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import mpirun

from acidmpi.bench.cli import BENCHMARKS
from acidmpi.config.command_line import make_parser, parse
from acidmpi.errors import ConfigError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "jobs" / "benchmarks"
PAPER = FOLDER / "paper.toml"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def rows_of(text, tmp_path, reduced=False):
    from rows import read_rows

    path = tmp_path / "batch.toml"
    path.write_text(text)
    return read_rows(path, reduced)


def test_the_paper_has_its_models_and_sweeps():
    from rows import read_rows

    rows = {row.name: row for row in read_rows(PAPER, False)}
    for name in ("resnet50", "resnet152", "bert-base", "bert-large"):
        assert rows[name].options.model == name
        assert rows[name].ranks == 32
    assert rows["bert-large-bucket-bytes-0"].options.bucket_bytes == 0
    assert rows["bert-large-bucket-bytes-1572864000"].options.matrix_rank == 32
    widths = [row.options.matrix_rank for row in rows.values() if "matrix" in row.name]
    assert widths == [32, 64, 128, 256]
    assert [r.ranks for n, r in rows.items() if "50-ranks" in n] == [4, 8, 16, 32, 64]


def test_reduced_rows_are_small_few_and_all_different():
    from rows import read_rows

    rows = read_rows(PAPER, True)
    assert {row.options.model for row in rows} == {"resnet18", "bert-tiny"}
    assert {row.ranks for row in rows} == {2}
    assert len({(row.ranks, row.options) for row in rows}) == len(rows)
    assert {row.options.bucket_bytes for row in rows} >= {0, 1572864000}


def test_the_command_line_of_a_row_means_the_row():
    from rows import read_rows

    kind = BENCHMARKS["iteration"].options
    for row in read_rows(PAPER, False) + read_rows(PAPER, True):
        said = row.arguments[3:]
        assert parse(make_parser(kind, "bench", "", ""), kind, said) == row.options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[row]]\nname = "a"', "did you mean 'rows'"),
        ('[[rows]]\nname = "a"\nmodle = "resnet18"', "did you mean 'model'"),
        ('[defaults]\nrank = 3\n[[rows]]\nname = "a"', "unknown key 'rank'"),
        ('[[rows]]\nname = "a/b"', "got 'a/b'"),
        ('[[rows]]\nname = "a"\nranks = 0', "ranks must be 1 or more, got 0"),
        ('[[rows]]\nname = "a"\nbatch_size = 0', "--batch-size must be"),
        ('[[rows]]\nname = "a"\n[[rows]]\nname = "a"', "'a' twice"),
        ('[[rows]]\nname = "a"\nsweep = {bits = 1}', "a sweep is"),
        ('[[rows]]\nname = "a"\nsweep = {bits = []}', "a sweep is"),
    ],
)
def test_a_mistake_in_a_file_is_told(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        rows_of(text, tmp_path)


def test_every_launcher_gets_hosts_and_interface_in_its_own_words():
    from launch import MPICH, OPEN_MPI, SLURM, Cluster, command, variables

    cluster = Cluster(hosts=("a:2", "b:2"), python="py", interface="eth0", threads=3)
    said = {
        k: shlex.join(command(k, cluster, 4, ["x"])) for k in (OPEN_MPI, MPICH, SLURM)
    }
    assert "-n 4 --host a:2,b:2" in said[OPEN_MPI]
    for name in ("GLOO_SOCKET_IFNAME", "OMP_NUM_THREADS"):
        assert f"-x {name}" in said[OPEN_MPI]
    assert "-n 4 -hosts a:2,b:2 -iface eth0 py x" in said[MPICH]
    assert "--ntasks=4" in said[SLURM]
    assert "--nodelist=a,b" in said[SLURM]
    found = variables(OPEN_MPI, cluster)
    assert found["OMPI_MCA_btl_tcp_if_include"] == found["GLOO_SOCKET_IFNAME"] == "eth0"
    assert found["OMP_NUM_THREADS"] == "3"
    assert not any("oversubscribe" in value for value in found.values())


def test_a_rank_computes_with_the_cores_that_slurm_gives_it(monkeypatch):
    from launch import OPEN_MPI, SLURM, Cluster, variables

    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert variables(SLURM, Cluster())["OMP_NUM_THREADS"] == "4"
    assert variables(SLURM, Cluster(threads=2))["OMP_NUM_THREADS"] == "2"
    assert variables(OPEN_MPI, Cluster())["OMP_NUM_THREADS"] == "1"


def test_ranks_that_survive_deaths_need_the_launcher_that_tells_of_them():
    from launch import MPICH, OPEN_MPI, SLURM, Cluster, command

    words = command(OPEN_MPI, Cluster(), 4, ["x", "--fault-tolerant"])
    assert words[:5] == ["mpiexec", "--with-ft", "ulfm", "-n", "4"]
    for kind in (MPICH, SLURM):
        with pytest.raises(ConfigError, match="Open MPI's mpiexec"):
            command(kind, Cluster(), 4, ["x", "--fault-tolerant"])


def test_the_cluster_file_that_comes_along_is_read_and_unknown_keys_are_not(tmp_path):
    from launch import Cluster, read_cluster

    assert read_cluster(ROOT / "jobs" / "cluster.toml") == Cluster(
        python=".venv/bin/python"
    )
    path = tmp_path / "cluster.toml"
    path.write_text('interfaces = "eth0"')
    with pytest.raises(ConfigError, match="did you mean 'interface'"):
        read_cluster(path)


def batch(*arguments):
    return subprocess.run(
        [sys.executable, FOLDER / "batch.py", *arguments],
        env=mpirun.environment()
        | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
    )


def test_a_row_runs_once_and_a_failure_is_told(tmp_path):
    text = """
    [defaults]
    ranks = 2
    batch_size = 1
    image_size = 16
    rivals = false
    warmup = 0
    iterations = 1
    repeats = 1
    [[rows]]
    name = "good"
    model = "bert-tiny"
    sentence_length = 4
    method = "none"
    [[rows]]
    name = "bad"
    model = "bert-tiny"
    sentence_length = 600
    method = "none"
    """
    path, results = tmp_path / "two.toml", tmp_path / "results"
    path.write_text(text)
    first = batch(path, "--results", results)
    assert first.returncode == 1
    assert "bad: FAILED, status 2" in first.stdout
    found = json.loads((results / "good.json").read_text())
    assert (found["row"]["name"], found["row"]["ranks"]) == ("good", 2)
    assert found["benchmark"] == "iteration"
    assert not (results / "bad.json").exists()
    assert "| good | 2 | none |" in (results / "table.md").read_text()
    again = batch(path, "--results", results)
    assert "good: done before" in again.stdout
    assert again.returncode == 1


def test_a_run_by_keys_refuses_those_that_it_does_not_know():
    done = batch("ranks=2", "modell=resnet18")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'model'" in done.stderr


def test_keys_become_options():
    done = batch(
        "--print", "ranks=3", "model=bert-base", "rivals=false", "batch_size=4"
    )
    assert done.returncode == 0, done.stderr
    assert "-n 3" in done.stdout
    assert "--model bert-base --no-rivals --batch-size 4" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaults = 3", "defaults is a table [defaults], got 3"),
        ("reduced = 3", "reduced is a table [reduced], got 3"),
        ("[reduced]\nmodels = 3", "models is a table [models], got 3"),
        ('[rows]\nname = "a"', "rows are tables [[rows]], got"),
        ("[[rows]]\nname = 3\nsweep = { bits = [2] }", "letters, digits and hyphens"),
        ('[[rows]]\nname = "a"\nmodel = ["x"]', "--model must be"),
        ("= 3", "not valid TOML"),
    ],
)
def test_one_message_for_each_wrong_type_in_a_file(tmp_path, text, said):
    path = tmp_path / "rows.toml"
    path.write_text(text)
    done = batch(path, "--print", "--reduced")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'hosts = "node1:4"', "hosts must be a list such as"),
        (b"hosts = [1]", "hosts must be a list such as"),
        (b"python = 3", "python must be the path of an interpreter, got 3"),
        (b"interface = 0", "interface must be a name"),
        (b"threads = -4", "threads must be a whole number at least 1, got -4"),
        (b'threads = "4"', "threads must be a whole number at least 1, got '4'"),
        (b"hosts =", "not valid TOML"),
        (b'interface = "\xff"', "not valid TOML"),
    ],
)
def test_a_cluster_file_with_a_wrong_value_is_refused(tmp_path, text, said):
    from launch import read_cluster

    path = tmp_path / "cluster.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=r"cluster\.toml") as caught:
        read_cluster(path)
    assert said in str(caught.value)
