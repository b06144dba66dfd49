import math

from acidmpi.bench.kernels import resnet18_shapes, run


def test_the_rival_has_the_parameters_of_resnet_18():
    shapes = resnet18_shapes()
    assert len(shapes) == 62
    assert sum(map(math.prod, shapes)) == 11_173_962


def test_every_kernel_is_compared():
    results = run(size=100_000, rounds=1)
    assert all(r["value"] > 0 and r["limit"] > 0 for r in results)
    assert all(math.isclose(r["ratio"], r["value"] / r["limit"]) for r in results)
    names = " ".join(r["name"] for r in results)
    for word in (
        "snapshot",
        "exchange",
        "momentum",
        "Nesterov",
        "Adam",
        "AdamW",
        "torch",
    ):
        assert word in names
