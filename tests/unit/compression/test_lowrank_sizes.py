"""What low rank sends: bytes of known models, kinds of steps, messages as announced."""

import numpy as np
import pytest
from support.ranks_in_memory import Ranks

from acidmpi.compression.lowrank import ACPSGD, PowerSGD
from acidmpi.compression.protocol import Place, Spec

LEFT, RIGHT, OPENING = 0, 1, 2


def resnet18():
    """Shapes for CIFAR-10: convolutions, then the classifier; and the vectors."""
    matrices, vectors, inputs = [(64, 3, 3, 3)], [64, 64], 64
    for width in (64, 64, 128, 128, 256, 256, 512, 512):
        matrices += [(width, inputs, 3, 3), (width, width, 3, 3)]
        vectors += [width] * 4
        if width != inputs:
            matrices.append((width, inputs, 1, 1))
            vectors += [width] * 2
        inputs = width
    return [*matrices, (10, 512)], [*vectors, 10]


def resnet50():
    """Shapes for ImageNet."""
    matrices, vectors, inputs = [(64, 3, 7, 7)], [64, 64], 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            matrices += [(width, inputs, 1, 1), (width, width, 3, 3)]
            matrices.append((4 * width, width, 1, 1))
            vectors += [width] * 4 + [4 * width] * 2
            if block == 0:
                matrices.append((4 * width, inputs, 1, 1))
                vectors += [4 * width] * 2
            inputs = 4 * width
    return [*matrices, (1000, 2048)], [*vectors, 1000]


def specs_of(model):
    matrices, vectors = model
    shapes = matrices + [(size,) for size in vectors]
    return [Spec(shape, np.dtype(np.float32)) for shape in shapes]


def bytes_by_phase(compressor, specs):
    reduction = compressor.start(specs, Place(0, 4, 0))
    return [
        sum(reduction.payload_bytes(index, phase) for index in range(len(specs)))
        for phase in range(reduction.phases)
    ]


SIZES = [
    (resnet18, 1, 19_240, 126_060, 38_440, 11_173_962),
    (resnet18, 2, 38_480, 252_120, 38_440, 11_173_962),
    (resnet18, 4, 76_960, 504_240, 38_440, 11_173_962),
    (resnet18, 7, 134_680, 882_420, 38_440, 11_173_962),
    (resnet50, 4, 440_960, 878_896, 216_480, 25_557_032),
]


@pytest.mark.parametrize(("model", "matrix_rank", "p", "q", "vectors", "count"), SIZES)
def test_bytes_of_known_models(model, matrix_rank, p, q, vectors, count):
    specs = specs_of(model())
    assert bytes_by_phase(ACPSGD(matrix_rank), specs) == [
        p + vectors,
        q + vectors,
        4 * count,
    ]
    power = PowerSGD(matrix_rank, min_compression_rate=1.0)
    assert bytes_by_phase(power, specs) == [p + q + vectors, 4 * count]


def test_compression_that_does_not_pay_is_left_out():
    specs = [Spec((10, 512), np.dtype(np.float32))]
    assert bytes_by_phase(PowerSGD(7, start_step=0), specs) == [4 * 5120]
    assert bytes_by_phase(PowerSGD(4, start_step=0), specs) == [4 * 4 * 522]


@pytest.mark.parametrize(
    ("compressor", "phases"),
    [
        (PowerSGD(start_step=0), [0, 0, 0, 0, 0]),
        (PowerSGD(start_step=2), [1, 1, 0, 0, 0]),
        (ACPSGD(start_step=0), [OPENING, LEFT, RIGHT, LEFT, RIGHT]),
        (ACPSGD(start_step=1), [OPENING, LEFT, RIGHT, LEFT, RIGHT]),
        (ACPSGD(start_step=2), [OPENING, OPENING, LEFT, RIGHT, LEFT]),
    ],
    ids=repr,
)
def test_kinds_of_steps(compressor, phases):
    reduction = compressor.start([Spec((9, 9), np.dtype(np.float32))], Place(0, 1, 0))
    assert [reduction.phase(step) for step in range(5)] == phases
    assert set(phases) == set(range(reduction.phases))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint16"])
@pytest.mark.parametrize("start_step", [0, 2])
@pytest.mark.parametrize("method", [PowerSGD, ACPSGD])
def test_messages_are_as_large_and_as_many_as_announced(method, start_step, dtype):
    shapes = ((20, 30), (7,), (20, 5, 6), (9, 40), (2, 3))
    specs = [Spec(shape, np.dtype(dtype)) for shape in shapes]
    ranks = Ranks(method(2, start_step=start_step), specs, 2)
    reduction, most = ranks.reductions[0], 0
    for step in range(5):
        gradients = [[np.zeros(np.prod(s), dtype) for s in shapes] for _ in range(2)]
        before = list(ranks.traffic.sent_bytes)
        ranks.reduce(gradients)
        expected = sum(
            reduction.payload_bytes(index, reduction.phase(step))
            for index in range(len(specs))
        )
        sent = np.subtract(ranks.traffic.sent_bytes, before)
        np.testing.assert_array_equal(sent, expected)
        most = max(most, len(ranks.traffic.kinds))
    assert most == reduction.stages


def test_one_message_is_enough_for_vectors():
    specs = [Spec((7,), np.dtype(np.float32))]
    assert PowerSGD().start(specs, Place(0, 1, 0)).stages == 1
