"""Which GPU is current in which thread, with a stand-in for what CuPy says to CUDA."""

import importlib
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from acidmpi.arrays.cuda import names


class Cuda(threading.local):
    """CUDA 12 and later: to make a GPU current is to have a context there."""

    current, bound = 0, False

    def __init__(self, contexts):
        self.contexts = contexts

    def use(self, index):
        self.contexts.add(index)
        self.current, self.bound = index, True


class Stream:
    def __init__(self, **_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture(name="cuda")
def stand_in(monkeypatch):
    cuda = Cuda(set())

    class Device:
        def __init__(self, index):
            self._index = index

        def use(self):
            cuda.use(self._index)

        def __enter__(self):
            self._before = cuda.current
            self.use()

        def __exit__(self, *_):
            cuda.use(self._before)

    runtime = SimpleNamespace(getDeviceProperties=lambda index: {"name": b"fake"})
    driver = SimpleNamespace(
        ctxGetCurrent=lambda: cuda.current + 1 if cuda.bound else 0
    )
    made = SimpleNamespace(runtime=runtime, driver=driver, Device=Device, Stream=Stream)
    module = SimpleNamespace(cuda=made, empty=np.empty)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.delitem(sys.modules, "acidmpi.arrays.cuda.gpu", raising=False)
    monkeypatch.setattr(names, "uuid_of", lambda index: None)
    yield cuda
    sys.modules.pop("acidmpi.arrays.cuda.gpu", None)


@contextmanager
def another_thread():
    """A list of functions, called there."""
    calls = []
    yield calls
    thread = threading.Thread(target=lambda: [call() for call in calls])
    thread.start()
    thread.join()


def use(gpu, stream):
    with gpu.on(stream):
        pass
    gpu.done(SimpleNamespace(done=True))


def test_a_loop_beside_has_a_context_on_its_own_gpu_alone(cuda):
    cuda.use(1)
    gpu = importlib.import_module("acidmpi.arrays.cuda.gpu").Gpu(1)
    stream = gpu.stream()
    with another_thread() as calls:
        calls += [lambda: use(gpu, stream)] * 2
    assert cuda.contexts == {1}


def test_a_thread_that_has_chosen_a_gpu_keeps_it(cuda):
    cuda.use(0)
    gpu = importlib.import_module("acidmpi.arrays.cuda.gpu").Gpu(1)
    use(gpu, gpu.stream())
    assert cuda.current == 0
