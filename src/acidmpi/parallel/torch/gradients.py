"""Gradients of torch parameters in flat buffers, as an averager wants them.

Guarantees:
- one buffer per type, filled in reverse order of registration, which is about the order
  in which a backward pass ends: neighbours in a bucket are neighbours in memory;
- a place has the strides of its parameter wherever these are dense (channels last,
  transposed), so that optimizers read both alike;
- a parameter without a gradient has `grad` None, as in torch.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from acidmpi.arrays.torch.devices import accelerator_for
from acidmpi.arrays.torch.layout import DTYPES, dense_strides
from acidmpi.arrays.torch.views import Kept, as_array, check_kept, is_finite, keep
from acidmpi.compression.protocol import Array, Spec
from acidmpi.errors import ConfigError


class GradientBuffers:
    """Places for the gradients of some parameters.

    Not thread-safe; each place is used by one thread at a time, its owner's.

    Args:
        names: of the parameters, for errors.
        parameters: plain dense ones on one device, none of them empty.

    Raises:
        ConfigError: a parameter of another kind, or on another device; CuPy cannot use
            the device.
    """

    def __init__(self, names: Sequence[str], parameters: Sequence[Tensor]) -> None:
        for name, parameter in zip(names, parameters, strict=True):
            _check(name, parameter)
            _check_device(name, parameter, names[0], parameters[0])
        self.parameters = tuple(parameters)
        self._names = tuple(names)
        self.accelerator = accelerator_for(parameters[0].device)
        """The device that the places are on; None is host memory."""
        self._flats = _allocate(parameters)
        starts = _starts(parameters)
        self._views = [
            self._flats[p.dtype].tensor.as_strided(p.shape, dense_strides(p), start)
            for p, start in zip(parameters, starts, strict=True)
        ]
        self.arrays: tuple[Array, ...] = tuple(
            self._flats[p.dtype].array[start : start + p.numel()]
            for p, start in zip(parameters, starts, strict=True)
        )
        """Every place as a one-dimensional array, in order of registration."""
        self._warned = False
        self._looked_at: list[tuple[int, bool | Tensor]] = []
        """Places in the order of looking, and whether they were finite."""
        self.specs = tuple(_spec(p) for p in parameters)
        """Shapes with the axes in the order in which they lie in memory, and types."""

    def adopt(self, index: int) -> bool:
        """Bring a parameter's gradient into its place; False if there is none.

        A sparse gradient is made dense; the first one brings a warning.

        Raises:
            ConfigError: the places were moved, see `views.Kept`.
        """
        check_kept(self._flats.values())
        parameter, view = self.parameters[index], self._views[index]
        gradient = parameter.grad
        if gradient is None:
            return False
        if gradient is not view:
            view.copy_(self._dense(gradient.detach()))
            self.show(index)
        return True

    def show(self, index: int) -> None:
        """Make the place the parameter's gradient.

        Raises:
            ConfigError: the places were moved, see `views.Kept`, or the parameter has
                got another type or device.
        """
        check_kept(self._flats.values())
        try:
            self.parameters[index].grad = self._views[index]
        except (RuntimeError, TypeError) as error:
            raise ConfigError(
                "a model must keep its types and device while its gradients are averaged, "
                f"but {self._names[index]!r} was moved or cast; call model.to() before "
                "the optimizer is made"
            ) from error

    def clean(self, index: int) -> None:
        """Put zeros in a place that holds NaN or infinity; a device is not waited for."""
        view = self._views[index]
        if self.accelerator is None:
            finite: bool | Tensor = is_finite(view)
            if not finite:
                view.zero_()
        else:
            finite = torch.isfinite(view).all()
            view.masked_fill_(~finite, 0)
        self._looked_at.append((index, finite))

    def first_bad(self) -> int | None:
        """The first place, as they were looked at since `begin`, that was not finite.

        A device is waited for.
        """
        finite = [finite for _, finite in self._looked_at]
        if self.accelerator is not None and finite:
            finite = torch.stack(finite).tolist()  # type: ignore[arg-type]
        both = zip(self._looked_at, finite, strict=True)
        return next((index for (index, _), good in both if not good), None)

    def begin(self) -> None:
        """Forget what was looked at."""
        self._looked_at.clear()

    def fill(self, index: int, value: float) -> None:
        """Set every element of a place."""
        self._views[index].fill_(value)

    def _dense(self, gradient: Tensor) -> Tensor:
        if gradient.layout is torch.strided:
            return gradient
        if not self._warned:
            self._warned = True
            warnings.warn(
                "a sparse gradient is averaged as a dense one, at its full size; use "
                "sparse=False to save the conversion",
                stacklevel=2,
            )
        return gradient.to_dense()


def _check(name: str, parameter: Tensor) -> None:
    if is_lazy(parameter):
        raise ConfigError(
            f"every parameter needs a shape, got the lazy {name!r}; run the model on "
            "one example first"
        )
    plain = type(parameter.data) is Tensor and parameter.layout is torch.strided
    here = parameter.device.type in ("cpu", "cuda")
    if not plain or not here or parameter.dtype not in DTYPES:
        kind = (parameter.dtype, parameter.layout, parameter.device)
        raise ConfigError(
            "parameters must be plain dense tensors of real numbers of 16, 32 or 64 bits "
            f"on the CPU or a CUDA device, got {name!r} ({', '.join(map(str, kind))}); "
            "leave it to another optimizer, or convert it"
        )


def _check_device(name: str, parameter: Tensor, first: str, one: Tensor) -> None:
    if parameter.device != one.device:
        raise ConfigError(
            f"all parameters must be on one device, got {first!r} on {one.device} and "
            f"{name!r} on {parameter.device}; give each device an optimizer of its own"
        )


def _allocate(parameters: Sequence[Tensor]) -> dict[torch.dtype, Kept]:
    sizes: dict[torch.dtype, int] = {}
    for parameter in parameters:
        sizes[parameter.dtype] = sizes.get(parameter.dtype, 0) + parameter.numel()
    return {
        dtype: keep(torch.zeros(size, dtype=dtype, device=parameters[0].device))
        for dtype, size in sizes.items()
    }


def _starts(parameters: Sequence[Tensor]) -> list[int]:
    """Where each place begins in the buffer of its type, the last one first."""
    ends: dict[torch.dtype, int] = {}
    starts: list[int] = []
    for parameter in reversed(parameters):
        starts.append(ends.get(parameter.dtype, 0))
        ends[parameter.dtype] = starts[-1] + parameter.numel()
    return starts[::-1]


def _spec(parameter: Tensor) -> Spec:
    strides = dense_strides(parameter)
    # Axes of one element may have any stride: they keep their place among equals.
    order = sorted(range(parameter.ndim), key=lambda axis: -strides[axis])
    shape = tuple(parameter.shape[axis] for axis in order)
    dtype = as_array(torch.empty(0, dtype=parameter.dtype)).dtype
    return Spec(shape, np.dtype(dtype))
