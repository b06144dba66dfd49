"""Trees of state come back as they were."""

import json
import math

import numpy as np
import pytest

from acidmpi.checkpoint.tree import Packed, Stage, map_arrays, pack, unpack
from acidmpi.errors import ConfigError

TREE = {
    "a": [1, 2.5, None, True, "text", {"b": np.arange(3, dtype=np.uint16)}],
    "state": {0: {"momentum": np.ones((2, 2))}, 7: {}},
    "large": 2**127 + 1,
    "ceiling": math.inf,
    "small": 0.1 + 0.2,
}


def test_a_tree_survives_json():
    packed = pack(TREE)
    plain = json.loads(json.dumps(packed.plain, allow_nan=False))
    back = unpack(Packed(plain, packed.arrays))
    assert back["large"] == TREE["large"]
    assert back["small"] == TREE["small"]
    assert back["ceiling"] == math.inf
    assert list(back["state"]) == [0, 7]
    assert back["a"][:5] == TREE["a"][:5]
    np.testing.assert_array_equal(back["a"][5]["b"], np.arange(3))
    np.testing.assert_array_equal(back["state"][0]["momentum"], np.ones((2, 2)))


@pytest.mark.parametrize("tree", [{"a": object()}, {("a",): 1}, {"$array": 1}])
def test_what_cannot_be_kept_is_refused(tree):
    with pytest.raises(ConfigError, match="state"):
        pack(tree)


def test_a_stage_copies_into_the_same_memory():
    x, stage = np.arange(4.0)[::-1], Stage()
    first = stage.copy(pack({"x": x})).arrays["/x"]
    x[0] = 9
    assert first[0] == 3
    assert stage.copy(pack({"x": x})).arrays["/x"] is first
    assert first[0] == 9
    assert stage.copy(pack({"x": np.zeros(5)})).arrays["/x"] is not first


def test_arrays_of_several_trees_are_combined():
    trees = [{"x": np.full(2, k), "n": k} for k in (1.0, 3.0)]
    mean = map_arrays(lambda arrays: sum(arrays) / len(arrays), trees)
    np.testing.assert_array_equal(mean["x"], [2, 2])
    assert mean["n"] == 1.0
    with pytest.raises(ConfigError, match="shapes"):
        map_arrays(sum, [{"x": np.zeros(2)}, {"x": np.zeros(3)}])
