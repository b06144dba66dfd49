"""The plan as a whole: what it recommends, and what it refuses."""

import io

import pytest

from acidmpi.config.plan import PlanConfig
from acidmpi.errors import ConfigError, TopologyError
from acidmpi.simulate.cli import main
from acidmpi.simulate.network import Link
from acidmpi.simulate.plan import rank, run
from acidmpi.simulate.plan_bytes import sent_by, sent_bytes
from acidmpi.simulate.plan_times import RING, gather_seconds, shape_of, sum_seconds
from acidmpi.simulate.plan_ways import Cluster, Way, ways
from acidmpi.topology.make import make_topology


def ranked(**options):
    config = PlanConfig(**options)
    return rank(ways(Cluster.of(config)), config.most_distance)


def printed(**options):
    out = io.StringIO()
    run(PlanConfig(**options), out)
    return out.getvalue()


def test_a_fast_network_without_stragglers_wants_all_reduce():
    text = printed(gigabits_per_second=100.0, gradient_spread=0.01)
    assert "use allreduce: " in text
    assert "less than an average that is not exact may cost" in text


def test_a_straggler_wants_pairs():
    first = ranked(straggler_factor=3.0, compressions="none")[0]
    assert first.method in ("a2cid2", "async")
    assert "for the slowest rank" in printed(straggler_factor=3.0)


def test_a_ring_that_the_network_dictates_wants_the_momentum():
    options = {"graph": "ring", "ranks": 64, "straggler_factor": 3.0}
    first = ranked(**options, compressions="none")[0]
    assert (first.method, first.graph) == ("a2cid2", "ring")
    assert "without the momentum, which costs 44.8 MB a rank" in printed(**options)


def test_a_complete_graph_has_no_use_for_the_momentum():
    found = ranked(graph="complete", straggler_factor=3.0, compressions="none")
    assert found[0].method == "async"


def test_a_thin_wire_wants_few_bytes():
    first = ranked(gigabits_per_second=0.1, compressions="none")[0]
    assert first.method.startswith("localsgd") or first.comm_rate == 0.25
    assert ranked(gigabits_per_second=0.01)[0].sent_bytes < 10e6


def test_everything_said_is_said_of_every_way():
    found = ranked(compressions="fp16,topk")
    assert len(found) == len({(w.method, w.graph, w.comm_rate) for w in found})
    for way in found:
        assert way.step_seconds > 0
        assert way.memory_bytes >= 11_200_000 * 12
        assert way.sent_bytes > 0
    tilde = {w.method: w.memory_bytes for w in found if w.graph == "ring"}
    assert tilde["a2cid2"] - tilde["async"] == 4 * 11_200_000


def test_each_method_is_in_the_table():
    text = printed(straggler_factor=3.0, gigabits_per_second=1.0)
    for name in (
        "a2cid2,",
        "async,",
        "adpsgd,",
        "gossip,",
        "localsgd,",
        "allreduce  ",
        "qsgd",
    ):
        assert f"\n{name}" in text or f"\nallreduce, {name}" in text


def test_roles_need_a_graph_of_two_sides_and_set_the_rate():
    found = {(w.method, w.graph): w for w in ranked()}
    assert found["adpsgd", "ring"].comm_rate == 1.0
    assert ("adpsgd", "exponential") not in found
    assert "adpsgd" not in {w.method for w in ranked(graph="ring", ranks=15)}
    star = {w.method: w for w in ranked(graph="star", ranks=16)}
    assert star["adpsgd"].comm_rate == pytest.approx(2 / 16)  # the middle asks
    assert star["adpsgd"].sent_bytes == pytest.approx(4 * 11_200_000 / 8)


def test_ranks_that_only_answer_must_not_run_ahead():
    """They wait for nothing, so a network that holds up the others makes them first."""
    fast, slow = ranked(gigabits_per_second=10.0), ranked(gigabits_per_second=1.0)
    assert not any(way.lopsided for way in fast)
    assert all(way.lopsided == (way.method == "adpsgd") for way in slow)
    quick, right = a_way(lopsided=True, step_seconds=0.1), a_way()
    assert rank([quick, right])[0] is right


def a_way(**changes):
    usual = Way("async", "ring", 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0)
    return usual._replace(**changes)


def test_what_is_not_exact_must_be_a_tenth_faster():
    exact = a_way(method="allreduce", exact=True, distance=0.0, step_seconds=1.0)
    assert rank([a_way(step_seconds=0.95), exact])[0] is exact
    faster = a_way(step_seconds=0.85)
    assert rank([exact, faster])[0] is faster


def test_among_equals_the_nearer_one_comes_first_and_then_the_smaller_one():
    near, small = a_way(distance=0.5, memory_bytes=9.0), a_way(memory_bytes=0.5)
    lossy = a_way(distance=float("nan"))
    assert rank([lossy, a_way(), small, near])[:2] == [near, small]
    assert rank([a_way(), lossy])[-1] is lossy


def test_ranks_too_far_apart_come_last():
    far, near = a_way(step_seconds=0.1, distance=11.0), a_way()
    assert rank([far, near])[0] is far
    assert rank([far, near], 10.0)[0] is near
    lossy = a_way(distance=float("nan"), step_seconds=2.0)
    assert rank([far, lossy], 10.0)[0] is lossy


def test_what_compressors_send_is_what_they_send():
    assert sent_bytes(sent_by("none", 4), 100, 4) == 2 * 3 / 4 * 400
    assert sent_bytes(sent_by("fp16", 8), 100, 8) == pytest.approx(2 * 7 / 8 * 200)
    assert sent_by("topk", 4).messages[0][0] == "Gather"
    low = sent_bytes(sent_by("acpsgd", 4), 512 * 512, 4)
    assert low == pytest.approx(1.5 * 512 * 4 * 4, rel=0.01)


def test_collectives_follow_the_graph():
    link = Link(0.0, 1.0)
    tree = shape_of(make_topology("star", 9))
    assert (tree.fan_out, tree.depth) == (8, 1)
    assert shape_of(make_topology("torus", 16)) == RING
    assert sum_seconds(9, 1.0, link, tree) == 16
    assert sum_seconds(9, 1.0, link, RING) == pytest.approx(16 / 9)
    assert gather_seconds(9, 1.0, link, RING) == 8


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ranks": 1}, "--ranks must be at least 2"),
        (
            {"gigabits_per_second": 0.0},
            "--gigabits-per-second must be a number above 0",
        ),
        ({"gradient_seconds": 0.0}, "--gradient-seconds must be"),
        ({"stragglers": 17}, "17 of 16"),
        ({"latency_seconds": float("inf")}, "--latency-seconds must be"),
    ],
)
def test_impossible_plans_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        PlanConfig(**options)


def test_a_graph_or_a_compression_that_is_not_there():
    with pytest.raises(TopologyError, match="wheel"):
        ranked(graph="wheel")
    with pytest.raises(ConfigError, match="zip"):
        ranked(compressions="zip")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--gigabits-per-second", "0"], "must be a number above 0"),
        (["--ranks", "1"], "a single rank has nobody to average with"),
        (["--graph", "hypercube", "--ranks", "6"], "power of two"),
        (["--bandwidth", "1"], "unknown option --bandwidth"),
    ],
)
def test_the_command_says_it_in_one_line(arguments, text, capsys):
    assert main(["plan", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert text in said


def test_the_check_simulates_the_best_way_with_pairs():
    text = printed(ranks=4, straggler_factor=3.0, check=True)
    assert "in simulated events" in text
    error = int(text.rsplit("(", 1)[1].split("%")[0])
    assert abs(error) <= 15
