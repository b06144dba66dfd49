"""Names are unique, and the order of parameters is that of the names given."""

import pytest
import torch
from torch import nn

from acidmpi.errors import ConfigError
from acidmpi.parallel.torch.names import Names


def parameters(count):
    return [nn.Parameter(torch.zeros(2)) for _ in range(count)]


def sgd(*groups):
    return torch.optim.SGD([{"params": group} for group in groups], lr=0.1)


def names(named):
    return [name for name, _ in named]


def test_names_do_not_begin_anew_in_each_group():
    a, b, c = parameters(3)
    found = Names(sgd([a, b], [c]), None).trained()
    assert names(found) == ["group0.0", "group0.1", "group1.0"]


def test_the_order_is_that_of_the_model():
    a, b, c = parameters(3)
    given = [
        ("a", a),
        ("other", parameters(1)[0]),
        ("b", b),
        ("tied to a", a),
        ("c", c),
    ]
    found = Names(sgd([c, a], [b]), given).trained()
    assert names(found) == ["a", "b", "c"]
    assert all(p is q for (_, p), q in zip(found, (a, b, c), strict=True))


def test_names_of_the_optimizer_are_used():
    optimizer = torch.optim.SGD([("x", parameters(1)[0])], lr=0.1)
    assert names(Names(optimizer, None).trained()) == ["x"]


def test_what_is_not_trained_now_is_left_out():
    a, b, c = parameters(3)
    optimizer = sgd([a, b, c], [nn.Parameter(torch.zeros(0))])
    listed = Names(optimizer, None)
    b.requires_grad_(False)
    assert names(listed.trained()) == ["group0.0", "group0.2"]
    b.requires_grad_(True)
    assert names(listed.trained(besides={a})) == ["group0.1", "group0.2"]


def test_groups_that_come_later():
    a, b = parameters(2)
    optimizer = sgd([a])
    listed = Names(optimizer, [("a", a)])
    optimizer.add_param_group({"params": [b]})
    assert names(listed.trained()) == ["a", "group1.0"]


def test_bad_names_are_refused():
    a, b = parameters(2)
    optimizer = sgd([a, b])
    with pytest.raises(ConfigError, match="must be unique, got two called 'a'"):
        Names(optimizer, [("a", a), ("a", b)])
    with pytest.raises(ConfigError, match=r"got none for group0\.1"):
        Names(optimizer, [("a", a)])
    with pytest.raises(
        ConfigError, match="pairs of a name and a tensor, got Parameter"
    ):
        Names(optimizer, [a, b])
