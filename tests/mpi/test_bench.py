"""Benchmarks on real ranks: what they compare does the same work, and all report."""

import json
import tempfile
import time

import numpy as np
import pytest
from mpi4py import MPI
from support.staying import StayingComm

from acidmpi.bench.cli import main
from acidmpi.bench.consensus import consensus_distances
from acidmpi.bench.cores import LAPS, shared_word
from acidmpi.bench.exchange import Pair, Still
from acidmpi.bench.lockstep import lockstep_rate
from acidmpi.bench.mean import mean_over_ranks
from acidmpi.bench.options import ExchangeOptions
from acidmpi.bench.saturation import Counters, saturated
from acidmpi.bench.timing import interleaved

pytestmark = pytest.mark.mpi

COMM = MPI.COMM_WORLD
pair_only = pytest.mark.skipif(COMM.size != 2, reason="for 2 ranks")
several = pytest.mark.skipif(COMM.size == 1, reason="needs another rank")

SMALL = {
    "kernels": ["--size", "1000", "--rounds", "1"],
    "exchange": ["--size", "10000", "--chunk-bytes", "4096", "--rounds", "2"],
    "pairing": ["--size", "100", "--seconds", "0.4", "--rounds", "2"],
    "consensus": [
        *("--unit-seconds", "0.02", "--units", "15", "--since", "2"),
        *("--seeds", "1", "--size", "100", "--exchanges", "50"),
    ],
    "step": ["--rounds", "1"],
    "idle": ["--seconds", "0.4"],
    "checkpoint": [
        *("--size", "10000", "--seconds", "0.4", "--rounds", "2"),
        *("--step-seconds", "0.01", "--folder", tempfile.gettempdir()),
    ],
}
FITTING = {
    "kernels": COMM.size == 1,
    "exchange": COMM.size == 2,
    "pairing": COMM.size > 1,
    "consensus": COMM.size > 1,
    "step": COMM.size == 1,
    "idle": True,
    "checkpoint": True,
}


@pytest.fixture
def run(capsys):
    """Run the command everywhere; every rank's (status, output, errors), by rank."""

    def start(*arguments):
        capsys.readouterr()
        status = main(list(arguments), StayingComm(COMM))
        said = capsys.readouterr()
        return COMM.allgather((status, said.out, said.err))

    return start


def normal(size, dtype="float32"):
    return np.random.default_rng(COMM.rank).standard_normal(size).astype(dtype)


@pytest.mark.parametrize("name", SMALL)
def test_every_benchmark_reports_once_or_says_how_many_ranks_it_needs(run, name):
    ends = run(name, *SMALL[name])
    assert all(end[1:] == ("", "") for end in ends[1:])
    assert {end[0] for end in ends} == ({0} if FITTING[name] else {2})
    _, output, errors = ends[0]
    if not FITTING[name]:
        (line,) = errors.splitlines()
        assert "rank" in line
        assert output == ""
        return
    assert errors == ""
    found = json.loads(output.splitlines()[-1], parse_constant=pytest.fail)
    assert (found["benchmark"], found["hardware"]["ranks"]) == (name, COMM.size)
    assert found["command"] == " ".join(["python -m acidmpi.bench", name, *SMALL[name]])
    assert found["results"]
    for result in found["results"]:
        assert list(result) == ["name", "value", "unit", "limit", "ratio"]
        assert result["name"] in output.partition("{")[0]


def test_a_graph_that_does_not_fit_is_told_once(run):
    ends = run("idle", "--topology", "no-such-graph")
    assert {end[0] for end in ends} == {2}
    (line,) = ends[0][2].splitlines()
    assert "no-such-graph" in line


@pair_only
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_exchange_and_its_rival_do_the_same(dtype):
    options = ExchangeOptions(size=5000, method="async", dtype=dtype, chunk_bytes=1000)
    first, second = Pair(options, COMM.Dup()), Pair(options, COMM.Dup())
    (x,), (y,) = first.state.arrays, second.state.arrays
    expected = mean_over_ranks(x, COMM)
    first.exchange()
    second.unpipelined()
    np.testing.assert_array_equal(x, y)
    np.testing.assert_allclose(x, expected, atol=2 * np.finfo(dtype).eps)


@pair_only
def test_bare_messages_change_nothing():
    pair = Pair(ExchangeOptions(size=1000), COMM.Dup())
    (x,) = pair.state.arrays
    before = x.copy()
    pair.messages()
    np.testing.assert_array_equal(x, before)


def test_passes_apply_no_memory_that_nobody_wrote():
    """Staging begins as whatever was there, NaN included."""
    still = Still()
    send, receive = normal(100), np.full(100, np.nan, np.float32)
    assert still.post(1, send, receive).test()
    np.testing.assert_array_equal(receive, send)
    still.post(1, 2 * send, receive)  # moves nothing
    np.testing.assert_array_equal(receive, send)


@pair_only
def test_a_word_goes_there_and_back():
    with shared_word(COMM) as word:
        if word is None:
            pytest.skip("needs two cores")
        for laps in (LAPS, 2 * LAPS):
            word.run()
            COMM.Barrier()
            assert word.value == 2 * laps
            COMM.Barrier()


@pair_only
@pytest.mark.parametrize("accelerated", [True, False])
@pytest.mark.parametrize("control", [True, False])
def test_lockstep_exchanges(accelerated, control):
    x = normal(100)
    expected = mean_over_ranks(x, COMM)
    assert lockstep_rate(x, COMM, 5, accelerated, 30.0, control) > 0
    np.testing.assert_allclose(x, expected, atol=1e-6)


@several
def test_saturated_ranks_make_more_exchanges_than_became_due():
    x = normal(10, "float64")
    expected = mean_over_ranks(x, COMM)
    gossip = saturated(x, COMM, comm_rate=0.05, deadline_seconds=30)
    before = Counters.of(gossip)
    with gossip:
        time.sleep(1.0)
    found = Counters.of(gossip).since(before).over_ranks(COMM)
    arrivals = COMM.allreduce(gossip.engine.parts.demand.due())
    assert 0 < arrivals < found.exchanges / 2 <= found.messages
    np.testing.assert_allclose(x, expected, atol=1e-12)


def test_counters_are_differences_and_sums():
    earlier, later = Counters(1.0, 2, 1, 10), Counters(3.0, 6, 2, 16)
    found = later.since(earlier).over_ranks(COMM)
    assert found == (2.0, 4 * COMM.size, COMM.size, 6 * COMM.size)
    assert found.pairs_per_second == COMM.size


def test_the_distance_is_that_of_all_ranks_together():
    copies = normal(60).reshape(3, 20)
    everyone = np.array(COMM.allgather(copies), dtype=np.float64)
    away = everyone - everyone.mean(axis=0)
    expected = (away**2).sum(axis=2).mean(axis=0)
    np.testing.assert_allclose(consensus_distances(copies, COMM), expected, rtol=1e-12)


def test_rivals_take_turns_and_the_slowest_rank_counts():
    calls = []
    slow = COMM.size - 1

    def work(name):
        def do():
            calls.append(name)
            time.sleep(0.03 if COMM.rank == slow and name == "a" else 0.0)

        return do

    prepared = []
    seconds = interleaved(COMM, {n: work(n) for n in "ab"}, 3, prepared.append)
    assert "".join(calls) == "abbaabba"
    assert prepared == calls
    assert seconds["a"] >= 0.03
    assert seconds["b"] < seconds["a"]
