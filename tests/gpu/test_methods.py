"""The command with `--device cuda`: each method learns the digits as it does on the CPU."""

import pytest
from mpi4py import MPI
from support.train_command import finished, summary_of

COMM = MPI.COMM_WORLD
EVERY = ["--epochs", "6", "--deadline-seconds", "60", "--evaluate-every", "2"]
METHODS = [
    ["a2cid2"],
    ["adpsgd"],
    ["allreduce"],
    ["allreduce", "--compression", "powersgd", "--matrix-rank", "2"],
    ["localsgd", "--clip", "5"],
    ["gossip"],
    ["gossip", "--topology", "ring"],
]

pytestmark = [pytest.mark.mpi, pytest.mark.limit(240)]


@pytest.fixture(name="device", scope="module")
def where_it_runs():
    return "cuda"


@pytest.mark.parametrize("method", METHODS, ids=" ".join)
def test_a_method_learns_on_gpus(run, folder, device, method):
    if method[0] == "adpsgd" and COMM.size == 1:
        pytest.skip("needs two roles")
    options = [*EVERY, "--device", device, "--method", *method]
    finished_with = run(*options, "--output", folder)
    if method[0] in ("a2cid2", "adpsgd"):  # these say which transport they took
        assert [end[0] for end in finished_with] == [0] * COMM.size
    else:
        finished(finished_with)
    summary = summary_of(folder)
    assert summary["test_accuracy"] > 0.85
    if device == "cuda":
        assert all(uuid for uuid in summary["device_uuid"])


@pytest.mark.parametrize("method", METHODS[2:], ids=" ".join)
def test_ranks_in_step_end_where_those_on_the_cpu_end(run, folder, device, method):
    """But for rounding: sums are made in another order."""
    short = [*EVERY, "--epochs", "1", "--method", *method]
    finished(run(*short, "--device", "cpu", "--output", folder / "cpu"))
    finished(run(*short, "--device", device, "--output", folder / "gpu"))
    here, there = (summary_of(folder / name) for name in ("cpu", "gpu"))
    assert here["test_loss"] == pytest.approx(there["test_loss"], rel=0.02)
    for key in ("gradients", "exchanges", "bytes_sent"):
        assert here[key] == there[key]
