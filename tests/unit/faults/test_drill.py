"""Faults happen at their event, on their rank, and cost nothing elsewhere."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from acidmpi.errors import ConfigError
from acidmpi.faults import actions
from acidmpi.faults.actions import PlannedFault
from acidmpi.faults.drill import Drill, renumbered
from acidmpi.faults.plan import Plan


def drill(text, rank=0, size=4, seed=0):
    return Drill(Plan.of(text), rank, size, seed)


def test_a_plan_follows_its_ranks_to_other_numbers():
    text = "rank=0,2 at=gradient:5 do=kill; rank=all at=message:1- do=delay:0~1"
    more = f"rank=1 at=chunk:2 do=raise; {text}"
    assert renumbered(Plan.of(more), 4, (0, 2, 3)) == (
        "rank=0,1 at=gradient:5 do=kill; rank=0,1,2 at=message:1- do=delay:0~1"
    )
    assert renumbered(Plan.of("rank=1 at=gradient:5 do=kill"), 4, (0, 2, 3)) == ""


def test_drawn_ranks_stay_those_that_were_drawn():
    plan = Plan.of("rank=random:3 at=gradient:1 do=kill")
    drawn = [rank for rank in range(6) if Drill(plan, rank, 6, seed=4)]
    left = tuple(rank for rank in range(6) if rank != drawn[0])
    moved = Plan.of(renumbered(plan, 6, left, seed=4))
    assert [left[k] for k in range(5) if Drill(moved, k, 5, seed=4)] == drawn[1:]


class Machine:
    def __init__(self):
        self.calls = 0

    def step(self, amount=1):
        self.calls += amount
        return self.calls


@pytest.fixture
def done(monkeypatch):
    """What faults did, instead of doing it."""
    happened = []
    for name in ("kill", "stop", "pause"):
        monkeypatch.setattr(
            actions, name, lambda *amount, name=name: happened.append((name, *amount))
        )
    return happened


def test_nothing_is_replaced_where_nothing_is_planned():
    machine, plan = Machine(), drill("rank=1 at=gradient:1 do=raise")
    assert not plan
    plan.attach(machine, "step", "gradient")
    assert vars(machine) == {"calls": 0}
    assert plan.hook("gradient", sorted) is sorted
    assert plan.spoil_result(sorted, int) is sorted
    assert plan.wire(machine) is machine
    assert plan.transport(machine) is machine


def test_other_events_are_left_alone():
    machine, plan = Machine(), drill("rank=0 at=gradient:1 do=raise")
    plan.attach(machine, "step", "exchange")
    assert vars(machine) == {"calls": 0}


def test_an_error_at_the_third_event_only():
    machine, plan = Machine(), drill("rank=0 at=gradient:3 do=raise")
    plan.attach(machine, "step", "gradient")
    assert [machine.step(2), machine.step()] == [2, 3]
    with pytest.raises(PlannedFault, match="at gradient 3"):
        machine.step()
    assert machine.calls == 3, "it comes before the event"
    assert machine.step() == 4


@pytest.mark.parametrize(
    ("when", "numbers"), [("2-3", [2, 3]), ("3-", [3, 4, 5]), ("5", [5])]
)
def test_ranges(done, when, numbers):
    plan = drill(f"rank=0 at=exchange:{when} do=pause:1")
    for number in range(1, 6):
        before = len(done)
        plan.reach("exchange")
        assert (len(done) > before) == (number in numbers)


def test_a_phase_of_the_start(done):
    plan = drill("rank=all at=start:kernels do=kill", rank=3)
    for name in ("agree", "topology", "kernels", "parameters"):
        plan.phase(name)
        assert bool(done) == (name in ("kernels", "parameters"))
    assert done == [("kill",)]


def test_who_and_when_by_chance_is_the_same_everywhere_and_follows_the_seed(done):
    def hit(seed):
        plans = [
            drill("rank=random:3 at=exchange:1~1000 do=kill", r, 16, seed)
            for r in range(16)
        ]
        return [
            (r, plan._of("exchange")[0].when.low)
            for r, plan in enumerate(plans)
            if plan
        ]

    assert hit(1) == hit(1)
    assert len(hit(1)) == 3
    assert len({moment for _, moment in hit(1)}) == 3, "each rank has its own moment"
    assert len({tuple(hit(seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("ranks", ["4", "0,7", "random:5"])
def test_ranks_that_there_are_not(ranks):
    with pytest.raises(ConfigError, match="ranks of the run, 0 to 3, got 'rank="):
        drill(f"rank={ranks} at=gradient:1 do=kill")


def test_slow_means_so_many_times_longer(done):
    plan = drill("rank=0 at=gradient:1- do=slow:10")
    plan.reach("gradient")
    assert done == [], "there is nothing to compare the first one with"
    began = time.perf_counter()
    time.sleep(0.02)
    plan.reach("gradient")
    took = time.perf_counter() - began
    (name, seconds) = done[0]
    assert name == "pause"
    assert 9 * 0.02 <= seconds <= 9 * took


def test_nan_in_one_gradient():
    plan = drill("rank=0 at=gradient:2 do=nan")
    numbers = iter((1, 2, 3))
    gradient = plan.spoil_result(lambda: np.ones(3), lambda: next(numbers))
    spoilt = [np.isnan(gradient()).any() for _ in range(3)]
    assert spoilt == [False, True, False]
    machine, array = Machine(), np.ones((2, 2))
    plan.spoil_before(machine, "step", lambda: array, lambda: 2)
    machine.step()
    assert np.isnan(array).sum() == 1


def test_a_full_disk():
    plan = drill("rank=0 at=checkpoint:2- do=full")
    write = plan.hook("checkpoint", lambda: "written")
    assert write() == "written"
    with pytest.raises(OSError, match="No space left"):
        write()


def test_it_is_said_before_it_happens(done, capsys):
    drill("rank=2 at=request:1 do=kill", rank=2).reach("request")
    assert capsys.readouterr().err == (
        "acidmpi: fault to order: rank 2 at request 1: kill\n"
    )


def test_seconds_count_from_the_start(done):
    plan = drill("rank=0 at=seconds:0.05 do=kill")
    plan.start()
    assert done == []
    end = time.perf_counter() + 5
    while not done and time.perf_counter() < end:
        time.sleep(0.01)
    assert done == [("kill",)]


def real(text):
    code = (
        "import sys; from acidmpi.faults.drill import Drill; "
        "from acidmpi.faults.plan import Plan; "
        f"Drill(Plan.of({text!r}), 0, 1).reach('gradient'); print('went on')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_kill_is_a_real_one():
    process = real("rank=0 at=gradient:1 do=kill")
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (-signal.SIGKILL, b"")


def test_stop_is_a_real_one_and_ends():
    process = real("rank=0 at=gradient:1 do=stop:0.5")
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, b"went on\n")
