import pytest
import torch

from acidmpi.errors import ConfigError
from acidmpi.tasks.groups import parameter_groups
from acidmpi.tasks.interface import MODEL_NAMES
from acidmpi.tasks.models import make_model
from acidmpi.tasks.resnet import Residual, resnet

COUNTS = {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("depth", COUNTS)
def test_resnet_has_the_papers_number_of_parameters(depth):
    # Nothing is allocated or initialised on this device: only shapes are counted.
    with torch.device("meta"):
        model = resnet(depth, classes=1000, imagenet_stem=True)
    assert parameters(model) == COUNTS[depth]


def test_resnet18_for_cifar_has_its_number_of_parameters():
    assert parameters(resnet(18, classes=10)) == 11_173_962


def test_stems_shrink_images_as_the_paper_says():
    with torch.device("meta"):
        small = resnet(18, classes=10)
        large = resnet(50, classes=1000, imagenet_stem=True)
        assert small[:2](torch.empty(2, 3, 32, 32)).shape == (2, 512, 4, 4)
        assert large[:2](torch.empty(2, 3, 224, 224)).shape == (2, 2048, 7, 7)


def test_stride_sits_in_the_3x3_of_a_bottleneck():
    with torch.device("meta"):
        model = resnet(50)
    strided = [
        module.kernel_size
        for block in model.modules()
        if isinstance(block, Residual)
        for module in block.branch.modules()
        if isinstance(module, torch.nn.Conv2d) and module.stride == (2, 2)
    ]
    assert strided == [(3, 3)] * 3


def test_convolutions_start_with_kaimings_spread_over_outputs():
    weight = resnet(18).state_dict()["1.6.branch.0.0.weight"]
    assert weight.shape == (512, 256, 3, 3)
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("depth", [18, 50])
def test_zero_gamma_makes_every_block_without_projection_the_identity(depth):
    x = torch.rand(2, 64, 4, 4)
    for zero_gamma in (True, False):
        model = resnet(depth, zero_gamma=zero_gamma)
        blocks = [m for m in model.modules() if isinstance(m, Residual)]
        block = next(b for b in blocks if isinstance(b.shortcut, torch.nn.Identity))
        inputs = x.repeat(1, 1 if depth == 18 else 4, 1, 1)
        assert torch.equal(block(inputs), inputs) == zero_gamma


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "lenet", "resnet18", "resnet18-imagenet"]
)
def test_models_take_every_shape_and_all_their_parameters_learn(name, shape):
    model = make_model(name, shape=shape, classes=7)
    outputs = model(torch.rand(3, *shape))
    assert outputs.shape == (3, 7)
    outputs.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_name_is_built(name):
    with torch.device("meta"):
        model = make_model(name, shape=(3, 32, 32), classes=10)
    assert parameters(model) > 0


def test_unknown_model_lists_the_known():
    with pytest.raises(
        ConfigError, match="unknown model 'vgg'; known: mlp, cnn, lenet, resn"
    ):
        make_model("vgg", shape=(1, 8, 8), classes=10)


def test_only_parameters_of_several_dimensions_are_decayed():
    model = resnet(18)
    decayed, plain = parameter_groups(model, 5e-4)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (5e-4, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in plain["params"]} == {1}
    together = {id(p) for group in (decayed, plain) for p in group["params"]}
    assert together == {id(p) for p in model.parameters()}


def test_frozen_parameters_and_empty_groups_are_left_out():
    model = make_model("mlp", shape=(1, 8, 8), classes=10)
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    model[3].bias.requires_grad_(False)
    (group,) = parameter_groups(model, 0.1)
    assert [id(p) for p in group["params"]] == [id(model[3].weight)]
