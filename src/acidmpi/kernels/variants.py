"""Which loops there are, for which types, and which of them a run needs.

Types are characters: d, f and e are float64, float32 and float16; H is uint16 and means
bfloat16; n is an absent array.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from acidmpi.kernels.hyper import SGD, Adam, Add, Hyper
from acidmpi.kernels.protocol import Array

_WIDE = {"d": "d", "f": "f", "e": "f", "H": "f"}


class Variant(NamedTuple):
    """One loop for one combination of types."""

    loop: str
    """Name of a function in `kernels.cpu.loops` and of a body in `kernels.cuda.source`."""

    arrays: str
    """A type for each of its arrays."""


class Layout(NamedTuple):
    """Arguments of a loop before and after the length `n`, a character each."""

    arrays: str
    """x: typed as `x`; w: as `x_tilde`; W: likewise, and may be absent."""

    scalars: str
    """d: a number; ?: a flag."""


LAYOUTS = {
    "snapshot": Layout("xwx", "d"),
    "exchange": Layout("xWxx", "dd"),
    "mix": Layout("xw", "dd"),
    "sgd": Layout("xWxW", "ddddd????"),
    "adam": Layout("xWxww", "dddddddd??"),
    "add": Layout("xWx", "d?"),
}


def kinds(arrays: Iterable[Array | None]) -> str:
    """The types of `arrays`, supported or not."""
    return "".join(["n" if a is None else a.dtype.char for a in arrays])


def needed(
    dtypes: Iterable[npt.DTypeLike], rules: Iterable[Hyper], x_tilde: bool
) -> Iterator[Variant]:
    """All that a run with these parameters and rules will call."""
    rules = tuple(rules)
    for dtype in dtypes:
        x = np.dtype(dtype).char
        wide = _WIDE.get(x, x)
        companion = wide if x_tilde else "n"
        yield Variant("exchange", x + companion + x + x)
        if x_tilde:
            yield Variant("snapshot", x + wide + x)
            yield Variant("mix", x + wide)
        for rule in rules:
            loop, state = _rule(rule, wide)
            yield Variant(loop, x + companion + x + state)


def check(variant: Variant) -> None:
    """Raise `TypeError` unless the loop exists for these types."""
    x = variant.arrays[0]
    wide = _WIDE.get(x, "")
    allowed = {"x": x, "w": wide, "W": wide + "n"}
    roles = LAYOUTS[variant.loop].arrays
    if (
        not wide
        or len(roles) != len(variant.arrays)
        or any(k not in allowed[r] for k, r in zip(variant.arrays, roles, strict=True))
    ):
        given = ", ".join(map(_name, variant.arrays))
        raise TypeError(
            f"no kernel {variant.loop!r} takes ({given}): parameters, gradients and "
            "messages share one of float64, float32, float16 and uint16 (bfloat16), "
            "companions and optimiser state are float32 or, beside float64, float64"
        )


def _name(kind: str) -> str:
    return "None" if kind == "n" else str(np.dtype(kind))


def _rule(rule: Hyper, wide: str) -> tuple[str, str]:
    match rule:
        case SGD():
            return "sgd", wide if rule.momentum else "n"
        case Adam():
            return "adam", wide + wide
        case Add():
            return "add", ""
