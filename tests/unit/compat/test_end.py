"""How scripts end, under mpiexec."""

import time

import pytest

DIES = """
import acidmpi.compat.horovod as hvd
hvd.init()
if hvd.rank() == 1:
    raise RuntimeError("planted")
hvd.barrier()
"""

FORGETS = """
import torch
import acidmpi.compat.acpsgd as acpsgd
from acidmpi.tasks.lean import leave_out_compiler
leave_out_compiler()
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
optimizer = acpsgd.DistributedOptimizer(optimizer)
model(torch.ones(1, 3)).sum().backward()
optimizer.synchronize()
print("rank", acpsgd.rank(), "of", acpsgd.size())
"""


@pytest.fixture
def script(tmp_path):
    def write(text):
        path = tmp_path / "script.py"
        path.write_text(text)
        return str(path)

    return write


def test_an_exception_on_one_rank_ends_all(run_ranks, script):
    start = time.monotonic()
    done = run_ranks(2, script(DIES), timeout_seconds=60)
    assert done.returncode != 0, done.stdout + done.stderr
    assert "RuntimeError: planted" in done.stdout + done.stderr
    # A wait of the other rank would end after half an hour.
    assert time.monotonic() - start < 60


def test_a_script_that_closes_nothing_ends_in_order(run_ranks, script):
    done = run_ranks(2, script(FORGETS), timeout_seconds=60)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")[:2]) == ["rank 0 of 2", "rank 1 of 2"]
