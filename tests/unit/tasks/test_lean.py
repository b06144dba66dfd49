"""Training needs no compiler; a fresh process shows what is imported."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import torch
from acidmpi.tasks.lean import leave_out_compiler
if {lean}:
    leave_out_compiler()
layer = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
layer(torch.ones(2, 3)).sum().backward()
assert layer.bias.grad.item() == 2.0
optimizer.load_state_dict(optimizer.state_dict())
optimizer.zero_grad()
assert layer.bias.grad is None
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize(("lean", "imported"), [(True, "False"), (False, "True")])
def test_the_compiler_is_left_out(lean, imported):
    program = PROGRAM.format(lean=lean)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == imported
