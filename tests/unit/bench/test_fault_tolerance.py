"""What fault tolerance costs is the ratio of medians of turns within one run."""

import pytest

from acidmpi.bench.fault_tolerance import Turn, figures


def turn(seconds, cpu):
    return Turn(seconds, cpu, gradients=100, exchanges=200, messages=300)


def test_ratios_are_of_medians_and_judged():
    without = [turn(1.0, 2.0), turn(9.0, 9.0), turn(1.0, 2.0)]
    within = [turn(1.25, 2.04), turn(1.25, 2.04), turn(0.1, 0.1)]
    speed, cpu, rate, words = figures(without, within)
    assert speed.ratio == pytest.approx(0.8)
    assert "MISSED" in speed.asked
    assert cpu.ratio == pytest.approx(1.02)
    assert "met" in cpu.asked
    assert cpu.value == pytest.approx(20.4)
    assert rate.value == 2.0
    assert words.value == pytest.approx(3.0), "an exchange has two ends"


def test_alone_it_says_why_and_judges_nothing():
    for figure in figures([turn(1.0, 2.0)], []):
        assert figure.name.endswith(", without")
        assert "--with-ft ulfm" in figure.note
        assert figure.asked == ""
