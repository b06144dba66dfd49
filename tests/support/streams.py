"""A stand-in for a GPU's queues: work is done late, in pieces, and in any legal order.

Every array has its real memory and a *twin*. A call changes the twin at once, as if there
were no queues, and puts the same work on a stream for the real memory, cut into parts
that other streams and messages may come between. What events order correctly ends with
real memory equal to its twin; what they do not is torn sooner or later.
"""

import random
import threading
from collections import defaultdict, deque
from contextlib import contextmanager
from functools import partial

import numpy as np

from acidmpi.kernels.protocol import OneByOne
from support import guarded


class DeviceArray:
    """Host memory that presents itself as a device's, and that NumPy cannot touch."""

    __array__ = None
    __array_ufunc__ = None

    def __init__(self, real, twin, device):
        self.real, self.twin, self.device = real, twin, device
        self.dtype, self.size, self.itemsize = real.dtype, real.size, real.itemsize
        self.nbytes, self.shape, self.ndim = real.nbytes, real.shape, real.ndim
        self.flags = real.flags

    @property
    def __cuda_array_interface__(self):
        return self.real.__array_interface__ | {"version": 3}

    def _like(self, real, twin):
        return DeviceArray(real, twin, self.device)

    def __getitem__(self, index):
        return self._like(self.real[index], self.twin[index])

    def view(self, dtype):
        return self._like(self.real.view(dtype), self.twin.view(dtype))

    def reshape(self, *shape):
        return self._like(self.real.reshape(*shape), self.twin.reshape(*shape))

    def get(self):
        """As CuPy: in the order of the current stream, and waited for."""
        self.device.finish()
        return self.real.copy()

    def set(self, values):
        self.device.finish()
        self.real[...] = self.twin[...] = values


class Stream:
    """A queue of generators; each `next` of one is a piece of work."""

    def __init__(self, name, pace):
        self.name, self.pace = name, pace
        self.work = deque()


class Event:
    def __init__(self, name):
        self.name, self.passed = name, False


class World:
    """All queues of all devices, and messages; advances them by chance."""

    def __init__(self, seed=0, eager=False):
        self.chance = random.Random(seed)
        self.eager = eager
        self.lock = threading.RLock()
        """Guards queues that are emptied at once, by whichever thread fills them."""
        self.queues = []

    def queue(self, name):
        made = Stream(name, self.chance.choice([0.02, 0.2, 1.0]))
        self.queues.append(made)
        return made

    def put(self, queue, *pieces):
        """A piece is a function; one that returns False is asked again."""
        with self.lock:
            queue.work.extend(pieces)
            if self.eager:
                self.finish()

    def step(self):
        """One piece of one queue, which is drawn; whether any has work."""
        busy = [q for q in self.queues if q.work]
        if not busy:
            return False
        (queue,) = self.chance.choices(busy, [q.pace for q in busy])
        if queue.work[0]() is not False:
            queue.work.popleft()
        return True

    def churn(self):
        """Whoever calls the device gives its queues some time, or none."""
        if self.eager:
            return
        for _ in range(self.chance.choice([0, 0, 1, 3, 10, 40])):
            if not self.step():
                return

    def finish(self):
        """Do all there is."""
        while any(queue.work for queue in self.queues):
            if not sum(map(self._drain, self.queues)):
                raise AssertionError("queues wait for one another")

    def _drain(self, queue):
        done = 0
        while queue.work and queue.work[0]() is not False:
            queue.work.popleft()
            done += 1
        return done


class CurrentStream:
    """A device that knows in whose stream each thread works, as CuPy does."""

    main = None
    """Where a thread works that has chosen none."""

    def __init__(self):
        super().__init__()
        self.local = threading.local()

    @property
    def current(self):
        """As CuPy's: each thread has its own."""
        return getattr(self.local, "stream", self.main)

    @contextmanager
    def on(self, stream):
        before, self.local.stream = self.current, stream
        try:
            yield
        finally:
            self.local.stream = before


class Gpu(CurrentStream):
    """See `acidmpi.arrays.accelerator.Accelerator`.

    Args:
        world: whose queues these are.
        name: for messages.
    """

    def __init__(self, world, name="device"):
        super().__init__()
        self.world, self.name, self.uuid = world, name, f"GPU-{name}"
        self.made = 0
        self.main = world.queue(f"{name} caller")
        self.left_out = None
        """`(what, where)`: a wait, or a question, that is left out: a planted fault."""
        self.used = set()
        """Waits and questions that there were."""

    def caller(self):
        return self.main

    def stream(self):
        self.made += 1
        names = {1: "communication", 2: "out", 3: "in"}
        return self.world.queue(f"{self.name} {names[self.made]}")

    def record(self, stream):
        event = Event(_word(stream))
        self.world.put(stream, lambda: setattr(event, "passed", True))
        self.world.churn()
        return event

    def wait(self, stream, event):
        if not self._skips(_word(stream), event.name):
            self.world.put(stream, lambda: event.passed)
        self.world.churn()

    def done(self, event):
        self.world.churn()
        return event.passed or self._skips("host", event.name)

    def _skips(self, who, whom):
        self.used.add((who, whom))
        return self.left_out == (who, whom)

    def empty(self, size, dtype):
        return self.array(
            np.full(size * np.dtype(dtype).itemsize, 77, "u1").view(dtype)
        )

    def array(self, values):
        return DeviceArray(values.copy(), values.copy(), self)

    def clear(self, array, stream):
        array.twin[...] = 0
        self._queue(stream, lambda part: array.real[part].fill(0), array.size)

    def copy(self, destination, origin, stream):
        real_to, twin_to = _both(destination)
        real_from, twin_from = _both(origin)
        if twin_to is not None:
            twin_to[...] = real_from if twin_from is None else twin_from

        def move(part):
            real_to[part] = real_from[part]

        self._queue(stream, move, real_to.size)

    def pinned(self, size_bytes):
        return np.full(size_bytes, 99, np.uint8)

    def gather(self, array, where):
        made = self.empty(where.size, array.dtype)
        made.twin[...] = array.twin[where]
        self.world.put(
            self.current, lambda: np.copyto(made.real, array.real[where]) or True
        )
        self.world.churn()
        return made

    def write(self, array, values, stream):
        """What a backward pass does to gradients, for instance."""
        array.twin[...] = values

        def put(part):
            array.real[part] = values[part]

        self._queue(stream, put, array.size)

    def finish(self):
        self.world.finish()

    def _queue(self, stream, work, size):
        for part in _parts(size):
            self.world.put(stream, lambda part=part: work(part))
        self.world.churn()


class QueuedKernels(OneByOne):
    """Kernels whose work is queued on the device's current stream, cut into parts.

    Args:
        kernels: do the arithmetic, on the real memory and on the twins.
        device: whose stream.
    """

    def __init__(self, kernels, device, word=None):
        self._kernels, self._device, self._word = kernels, device, word

    def unless(self, word):
        return QueuedKernels(self._kernels, self._device, word)

    def find_nonfinite(self, gradient, word, start):
        guarded.find_nonfinite(gradient.twin, word.twin, start)
        for part in _parts(gradient.size):
            first = start + part.start

            def look(part=part, first=first):
                guarded.find_nonfinite(gradient.real[part], word.real, first)

            self._device.world.put(self._device.current, look)
        self._device.world.churn()

    def _call(self, name, memory):
        """What does the arithmetic; `memory` is where the word is."""
        if name != "apply_gradient" or self._word is None:
            return getattr(self._kernels, name)
        word = int(memory(self._word)[0])
        return partial(guarded.apply_unless, self._kernels, word)

    def warm(self, dtypes, rules, x_tilde=True):
        self._kernels.warm(dtypes, rules, x_tilde)

    def snapshot(self, x, x_tilde, out, weight):
        self._run("snapshot", (x, x_tilde, out), (), (weight,))

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        self._run("apply_gradient", (x, x_tilde, gradient), state, (weight, hyper))

    def apply_exchange(self, x, x_tilde, sent, received, a, b):
        self._run("apply_exchange", (x, x_tilde, sent, received), (), (a, b))

    def _run(self, name, arrays, state, rest):
        size = arrays[0].size
        extra = (state,) if name == "apply_gradient" else ()

        def twins(array):
            return None if array is None else array.twin

        call = self._call(name, twins)
        call(*map(twins, arrays), *(tuple(map(twins, s)) for s in extra), *rest)

        for part in _parts(size):
            # Read, and only later write, as threads that are under way do.
            read = {}

            def load(part=part, read=read):
                read.update(
                    {id(a): a.real[part].copy() for a in (*arrays, *state) if _is(a)}
                )

            def store(part=part, read=read):
                got = [None if a is None else read[id(a)] for a in arrays]
                held = tuple(tuple(read[id(a)] for a in s) for s in extra)
                call = self._call(name, lambda array: array.real)
                before = {key: value.copy() for key, value in read.items()}
                call(*got, *held, *rest)
                for array in (*arrays, *state):
                    if _is(array) and (
                        before[id(array)].tobytes() != read[id(array)].tobytes()
                    ):
                        array.real[part] = read[id(array)]

            self._device.world.put(self._device.current, load, store)
        self._device.world.churn()


def _is(array):
    return array is not None


def _both(array):
    """Real memory and twin; page-locked memory has none."""
    if isinstance(array, np.ndarray):
        return array, None
    return array.real, array.twin


def _parts(size):
    half = size // 2
    return [
        part for part in (slice(0, half), slice(half, size)) if part.stop > part.start
    ]


def _word(stream):
    return stream.name.rpartition(" ")[2]


class Messages:
    """What MPI does with memory: it reads and writes it at any moment after `post`.

    Args:
        world: gives it time.
    """

    def __init__(self, world):
        self._world = world
        self._posted = defaultdict(deque)
        self._links = {}

    def end(self, rank):
        """A rank's `post`, as a `HostTransport` has it."""
        return _End(self, rank)

    def post(self, rank, peer, send, receive):
        state = {"left": 2}
        self._offer(rank, peer, "sent", np.frombuffer(send, "u1"), state)
        self._offer(peer, rank, "received", np.frombuffer(receive, "u1"), state)
        return _Travelling(self._world, state)

    def _offer(self, source, target, kind, memory, state):
        mine = self._posted[source, target, kind]
        mine.append((memory, state))
        sent = self._posted[source, target, "sent"]
        received = self._posted[source, target, "received"]
        if sent and received:
            self._carry(source, target, sent.popleft(), received.popleft())

    def _carry(self, source, target, sent, received):
        link = self._links.get((source, target))
        if link is None:
            link = self._links[source, target] = self._world.queue(
                f"{source}->{target}"
            )

        def arrived():
            sent[1]["left"] -= 1
            received[1]["left"] -= 1

        pieces = [
            lambda part=part: np.copyto(received[0][part], sent[0][part]) or True
            for part in _parts(sent[0].size)
        ]
        self._world.put(link, *pieces, arrived)


class _End:
    name = "stand-in"

    def __init__(self, messages, rank):
        self._messages, self._rank = messages, rank

    def post(self, peer, send, receive):
        return self._messages.post(self._rank, peer, send, receive)

    def drop(self):
        pass

    def abandon(self):
        pass


class _Travelling:
    def __init__(self, world, state):
        self._world, self._state = world, state

    def test(self):
        self._world.churn()
        return self._state["left"] == 0


class Witness:
    """A transport that knows what each chunk must arrive as, and tells the twins.

    Args:
        transport: under test.
        rank: whose.
        expected: what is on its way, by sender and receiver; shared by all ranks.
    """

    def __init__(self, transport, rank, expected):
        self._transport, self._rank, self._expected = transport, rank, expected
        self.name = transport.name

    def post(self, peer, send, receive):
        self._expected[self._rank, peer].append(send.twin.tobytes())
        pending = self._transport.post(peer, send, receive)
        return _Witnessed(pending, receive, self._expected[peer, self._rank])

    def drop(self):
        self._transport.drop()

    def abandon(self):
        self._transport.abandon()


class _Witnessed:
    def __init__(self, pending, receive, expected):
        self._pending, self._receive, self._expected = pending, receive, expected
        self._done = False

    def test(self):
        if not self._done and self._pending.test():
            self._done = True
            bytes_ = np.frombuffer(self._expected.popleft(), self._receive.dtype)
            self._receive.twin[...] = bytes_
        return self._done
