"""Figures of an iteration, from times that are made up."""

import numpy as np
import pytest

from acidmpi.bench.iteration_figures import Scale, Turn, figures

SCALE = Scale(batch_size=8, ranks=4, gradient_bytes=1000, unit="images")


def turn(*milliseconds, alone=0.0, sent=0.0, compress=0.0):
    seconds = tuple(m / 1e3 for m in milliseconds)
    return Turn(seconds, 0.01, 0.02, 0.003, compress, alone, sent)


def found(turns):
    return {figure.name: figure for figure in figures(turns, SCALE)}


def test_the_iteration_is_the_mean_of_all_repeats_and_its_spread_theirs():
    by_name = found({"ddp": [turn(90, 110), turn(100, 140)]})
    assert by_name["iteration, ddp"].value == pytest.approx(110)
    spread = 1.96 * np.std([90, 110, 100, 140])
    assert by_name["spread (1.96 σ), ddp"].value == pytest.approx(spread)
    assert by_name["throughput per rank, ddp"].value == pytest.approx(8 / 0.11)
    assert by_name["throughput, ddp"].value == pytest.approx(4 * 8 / 0.11)


def test_what_communication_adds_is_the_median_of_the_rounds_beside_ddp():
    turns = {
        "none": [turn(100), turn(100), turn(500)],
        "ddp": [turn(140), turn(150), turn(540)],
        "ssgd": [turn(120), turn(110), turn(900)],
    }
    figure = found(turns)["communication, ssgd beside ddp"]
    assert figure.value == pytest.approx(20)
    assert figure.rival == pytest.approx(40)
    assert figure.ratio == pytest.approx(0.5)


def test_only_low_rank_methods_stand_beside_the_low_rank_hook():
    names = ("none", "ddp", "ddp-powersgd", "acpsgd", "topk")
    beside = [n for n in found({n: [turn(100)] for n in names}) if "beside" in n]
    assert beside == [
        "communication, acpsgd beside ddp",
        "communication, topk beside ddp",
        "communication, acpsgd beside ddp-powersgd",
    ]


@pytest.mark.parametrize(
    ("own", "exposed", "hidden"), [(130, 30, 20), (170, 70, 0), (95, -5, 50)]
)
def test_what_is_not_exposed_of_the_time_alone_is_hidden(own, exposed, hidden):
    turns = {"none": [turn(100)], "ssgd": [turn(own, alone=0.05, sent=1.0)]}
    by_name = found(turns)
    assert by_name["exposed, ssgd"].value == pytest.approx(exposed)
    assert by_name["hidden, ssgd"].value == pytest.approx(hidden)


def test_compression_stands_beside_the_backward_pass():
    figure = found({"acpsgd": [turn(100, alone=0.05, sent=1.0, compress=0.001)]})[
        "compress, acpsgd"
    ]
    assert (figure.value, figure.beside) == (pytest.approx(1), "backward")
    assert figure.ratio == pytest.approx(0.05)


def test_bytes_stand_beside_those_of_a_dense_ring():
    figure = found({"ssgd": [turn(100, sent=300.0)]})[
        "bytes sent per rank and iteration, ssgd"
    ]
    assert figure.rival == pytest.approx(2 * 3 / 4 * 1000)
    assert figure.ratio == pytest.approx(0.2)


def test_nothing_is_said_that_was_not_measured():
    names = found({"ddp": [turn(100)]})
    assert not any(word in n for n in names for word in ("bytes", "hidden", "exposed"))
