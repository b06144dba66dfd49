"""Who waits for whom: roots, circles and silence, told on one screen."""

import json

import pytest

from acidmpi.telemetry.stalls import MOST_LINES, Report, Wait, picture


def report(rank, *waits, **more):
    return Report(rank, 10 * rank, 1.5, tuple(waits), **more)


def chunk(peer, seconds=20.0, size=1000):
    return Wait("chunk", peer, size, seconds)


ALL = Wait("heartbeat", None, 0, 21.0)


def test_a_report_survives_its_message():
    told = report(3, chunk(1), ALL, left=True, calls=True)
    assert Report.decode(told.encode()) == told
    assert len(told.encode()) < 200


def test_a_silent_rank_is_the_root():
    found = picture(0, [report(0, ALL), report(1, chunk(2), ALL)], {2: 22.0}, 1.0)
    assert found.roots == (2,)
    assert found.cycles == ()
    assert found.seconds == 22.0
    lines = found.lines()
    assert lines[0] == "who waits for whom (rank 0, 22 s)"
    assert "rank 2" in lines[1]
    assert "silent for 22.0 s" in lines[1]
    assert (
        "rank 1    waits for rank 2: a chunk of an exchange, 1,000 bytes, 20.0 s"
        in (lines[2])
    )
    assert lines[-1].endswith("all of it comes from rank 2")


def test_the_end_of_a_chain_is_the_root_even_if_it_speaks():
    chain = [report(0, chunk(1)), report(1, chunk(2)), report(2), report(3, chunk(2))]
    found = picture(0, chain, {}, 1.0)
    assert found.roots == (2,)
    assert "rank 2    waits for nobody, computes" in "\n".join(found.lines())


def test_a_circle_is_shown():
    found = picture(
        1, [report(2, chunk(1)), report(1, chunk(3)), report(3, chunk(2))], {}, 1
    )
    assert found.cycles == ((1, 3, 2),)
    assert found.lines()[-1].endswith("a circle of waits: 1 -> 3 -> 2 -> 1")


def test_a_chain_into_a_circle_is_one_circle():
    ranks = [report(0, chunk(1)), report(1, chunk(2)), report(2, chunk(1))]
    assert picture(0, ranks, {}, 1.0).cycles == ((1, 2),)


def test_short_waits_are_no_cause():
    ranks = [report(0, chunk(1, 0.1)), report(1, chunk(0, 0.1), ALL)]
    found = picture(0, ranks, {}, 1.0)
    assert (found.roots, found.cycles) == ((), ())
    assert found.lines()[-1].endswith("nobody is the cause for certain")


def test_the_old_report_of_a_rank_that_is_silent_now_does_not_count():
    found = picture(0, [report(0, chunk(1)), report(1, chunk(0))], {1: 9.0}, 1.0)
    assert (found.roots, found.cycles) == ((1,), ())
    assert [each.rank for each in found.reports] == [0]


def test_the_root_of_more_waits_comes_first():
    ranks = [report(0, chunk(5)), report(1, chunk(4)), report(2, chunk(4))]
    assert picture(0, ranks, {4: 9.0, 5: 9.0}, 1.0).roots == (4, 5)


@pytest.mark.parametrize("size", [17, 64, 1000])
def test_many_ranks_fit_on_one_screen(size):
    ranks = [report(r, ALL) for r in range(size - 1)]
    lines = picture(0, ranks, {size - 1: 30.0}, 1.0).lines()
    assert len(lines) == MOST_LINES + 3
    assert f"rank {size - 1}" in lines[1], "what matters comes first"
    assert lines[-2] == f"  and {size - MOST_LINES} more ranks"


def test_it_is_json():
    found = picture(0, [report(0, ALL), report(1, chunk(2))], {2: 22.0}, 1.0)
    told = json.loads(json.dumps(found.to_json()))
    assert told["roots"] == [2]
    assert told["silent"] == [{"rank": 2, "seconds": 22.0}]
    assert told["ranks"][1]["waits"] == [
        {"kind": "chunk", "peer": 2, "waiting_bytes": 1000, "seconds": 20.0}
    ]
