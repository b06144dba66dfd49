"""The drill of deaths: its plans, whom it kills, and what its page says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "jobs" / "faults"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def plan(**changes):
    from runs import Plan

    return Plan(**{"task": "quadratic", "ranks": 16, "seed": 3, **changes})


def run_script(name, *words):
    command = [sys.executable, FOLDER / name, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


MISTAKES = [
    (["--ranks", "0"], "--ranks must be at least 2, got 0"),
    (["--ranks", "many"], "invalid int value: 'many'; see --help"),
    (["--runs", "0"], "--runs must be at least 1, got 0"),
    (["--tasks", "foo"], "argument --tasks: invalid choice: 'foo'"),
    (["--ranks", "4", "--kills", "4"], "--kills must be at least 1 and below 4, got 4"),
    (["--limit", "0"], "--limit must be above 0, got 0"),
    (["--at-start", "2", "1"], "--at-start must be LOW HIGH"),
    (["--at-start", "-1", "1"], "--at-start must be at least 0, got -1"),
    (["--options", "--epoch 2"], "did you mean '--epochs'?"),
    (["--options", "'"], "--options cannot be read: No closing quotation"),
    (["--page", "/dev/null/page.md"], "--page must be a file in a folder that is"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=lambda v: " ".join(v[:2]))
def test_a_mistake_is_one_line_and_nothing_is_started(capsys, tmp_path, words, said):
    from drill import main

    assert main([str(tmp_path / "runs"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("drill: error: ")
    assert said in line
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_and_results_that_are_none_are_one_line(tmp_path):
    spoilt = tmp_path / "results.jsonl"
    spoilt.write_text('{"name"')
    for folder, said in (("/dev/null/x", "Not a directory"), (tmp_path, str(spoilt))):
        done = run_script("drill.py", folder)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert said in done.stderr


def test_a_task_of_which_no_run_came_to_work_is_told(tmp_path, monkeypatch, capsys):
    import drill

    record = {**line(0, 0, None, status=1), "work_seconds": None, "seconds": 1.0}
    monkeypatch.setattr(drill, "run", lambda plan, folder, limit: record)
    assert drill.main([str(tmp_path), "--runs", "1", "--tasks", "quadratic"]) == 2
    assert (
        "no undisturbed run of quadratic came to work; see" in capsys.readouterr().err
    )


def test_few_ranks_have_no_drills_without_deaths():
    from drill import checked, parsed

    kills = {
        ranks: checked(parsed(["d", "--ranks", str(ranks)])).kills
        for ranks in (2, 3, 16)
    }
    assert kills == {2: [1], 3: [1], 16: [1, 4, 8]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--exchanges", "0"], "--exchanges must be at least 1, got 0"),
        (["--comm-rate", "0"], "--comm-rate must be above 0, got 0"),
        (["--delay", "-1"], "--delay must be at least 0, got -1"),
        (["--exchanges", "x"], "invalid int value: 'x'"),
        ([], "one rank makes no exchanges"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_soak_that_would_hold_nothing_is_refused(words, said):
    done = run_script("soak.py", *words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("soak: error: ")
    assert said in line


def test_moments_are_drawn_from_the_window_and_the_seed():
    moments = plan(kills=8, window_seconds=5.0).moments()
    assert moments == plan(kills=8, window_seconds=5.0).moments() == sorted(moments)
    assert moments != plan(kills=8, window_seconds=5.0, seed=4).moments()
    assert len({rank for _, rank in moments}) == 8
    assert all(0 <= moment <= 5 for moment, _ in moments)


def test_deaths_at_the_start_have_moments_and_a_table_of_their_own():
    from page import page

    early = plan(kills=8, start_seconds=(1.0, 2.0))
    assert early.name != plan(kills=8).name
    assert all(1 <= moment <= 2 for moment, _ in early.moments())
    lines = [line(1, seed, 1.0) for seed in range(3)]
    for each, death in zip(lines, (True, False, True), strict=True):
        each["start_seconds"] = [1.0, 2.0]
        each["summary"]["dead_ranks"] = [
            {
                "rank": 1,
                "unix_seconds": 1.0,
                "recovered_seconds": None,
                "at_start": death,
            }
        ]
    lines.append({**line(1, 3, None, status=None), "start_seconds": [1.0, 2.0]})
    lines[0] |= {"starts": 2, "hung": 1}
    assert "| quadratic | 1 | 1 to 2 | 4 | 3 | 2 | 1 (1) | 1 (1, 1) |" in page(
        lines, 16
    )


def test_each_kind_of_run_has_a_name_and_a_command_of_its_own(tmp_path):
    kinds = [plan(kills=4), plan(), plan(tolerant=False)]
    assert len({kind.name for kind in kinds}) == 3
    tolerant = ["--fault-tolerant" in kind.command(tmp_path) for kind in kinds]
    assert tolerant == [True, True, False]


def test_processes_of_a_run_are_found_by_rank_and_no_others(tmp_path):
    from runs import processes

    def sleeper(rank, folder):
        wait = "import time; time.sleep(30)"
        setting = {**os.environ, "OMPI_COMM_WORLD_RANK": str(rank)}
        return subprocess.Popen([sys.executable, "-c", wait, str(folder)], env=setting)

    mine, other = tmp_path / "mine", tmp_path / "other"
    jobs = [sleeper(0, mine), sleeper(5, mine), sleeper(1, other)]
    try:
        assert processes(mine) == {0: jobs[0].pid, 5: jobs[1].pid}
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def line(kills, seed, loss, *, status=0, tolerant=True, speed=100, deaths=()):
    summary = {
        "stop_reason": "finished",
        "test_loss": loss,
        "wall_seconds": 10.0,
        "gradients": [speed, None, speed],
        "dead_ranks": [
            {"rank": rank, "unix_seconds": 50 + news, "recovered_seconds": more}
            for rank, news, more in deaths
        ],
    }
    return {
        "name": f"q-{kills}-{seed}-{tolerant}",
        "task": "quadratic",
        "ranks": 16,
        "seed": seed,
        "kills": kills,
        "tolerant": tolerant,
        "status": status,
        "summary": summary if status == 0 else None,
        "killed": {str(rank): 50.0 for rank, _, _ in deaths},
        "said": "acidmpi: error: nobody answered",
    }


def test_the_page_has_losses_times_costs_and_every_failure():
    from page import page

    lines = [line(0, seed, 1.0 + seed / 10) for seed in range(3)]
    lines += [line(0, seed, 1.0, tolerant=False, speed=125) for seed in range(3)]
    lines += [line(1, 0, 1.21, deaths=[(4, 0.25, 0.5)])]
    lines += [line(1, 1, 1.21, deaths=[(4, 0.75, 1.5)])]
    lines += [line(1, 2, None, status=None)]
    text = page(lines, 16)
    assert "| quadratic | 1 | 3 | 2 | 1.21 (1.21, 1.21) | 1.1 (1, 1.2) |" in text
    assert "| 1.1000 | 0.5 (0.75) | 1.5 (2.25) | 0 of 2 |" in text
    assert "| quadratic | 3 | 0.8 (0.8, 0.8) | 1 (1, 1) |" in text
    assert "`q-1-2-True`: ended by the drill" in text
    assert "nobody answered" in text


def test_a_run_that_does_not_end_is_ended(tmp_path, monkeypatch):
    """Also its ranks: nothing of it is left behind."""
    import runs

    wait = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(runs.Plan, "command", lambda _, folder: [*wait, str(folder)])
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    record = runs.run(plan(), tmp_path / "run", limit_seconds=0.5)
    assert record["status"] is None
    assert record["summary"] is None
    assert not runs.processes(tmp_path / "run")
