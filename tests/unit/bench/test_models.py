"""Models by name and their batches: the sizes of the originals, and data that vary."""

import sys
from types import ModuleType

import pytest
import torch

from acidmpi.bench.encoder import UNMASKED
from acidmpi.bench.models import make_module, make_workload
from acidmpi.errors import ConfigError


def workload(name, rank=0, **changed):
    sizes = {"batch_size": 8, "image_size": 32, "sentence_length": 16} | changed
    return make_workload(name, rank=rank, **sizes)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet18", 11.690), ("resnet50", 25.557), ("resnet152", 60.193)],
)
def test_residual_networks_have_the_parameters_of_the_originals(name, millions):
    with torch.device("meta"):
        module = make_module(name)
    count = sum(p.numel() for p in module.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=5e-4)


@pytest.mark.parametrize("name", ["resnet18", "bert-tiny"])
def test_every_parameter_gets_a_gradient(name):
    ready = workload(name, batch_size=2)
    torch.autograd.backward(ready.loss(ready.module(*ready.inputs)))
    for parameter in ready.module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


def test_ranks_share_the_model_and_not_the_batch():
    first, second = workload("bert-tiny", rank=0), workload("bert-tiny", rank=1)
    pairs = zip(first.module.parameters(), second.module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.inputs[0], second.inputs[0])


def test_tokens_masks_types_and_labels_are_not_constant():
    words, types, real = workload("bert-tiny").inputs
    labels = workload("bert-tiny").loss.keywords["labels"]
    for found in (words, types, real):
        assert found.unique().numel() > 1
    assert not (labels[~real] != UNMASKED).any()
    masked = labels != UNMASKED
    assert torch.equal(labels[masked], words[masked])
    assert 0.02 < masked.float().mean() < 0.4


def test_images_have_the_size_asked_for():
    (images,) = workload("resnet18", image_size=48).inputs
    assert images.shape == (8, 3, 48, 48)
    assert images.std() > 0.9


class Auxiliary(torch.nn.Module):
    """Like inception: a second output that is not to be used."""

    def __init__(self, classes):
        super().__init__()
        self.last = torch.nn.Linear(3 * 32 * 32, classes)

    def forward(self, x):
        scores = self.last(x.flatten(1))
        return scores, scores * float("nan")


def test_other_names_are_torchvisions(monkeypatch):
    models = ModuleType("torchvision.models")
    models.list_models = lambda module: ["auxiliary"] if module is models else []
    models.get_model = lambda name, weights, num_classes: Auxiliary(num_classes)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    ready = workload("auxiliary")
    assert ready.loss(ready.module(*ready.inputs)).isfinite()
    with pytest.raises(ConfigError, match="did you mean 'auxiliary'"):
        make_module("auxilliary")


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("resnet19", {}, "resnet18"),
        ("bert-huge", {}, "bert-base"),
        ("bert-tiny", {"sentence_length": 600}, "from 2 to 512, got 600"),
    ],
)
def test_what_cannot_be_made_is_refused(name, changed, said):
    with pytest.raises(ConfigError, match=said):
        workload(name, **changed)
