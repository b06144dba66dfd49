"""`python -m acidmpi.simulate protocol`: what it prints, writes and refuses."""

import json

import pytest

from acidmpi.simulate.cli import main

SHORT = ["--ranks", "4", "--units", "30", "--samples", "10", "--dimension", "8"]


def test_a_run_writes_the_files_of_a_real_one(tmp_path, capsys):
    place = tmp_path / "run"
    assert main(["protocol", *SHORT, "--output", str(place)]) == 0
    said = capsys.readouterr().out
    assert "control messages per exchange" in said
    summary = json.loads((place / "summary.json").read_text())
    assert summary["pairing"] == "handshake"
    assert summary["topology"] == "ring"
    assert sum(summary["control_messages"]) >= sum(summary["exchanges"])
    assert summary["mean_drift"] < 1e-14
    lines = (place / "metrics-0.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds.count("heartbeat") == 11


def test_a_configuration_can_be_run_again(tmp_path, capsys):
    first, second = tmp_path / "a", tmp_path / "b"
    main(["protocol", *SHORT, "--workload", "quadratic", "--output", str(first)])
    again = ["--config", str(first / "config.toml"), "--output", str(second)]
    assert main(["protocol", *again]) == 0
    texts = [(p / "metrics-0.jsonl").read_text() for p in (first, second)]
    assert texts[0] == texts[1]


def test_several_seeds_lie_side_by_side(tmp_path):
    main(["protocol", *SHORT, "--seeds", "2", "--output", str(tmp_path / "r")])
    assert (tmp_path / "r" / "seed-1" / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--ranks", "1"], "2 to 256 ranks"),
        (["--gigabits-per-second", "0"], "--gigabits-per-second must be"),
        (
            [
                "--workload",
                "quadratic",
                "--stragglers",
                "20",
                "--straggler-factor",
                "2",
            ],
            "20",
        ),
        (["--topology", "wheel"], "wheel"),
    ],
)
def test_bad_options_are_one_line(arguments, text, tmp_path, capsys):
    assert main(["protocol", *arguments, "--output", str(tmp_path / "r")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert text in said
    assert not (tmp_path / "r").exists()
