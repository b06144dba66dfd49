"""Counts of a rank's exchanges, and the moments that records carry."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.clocks import ManualClock
from acidmpi.telemetry.metrics import MetricsWriter
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.recorder import Recorder
from acidmpi.worker.tally import FIRST_GUESS_SECONDS, Tally
from acidmpi.worker.units import WallUnits

exchanges = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1), st.floats(0, 1)))


@given(exchanges)
def test_a_tally_adds_up(made):
    tally, last, repeated = Tally(4), None, 0
    for peer, waited, took in made:
        tally.matched(peer, waited)
        tally.exchanged(peer, 100, took)
        repeated += peer == last
        last = peer
    assert tally.exchanges == len(made)
    assert tally.repeated == repeated
    assert tally.bytes_sent == 100 * len(made)
    assert tally.by_peer == [sum(p == rank for p, _, _ in made) for rank in range(4)]
    assert tally.waiting_seconds == pytest.approx(sum(w for _, w, _ in made))
    assert tally.exchanging_seconds == pytest.approx(sum(t for _, _, t in made))


def test_the_typical_exchange_follows_slowly():
    tally = Tally(2)
    assert tally.typical_exchange_seconds == FIRST_GUESS_SECONDS
    for _ in range(50):
        tally.exchanged(1, 0, 0.1)
    assert tally.typical_exchange_seconds == pytest.approx(0.1, rel=1e-3)
    tally.exchanged(1, 0, 10.0)
    assert tally.typical_exchange_seconds < 3.0, "one slow exchange is not typical"


def test_records_carry_seconds_units_and_gradients(tmp_path):
    clock = ManualClock(1000.0)
    units, ledger = WallUnits(clock, 0.5), Ledger(0, 1, None)
    with MetricsWriter(tmp_path / "metrics.jsonl") as metrics:
        recorder = Recorder(metrics, clock, units, ledger)
        clock.advance(2.0)
        ledger.count_gradient(None, 0)
        recorder.gradient(0.25, 0.1)
        Tally(2, recorder).exchanged(1, 640, 0.125)
        recorder.heartbeat(7, 1.5, 0.75)
        recorder.evaluation(0.3, 0.9)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        moment = {key: record.pop(key) for key in ("seconds", "time", "gradients")}
        assert moment == {"seconds": 2.0, "time": 4.0, "gradients": 1}
        assert record.pop("schema") == 1
    assert records == [
        {"kind": "gradient", "loss": 0.25, "lr": 0.1},
        {"kind": "exchange", "peer": 1, "sent_bytes": 640, "exchange_seconds": 0.125},
        {
            "kind": "heartbeat",
            "total_gradients": 7,
            "comm_rate": 1.5,
            "consensus_distance": 0.75,
        },
        {"kind": "evaluation", "test_loss": 0.3, "test_accuracy": 0.9},
    ]


def test_without_metrics_nothing_is_recorded():
    recorder = Recorder(
        None, ManualClock(), WallUnits(ManualClock()), Ledger(0, 1, None)
    )
    recorder.gradient(None, 0.1)
    recorder.heartbeat(1, 1.0, 1.0)
    recorder.evaluation(None, None)
    Tally(2, recorder).exchanged(1, 1, 1.0)
