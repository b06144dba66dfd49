"""Those who begin again without the dead: their numbers, their graph, what is told."""

from dataclasses import replace

from acidmpi.config.train import TrainConfig
from acidmpi.train.course import Figures
from acidmpi.train.lost import Lost
from acidmpi.train.outcome import all_deaths, rank_figures, result_rows, run_figures
from acidmpi.worker.membership import Death

FOUR = Lost(4, (0, 1, 2, 3))


def test_numbers_are_the_first_ones_however_often_they_begin_again():
    once = FOUR.without((0, 2, 3), 1.0, 100.0)
    twice = once.without((1, 2), 2.0, 101.0)
    assert twice.ranks == (2, 3)
    assert [(d.rank, d.seconds, d.at_start) for d in twice.deaths] == [
        (1, 1.0, True),
        (0, 2.0, True),
    ]
    assert "these died before all were ready: 1, 0; the other 2" in twice.told()


def test_a_graph_for_certain_numbers_only_is_repaired():
    graph = FOUR.without((0, 1, 2), 1.0, 1.0).graph(TrainConfig(topology="hypercube"))
    assert graph.size == 3
    assert graph.edges == (
        (0, 1),
        (0, 2),
        (1, 2),
    )  # the hole's two neighbours are joined


def test_faults_follow_their_ranks():
    lost = FOUR.without((0, 2, 3), 1.0, 1.0)
    config = TrainConfig(fault="rank=3 at=gradient:9 do=kill")
    assert lost.faults(config) == "rank=2 at=gradient:9 do=kill"
    assert lost.faults(replace(config, fault="rank=1 at=gradient:9 do=kill")) is None
    assert lost.faults(TrainConfig()) is None


def test_both_kinds_of_deaths_are_told_apart():
    lost = FOUR.without((0, 2, 3), 1.0, 1.0)
    late = Death(2, 5.0, 2.0, 7, "it sent", 4.0)
    dead = all_deaths([[late], None, []], (2,), 9.0, lost)
    assert [(d["rank"], d["at_start"]) for d in dead] == [(1, True), (2, False)]
    told = [
        ([], "3"),
        (dead[:1], "3; before the start died of 4: 1"),
        (dead[1:], "3, of which died: 2"),
        (dead, "3, of which died: 2; before the start died of 4: 1"),
    ]
    run = run_figures(TrainConfig(task="quadratic"), 3, None, None, 1.0, "finished")
    one = Figures(gradients=5, total_gradients=15, bytes_sent=0, idle_seconds=0.0)
    alive = [rank_figures(one)]
    for deaths, text in told:
        rows = dict(result_rows(replace(run, dead_ranks=deaths), alive, "runs/x"))
        assert rows["ranks"] == text
