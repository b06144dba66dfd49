"""The benchmark of an iteration on real ranks: methods do the same work, and all report."""

import json
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mpi4py import MPI
from support.staying import StayingComm
from torch import nn

from acidmpi.bench import iteration_gloo, iteration_methods
from acidmpi.bench.cli import main
from acidmpi.bench.iteration_methods import contestant, network
from acidmpi.bench.models import Workload
from acidmpi.bench.options import IterationOptions

pytestmark = pytest.mark.mpi

COMM = MPI.COMM_WORLD
ARGUMENTS = ["--warmup", "2", "--iterations", "2", "--repeats", "1"]


def small(name, *, rank, **sizes):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8))
    inputs = torch.randn(4, 64, generator=torch.Generator().manual_seed(rank))
    return Workload(module, (inputs,), lambda outputs: outputs.square().mean(), "rows")


@pytest.fixture(autouse=True)
def compiler_is_asked(monkeypatch):
    """Torch's process group and DDP ask the compiler, which tests leave out."""
    for name in ("trace_rules", "utils"):
        compiler = sys.modules["torch._dynamo"]
        monkeypatch.setattr(compiler, name, MagicMock(), raising=False)


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    """What is timed does not matter here; the models have tests of their own."""
    monkeypatch.setattr(iteration_methods, "make_workload", small)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_it_reports_once_and_names_every_method(capsys):
    capsys.readouterr()
    arguments = ["iteration", *ARGUMENTS, "--methods", "ssgd,topk"]
    status = main(arguments, StayingComm(COMM))
    said = capsys.readouterr()
    ends = COMM.allgather((status, said.err))
    assert ends == [(0, "")] * COMM.size
    if COMM.rank:
        assert said.out == ""
        return
    results = json.loads(said.out.splitlines()[-1], parse_constant=pytest.fail)
    found = {result["name"]: result for result in results["results"]}
    for name in ("none", "ddp", "ssgd", "topk"):
        assert found[f"iteration, {name}"]["value"] > 0
    if COMM.size > 1:
        sent = "bytes sent per rank and iteration, "
        assert found[sent + "ssgd"]["ratio"] == pytest.approx(1, rel=0.01)
        assert found[sent + "topk"]["ratio"] < 0.02 * COMM.size


def parameters(name, steps):
    with contestant(name, IterationOptions(), COMM) as ready:
        for _ in range(steps):
            ready.iterate()
        flat = [p.detach().flatten() for p in ready.workload.module.parameters()]
        return torch.cat(flat).numpy().copy()


def test_ours_and_the_rival_make_the_same_steps_and_none_does_not():
    with network(["ddp"], COMM, 60.0):
        rival = parameters("ddp", 2)
    own = parameters("ssgd", 2)
    np.testing.assert_allclose(own, rival, rtol=1e-5, atol=1e-7)
    everyone = COMM.allgather(own)
    assert all(np.array_equal(own, other) for other in everyone)
    alone = parameters("none", 2)
    moved = bool(np.abs(alone - own).max() > 1e-5)
    assert moved == (COMM.size > 1)


@pytest.mark.parametrize("shared", [True, False])
def test_ranks_meet_with_and_without_a_folder_that_all_see(monkeypatch, shared):
    if not shared:
        monkeypatch.setattr(iteration_gloo, "_empty_file", lambda: "/nowhere/store")
    with network(["ddp"], COMM, 60.0):
        sums = torch.tensor([COMM.rank + 1.0])
        dist.all_reduce(sums)
    assert sums.item() == COMM.size * (COMM.size + 1) / 2


def test_averaging_alone_takes_time_and_leaves_a_step_that_goes_on():
    with contestant("ssgd", IterationOptions(), COMM) as ready:
        assert ready.synchronise_alone(COMM) > 0
        ready.iterate()
        assert ready.averaging.statistics().steps == 2
