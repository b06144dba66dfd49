"""Methods that step together in virtual seconds, and the race of all methods."""

import io

import numpy as np
import pytest

from acidmpi.config.protocol import RaceConfig
from acidmpi.simulate.cli import main
from acidmpi.simulate.network import GradientTimes, Link
from acidmpi.simulate.protocol_rounds import Costs, first_below, run_together
from acidmpi.simulate.race import run

SIZE = 8


class Pull:
    """Each rank is drawn to a number of its own."""

    def update(self, rank, x):
        return 0.1 * (rank - x)


def together(method, steps=40, **costs):
    usual = {
        "times": GradientTimes.of(SIZE, 0.1),
        "link": Link(0.0, 1e6),
        "message_bytes": 0.0,
    }
    start = np.zeros((SIZE, 1))
    return run_together(
        method, start, Pull(), Costs(**{**usual, **costs}), steps, steps, 0
    )[-1]


@pytest.mark.parametrize("method", ["allreduce", "localsgd", "gossip"])
def test_free_communication_takes_the_time_of_gradients(method):
    look = together(method)
    assert look.seconds == pytest.approx(4.0)
    assert look.gradients == 40 * SIZE
    assert look.mean[0] == pytest.approx(3.5 * (1 - 0.9**40))


@pytest.mark.parametrize("method", ["allreduce", "localsgd", "gossip"])
def test_one_slow_rank_slows_all(method):
    slow = GradientTimes.of(SIZE, 0.1, straggler=3.0)
    look = together(method, steps=80, times=slow)
    assert look.seconds == pytest.approx(24.0, rel=0.01)


def test_a_message_costs_by_how_often_it_is_sent():
    """0.1 s on the wire; all-reduce sends it nearly twice, in one piece: nothing hides."""
    sent = {"message_bytes": 1e5, "local_steps": 8}
    assert together("allreduce", **sent).seconds == pytest.approx(4 + 40 * 0.175)
    assert together("localsgd", **sent).seconds == pytest.approx(4 + 5 * 0.175)
    assert together("gossip", **sent).seconds == pytest.approx(40 * 0.1)
    twice = {**sent, "message_bytes": 2e5}
    assert together("gossip", **twice).seconds == pytest.approx(40 * 0.2)


def test_distances_are_those_of_the_methods():
    assert together("allreduce").consensus_distance == 0
    assert together("localsgd", steps=40).consensus_distance == 0
    assert together("localsgd", steps=47).consensus_distance > 0
    assert together("gossip").consensus_distance > 0


def test_when_a_loss_is_reached():
    assert first_below([1.0, 2.0, 3.0], [5.0, 4.0, 2.0], 3.0) == 2.5
    assert first_below([1.0], [0.5], 3.0) == 1.0
    assert first_below([1.0], [5.0], 3.0) == float("inf")


def test_a_straggler_costs_pairs_little_and_all_reduce_its_factor():
    out = io.StringIO()
    small = {"ranks": 4, "seeds": 1, "workload": "quadratic", "steps": 200}
    run(RaceConfig(**small), out)
    rows = {
        line[:26].strip(): line[30:].split() for line in out.getvalue().splitlines()
    }
    even, slow = map(float, rows["allreduce"][:2])
    assert slow / even == pytest.approx(3.0, rel=0.25)
    even, slow = map(float, rows["async, ring, rate 1"][:2])
    assert slow / even < 2.0  # the fast ranks count for more: another optimum


def test_a_loss_that_nobody_reaches_is_said(capsys):
    arguments = ["--ranks", "4", "--seeds", "1", "--steps", "2", "--loss", "1e-9"]
    assert main(["race", *arguments]) == 0
    assert capsys.readouterr().out.count("not reached") == 4 * 8


def test_bad_options_are_one_line(capsys):
    assert main(["race", "--thin-gigabits", "0"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--thin-gigabits must be a number above 0" in said
