"""SGD without the compiler steps as torch's own does."""

import subprocess
import sys

import torch

from acidmpi.tasks.models import make_model
from acidmpi.tasks.optimizer import LeanSGD, clip_gradients, make_sgd


def models():
    first = make_model("mlp", shape=(1, 4, 4), classes=3)
    second = make_model("mlp", shape=(1, 4, 4), classes=3)
    second.load_state_dict(first.state_dict())
    return first, second


def test_both_kinds_take_the_same_steps():
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    lean, plain = models()
    first, second = make_sgd(lean, **options), make_sgd(plain, fused=True, **options)
    assert (type(first), type(second)) == (LeanSGD, torch.optim.SGD)
    batch = torch.rand(5, 1, 4, 4)
    for _ in range(3):
        for model, optimizer in ((lean, first), (plain, second)):
            optimizer.zero_grad()
            model(batch).square().sum().backward()
            optimizer.step()
    for a, b in zip(lean.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad or a.is_leaf


def test_a_closure_sees_gradients():
    model, _ = models()
    optimizer = make_sgd(model, lr=1e-3, momentum=0.0, weight_decay=0.0)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 1, 4, 4)).square().sum()
        loss.backward()
        return loss

    before = closure().item()
    assert optimizer.step(closure).item() == before
    assert closure().item() < before


def test_clipping_bounds_the_common_norm():
    model, _ = models()
    model(torch.ones(2, 1, 4, 4)).square().sum().backward()
    clip_gradients(model, 1e-3)
    norm = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
    assert 0.99e-3 < norm < 1.001e-3


def test_a_step_does_not_import_the_compiler():
    program = (
        "import sys, torch\n"
        "from acidmpi.tasks.optimizer import make_sgd\n"
        "model = torch.nn.Linear(2, 2)\n"
        "optimizer = make_sgd(model, lr=0.1, momentum=0.9, weight_decay=0.1)\n"
        "model(torch.ones(1, 2)).sum().backward()\n"
        "optimizer.step()\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
