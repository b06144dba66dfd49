"""State as it is kept: a tree of plain values with arrays in it, taken apart for files.

A tree is made of dicts with text as keys, lists, text, numbers, booleans, None and NumPy
arrays. `pack` takes the arrays out and leaves plain values that JSON can hold; `unpack`
puts them back. Whole numbers of any size and floats come back to the last bit.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.errors import ConfigError

Array = NDArray[Any]
Tree = Any

ARRAY, FLOAT, ITEMS = "$array", "$float", "$items"
"""Keys that stand for what JSON does not have; no other key begins with a dollar."""


class Packed(NamedTuple):
    """A tree taken apart."""

    plain: Any
    """The tree with names in place of arrays."""

    arrays: dict[str, Array]
    """The arrays by name; not copied."""


def pack(tree: Tree) -> Packed:
    """Take `tree` apart.

    Raises:
        ConfigError: it holds something that cannot be kept.
    """
    arrays: dict[str, Array] = {}
    return Packed(_pack(tree, "", arrays), arrays)


def unpack(packed: Packed) -> Tree:
    """The tree that `pack` was given; tuples have become lists."""
    plain, arrays = packed
    if isinstance(plain, dict):
        return _unpack_dict(plain, arrays)
    if isinstance(plain, list):
        return [unpack(Packed(item, arrays)) for item in plain]
    return plain


def map_arrays(change: Callable[..., Array], trees: Sequence[Tree]) -> Tree:
    """One tree of the form of `trees`, whose arrays `change` makes of theirs.

    Everything else is the first tree's.

    Args:
        change: takes a list of arrays, one of each tree.
        trees: all of the same form.

    Raises:
        ConfigError: their forms differ.
    """
    plain, arrays = pack(trees[0])
    packed = [pack(tree).arrays for tree in trees]
    if any(_form(each) != _form(arrays) for each in packed):
        raise ConfigError("states to be combined must hold arrays of the same shapes")
    combined = {name: change([each[name] for each in packed]) for name in arrays}
    return unpack(Packed(plain, combined))


def _form(arrays: Mapping[str, Array]) -> dict[str, Any]:
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def _pack(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {ARRAY: name}
    if isinstance(value, Mapping):
        return _pack_dict(value, name, arrays)
    if isinstance(value, list | tuple):
        return [_pack(item, f"{name}/{k}", arrays) for k, item in enumerate(value)]
    return _pack_scalar(value, name)


def _pack_dict(value: Mapping[Any, Any], name: str, arrays: dict[str, Array]) -> Any:
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {k: _pack(v, f"{name}/{k}", arrays) for k, v in value.items()}
    if all(isinstance(key, int) for key in value):  # as in a torch optimizer's state
        items = [[k, _pack(v, f"{name}/{k}", arrays)] for k, v in value.items()]
        return {ITEMS: items}
    raise ConfigError(f"the keys of a state must be text or numbers, got {list(value)}")


def _pack_scalar(value: Any, name: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {FLOAT: repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(
        "a state must be made of numbers, text, lists, dicts and arrays, got "
        f"{type(value).__name__} at {name or 'its root'!r}"
    )


def _unpack_dict(plain: dict[str, Any], held: dict[str, Array]) -> Any:
    if ARRAY in plain:
        return held[plain[ARRAY]]
    if FLOAT in plain:
        return float(plain[FLOAT])
    if ITEMS in plain:
        return {k: unpack(Packed(v, held)) for k, v in plain[ITEMS]}
    return {k: unpack(Packed(v, held)) for k, v in plain.items()}


class Stage:
    """Memory into which states are copied, the same for every set: no new pages to map.

    One owner at a time: what `copy` gave is overwritten by the next one.
    """

    def __init__(self) -> None:
        self._held: dict[str, Array] = {}

    def copy(self, packed: Packed) -> Packed:
        """The same with arrays of its own, contiguous."""
        return Packed(
            packed.plain, {n: self._keep(n, a) for n, a in packed.arrays.items()}
        )

    def _keep(self, name: str, array: Array) -> Array:
        held = self._held.get(name)
        if held is None or (held.shape, held.dtype) != (array.shape, array.dtype):
            held = self._held[name] = np.empty(array.shape, array.dtype)
        np.copyto(held, array)
        return held
