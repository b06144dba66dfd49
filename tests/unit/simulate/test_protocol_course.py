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


def test_a_link_of_its_own_is_slow(tmp_path, capsys):
    links = tmp_path / "links"
    links.write_text("# a long way\n1 0 0.2 inf\n")
    chosen = [*SHORT, "--topology", "path", "--pairing", "schedule", "--ranks", "3"]
    distances = []
    for extra in ([], ["--links", str(links)]):
        place = tmp_path / f"r{len(extra)}"
        assert main(["protocol", *chosen, *extra, "--output", str(place)]) == 0
        distances.append(
            json.loads((place / "summary.json").read_text())["consensus_distance"]
        )
    assert distances[1] > 2 * distances[0]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("0 1 fast 1", "links:1: a link is"),
        ("0 1 0.1", "links:1: a link is"),
        ("0 9 0.1 1", "ranks 0..3, got 0 and 9"),
        ("1 1 0.1 1", "got 1 and 1"),
        ("0 1 0.1 0", "must carry something"),
        ("0 1 -1 1", "latency"),
    ],
)
def test_a_link_that_cannot_be_is_one_line(line, text, tmp_path, capsys):
    links = tmp_path / "links"
    links.write_text(line)
    arguments = ["protocol", *SHORT, "--links", str(links)]
    assert main([*arguments, "--output", str(tmp_path / "r")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert text in said


def test_a_figure_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["protocol", *SHORT, "--figure", "--output", str(tmp_path / "r")]) == 0
    assert (tmp_path / "r" / "consensus.png").read_bytes().startswith(b"\x89PNG")


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
