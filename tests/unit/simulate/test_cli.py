"""`python -m acidmpi.simulate`: one message for what cannot be, files for what can."""

import io
import json

import pytest

from acidmpi.simulate.cli import main
from acidmpi.telemetry.summary import FIELDS

QUICK = ["--ranks", "4", "--units", "5", "--samples", "5"]


def simulate(*arguments):
    out = io.StringIO()
    status = main(list(arguments), out)
    return status, out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-such", "1"], "unknown option --no-such"),
        (["--rank", "4"], "did you mean '--ranks'"),
        (["pln"], "what to simulate must be one of"),
        (["--method", "allreduce", "--topology", "star"], "leave it out or choose"),
        (["--dirichlet", "1"], "is for --workload digits"),
        (["--ranks", "300", "--events"], "at most 256"),
        (["--overlap"], "needs exchanges that take time"),
        (["--speeds", "stragglers", "--stragglers", "99"], "99 of 16"),
        (["--order", "raw", "--transfer-units", "1"], "leave out one of the two"),
        (["--topology", "hypercube", "--ranks", "6"], "power of two"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(arguments, message, capsys, tmp_path):
    status, printed = simulate(*arguments, "--output", str(tmp_path / "run"))
    error = capsys.readouterr().err
    assert (status, printed, error.count("\n")) == (2, "", 1)
    assert message in error
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_of_a_file_is_an_error(tmp_path, capsys):
    (tmp_path / "run.toml").write_text("rnks = 4\n")
    assert simulate("--config", str(tmp_path / "run.toml"))[0] == 2
    assert "did you mean 'ranks'" in capsys.readouterr().err


def test_help_names_the_parts(capsys):
    assert main(["--help"]) == 0
    assert "--transfer-units" in capsys.readouterr().out


@pytest.mark.parametrize("workload", ["averaging", "quadratic", "digits"])
@pytest.mark.parametrize(
    "method", ["a2cid2", "async", "gossip", "allreduce", "localsgd"]
)
def test_every_method_writes_the_files_of_a_real_run(workload, method, tmp_path):
    arguments = ["--workload", workload, "--method", method, *QUICK]
    status, printed = simulate(*arguments, "--output", str(tmp_path))
    assert status == 0
    assert "consensus distance" in printed
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert tuple(summary) == FIELDS
    assert summary["method"] == method
    assert len(summary["gradients"]) == 4
    lines = (tmp_path / "metrics-0.jsonl").read_text().splitlines()
    kinds = {json.loads(line)["kind"] for line in lines}
    assert kinds == {"heartbeat"} | (
        {"evaluation"} if workload != "averaging" else set()
    )


def test_several_seeds_have_a_folder_each(tmp_path):
    assert simulate(*QUICK, "--seeds", "2", "--output", str(tmp_path))[0] == 0
    found = [
        json.loads((tmp_path / f"seed-{k}" / "summary.json").read_text())["seed"]
        for k in range(2)
    ]
    assert found == [0, 1]


@pytest.mark.parametrize("name", ["run", "protocol"])
def test_earlier_runs_of_several_seeds_are_not_overwritten(name, tmp_path, capsys):
    arguments = [name, *QUICK, "--seeds", "2", "--output", str(tmp_path)]
    assert simulate(*arguments)[0] == 0
    before = (tmp_path / "seed-1" / "metrics-0.jsonl").read_bytes()
    assert simulate(*arguments, "--units", "7")[0] == 2
    assert "seed-0 holds an earlier run" in capsys.readouterr().err
    assert (tmp_path / "seed-1" / "metrics-0.jsonl").read_bytes() == before
    assert simulate(*arguments, "--units", "7", "--overwrite")[0] == 0


def test_events_are_recorded_by_rank(tmp_path):
    arguments = ["--workload", "quadratic", "--events", *QUICK]
    assert simulate(*arguments, "--output", str(tmp_path))[0] == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    for rank in range(4):
        lines = (tmp_path / f"metrics-{rank}.jsonl").read_text().splitlines()
        kinds = [json.loads(line)["kind"] for line in lines]
        assert kinds.count("gradient") == summary["gradients"][rank]
        assert kinds.count("exchange") == summary["exchanges"][rank]


def test_an_earlier_run_is_not_overwritten(tmp_path, capsys):
    assert simulate(*QUICK, "--output", str(tmp_path))[0] == 0
    assert simulate(*QUICK, "--output", str(tmp_path))[0] == 2
    assert "--overwrite" in capsys.readouterr().err
