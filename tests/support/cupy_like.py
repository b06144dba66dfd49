"""A stand-in for CuPy: arrays that lie elsewhere, for machines without a GPU.

`ndarray` is no NumPy array but holds one, and refuses what CuPy refuses: to become a
NumPy array unless asked by `get`, and to meet one in an operator, a function, an index or
an assignment. What CuPy does otherwise than NumPy, or not at all, is like that here, too:

- single elements are arrays without dimensions, not scalars;
- `linalg.cholesky` raises nothing, but gives NaN;
- through a mask only a single number is written;
- `packbits` has no axis, `max` no initial value, ufuncs no mask;
- numbers must be aligned in memory: a GPU cannot read others.

`namespace_of` finds the functions under the name `cupy_like`.
"""

import sys
from types import SimpleNamespace

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

_METHODS = (
    "all",
    "any",
    "astype",
    "copy",
    "mean",
    "reshape",
    "sum",
    "swapaxes",
    "take",
)
_FUNCTIONS = (
    "abs",
    "arange",
    "argpartition",
    "ascontiguousarray",
    "broadcast_to",
    "clip",
    "concatenate",
    "count_nonzero",
    "diagonal",
    "empty",
    "eye",
    "flatnonzero",
    "floor",
    "hstack",
    "isfinite",
    "isnan",
    "matmul",
    "partition",
    "sqrt",
    "stack",
    "subtract",
    "where",
    "zeros",
)


class ndarray(NDArrayOperatorsMixin):
    """Like `cupy.ndarray`; make one by `asarray`."""

    __module__ = "cupy_like"
    __hash__ = None

    def __init__(self, host):
        if host.ctypes.data % host.itemsize:
            raise TypeError(f"{host.dtype} must be aligned")
        self._host = host

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: SimpleNamespace(**_flags(self._host)))
    T = property(lambda self: ndarray(self._host.T))

    @property
    def __cuda_array_interface__(self):
        return self._host.__array_interface__

    def __array__(self, *args, **kwargs):
        raise TypeError("no implicit conversion to a NumPy array; use `.get()`")

    def __array_ufunc__(self, ufunc, method, *inputs, out=(None,), **kwargs):
        if method != "__call__" or kwargs:
            return NotImplemented
        return _call(ufunc, *inputs, out=out[0])

    def __array_function__(self, function, types, args, kwargs):
        path = (*function.__module__.split(".")[1:], function.__name__)
        mine = sys.modules["cupy_like"]
        for name in path:
            mine = getattr(mine, name, None)
        if mine is None or set(types) != {ndarray}:
            return NotImplemented
        return mine(*args, **kwargs)

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __getitem__(self, key):
        return _wrap(self._host[_unwrap(key)])

    def __setitem__(self, key, value):
        key, value = _unwrap(key), _unwrap(value)
        if isinstance(key, np.ndarray) and key.dtype == np.bool_ and np.ndim(value):
            raise TypeError("a mask takes a single number")
        self._host[key] = value

    def __bool__(self):
        return bool(self._host)

    def __int__(self):
        return int(self._host)

    def __float__(self):
        return float(self._host)

    def set(self, host):
        if (host.shape, host.dtype) != (self.shape, self.dtype):
            raise TypeError("only an array of the same shape and type is copied")
        self._host[...] = host

    def get(self):
        return self._host.copy()

    def tobytes(self):
        return self._host.tobytes()

    def fill(self, value):
        self._host.fill(_unwrap(value))

    def view(self, dtype):
        return ndarray(self._host.view(dtype))

    def max(self, axis=None, out=None, keepdims=False):
        return _call(self._host.max, axis=axis, out=out, keepdims=keepdims)


def _flags(host):
    """Those that CuPy's arrays have, too."""
    names = ("c_contiguous", "f_contiguous", "owndata")
    return {name: getattr(host.flags, name) for name in names}


def _wrap(result):
    return ndarray(result if isinstance(result, np.ndarray) else np.asarray(result))


def _unwrap(value):
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (list, tuple)):
        return type(value)(map(_unwrap, value))
    return value


def _call(function, *args, out=None, **kwargs):
    if out is not None:
        function(*map(_unwrap, args), out=_unwrap(out), **kwargs)
        return out
    kwargs = {name: _unwrap(value) for name, value in kwargs.items()}
    return _wrap(function(*map(_unwrap, args), **kwargs))


def _method(name):
    def method(self, *args, **kwargs):
        return _call(getattr(self._host, name), *args, **kwargs)

    return method


def _function(name):
    def function(*args, **kwargs):
        return _call(getattr(np, name), *args, **kwargs)

    function.__name__ = name
    return function


def asarray(array, dtype=None):
    """Host arrays are copied; ours stay what they are."""
    if isinstance(array, ndarray):
        return array if dtype is None else array.astype(dtype, copy=False)
    return ndarray(np.array(array, dtype))


def array(sequence, dtype=None):
    """Of numbers, of our arrays, or of a NumPy array; always new memory."""
    host = sequence if isinstance(sequence, np.ndarray) else _unwrap(sequence)
    return ndarray(np.array(host, dtype))


def packbits(bits):
    return _wrap(np.packbits(_unwrap(bits)))


def unpackbits(packed):
    return _wrap(np.unpackbits(_unwrap(packed)))


def _cholesky(matrices):
    host = _unwrap(matrices)
    lower = np.full_like(host, np.nan)
    for index in np.ndindex(host.shape[:-2]):
        try:
            lower[index] = np.linalg.cholesky(host[index])
        except np.linalg.LinAlgError:
            continue
    return ndarray(lower)


def _as_strided(first, shape, strides):
    return _wrap(np.lib.stride_tricks.as_strided(_unwrap(first), shape, strides))


for _name in _METHODS:
    setattr(ndarray, _name, _method(_name))
globals().update({name: _function(name) for name in _FUNCTIONS})
linalg = SimpleNamespace(
    cholesky=_cholesky, inv=lambda matrices: _call(np.linalg.inv, matrices)
)
lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided))
sys.modules["cupy_like"] = sys.modules[__name__]


class Elsewhere:
    """A compressor whose gradients, messages and replies are copied to our arrays.

    To whoever calls it, it is the compressor itself, on NumPy arrays. In even steps a
    bucket's gradients lie one behind the other, in odd ones apart.
    """

    def __init__(self, compressor):
        self._compressor, self.name = compressor, compressor.name

    def start(self, specs, place):
        return _Reduction(self._compressor.start(specs, place))


class _Reduction:
    def __init__(self, reduction):
        self._reduction = reduction

    def __getattr__(self, name):
        return getattr(self._reduction, name)

    def reduce(self, indices, gradients, step):
        mine = [asarray(gradient) for gradient in gradients]
        if step % 2 == 0:
            flat = asarray(np.concatenate(gradients))
            ends = np.cumsum([gradient.size for gradient in gradients])
            mine = [
                flat[int(end) - gradient.size : int(end)]
                for end, gradient in zip(ends, gradients, strict=True)
            ]
        work = self._reduction.reduce(indices, mine, step)
        reply = None
        while (message := _next(work, reply)) is not None:
            assert type(message.array) is ndarray
            answer = yield message._replace(array=message.array.get())
            reply = asarray(answer)
            if type(message).__name__ in ("Sum", "Mean"):
                message.array[:] = reply
                reply = message.array
        for gradient, result in zip(gradients, mine, strict=True):
            gradient[:] = result.get()


def _next(work, reply):
    try:
        return work.send(reply)
    except StopIteration:
        return None
