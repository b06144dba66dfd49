"""Trainers of a torch model whose ranks step together."""

import math
from collections.abc import Sequence
from typing import Any, final

from numpy.typing import NDArray

from acidmpi.arrays.accelerator import Buffers, store
from acidmpi.arrays.torch import FlatModel
from acidmpi.config.train import TrainConfig
from acidmpi.parallel.torch.functions import broadcast_parameters
from acidmpi.parallel.torch.optimizer import DistributedOptimizer
from acidmpi.train.averagers import open_dense_averager
from acidmpi.train.bases import NetworkBase, Setting
from acidmpi.train.compressors import make_compressor
from acidmpi.train.course import Average, Scores
from acidmpi.train.gradients import Network, float_buffers, told
from acidmpi.train.keeping import network_state
from acidmpi.train.meetings import open_meetings
from acidmpi.train.synchronous import SynchronousCourse

Array = NDArray[Any]


@final
class AllReduce(NetworkBase):
    """Averages the gradients of all ranks in each step.

    Parameters stay the same on all ranks, to the last bit. Floating-point buffers (the
    statistics of batch normalisation) are each rank's own until they are averaged for an
    evaluation and at the end.

    Args:
        given: its task is a `TorchTask`.
    """

    def __init__(self, given: Setting) -> None:
        comm, config = given.comm, given.config
        compressor = make_compressor(config)
        super().__init__(given)
        network = self._network
        _hand_out(network, comm, config)
        self._optimizer = DistributedOptimizer(
            network.optimizer,
            network.model.named_parameters(),
            comm=comm,
            compression=compressor,
            bucket_bytes=config.bucket_bytes,
            seed=config.seed,
            nonfinite=config.nonfinite,
            progress=config.progress,
            deadline_seconds=config.deadline_seconds,
        )
        accelerator = self._optimizer.synchroniser.accelerator
        self.course = SynchronousCourse(
            open_dense_averager(comm, config, accelerator),
            given.plan,
            comm.rank,
            comm.size,
            given.metrics,
            buffers=network.float_buffers(),
            accelerator=accelerator,
        )
        self.course.hold(self._optimizer)
        self.course.keep(given.kept, lambda: network.state(self._optimizer))
        if given.kept and given.kept.restart:
            network.restore(network_state(given.kept.restart), self._optimizer)

    def step(self, rate: float) -> float:
        """One batch: loss, gradient, its mean over ranks, update."""
        self._optimizer.zero_grad()
        loss = self.course.complaints.attempt(
            lambda: self._network.backward(rate), math.nan
        )
        self._update()
        self.course.count(told(loss), rate)
        self.course.keep_if_due()
        return loss

    def _update(self) -> None:
        if self._config.clip is None:
            self._optimizer.step()
            return
        self._optimizer.synchronize()
        self._clip()
        with self._optimizer.skip_synchronize():
            self._optimizer.step()

    def scores_of(self, average: Average) -> Scores:
        """On the test set, with the ranks' average of buffers in a second model."""
        spare = self._network.spare()
        _fill(float_buffers(spare), average[1])
        return self._network.scores_with(spare)


@final
class OwnSteps(NetworkBase):
    """Lets ranks step alone, and averages parameters with others: local SGD, gossip.

    The momentum stays each rank's own. Gradients that are not finite are left out on their
    rank only.

    Args:
        given: its task is a `TorchTask`.
    """

    def __init__(self, given: Setting) -> None:
        super().__init__(given)
        network = self._network
        _hand_out(network, given.comm, given.config)
        self._flat = FlatModel(
            network.model.named_parameters(remove_duplicate=False),
            [group["params"] for group in network.optimizer.param_groups],
        )
        values = Buffers(
            [buffer.values for buffer in self._flat.buffers], self._flat.accelerator
        )
        self._meetings = open_meetings(given, values, network.float_buffers())
        self.course = self._meetings.course
        self.course.keep(given.kept, lambda: network.state(network.optimizer))
        if given.kept and given.kept.restart:
            network.restore(network_state(given.kept.restart), network.optimizer)
            self._meetings.go_on()

    def step(self, rate: float) -> float:
        """One batch: loss, gradient, update, and what the method averages."""
        self._meetings.begin()
        self._flat.zero_gradients()
        loss = self.course.complaints.attempt(
            lambda: self._network.backward(rate), math.nan
        )
        self._flat.collect_gradients()
        self._meetings.finish()
        if not self.course.complaints.any and self._flat.gradients_finite():
            self._clip()
            self._network.optimizer.step()
        elif self._config.nonfinite == "raise":
            self.course.complaints.add()
        self.course.count(told(loss), rate)
        self._meetings.after()
        self.course.keep_if_due()
        return loss

    def scores_of(self, average: Average) -> Scores:
        """On the test set, with a second model that holds the average."""
        spare, flat = self._network.spare(), len(self._flat.buffers)
        arrays = average[1]
        self._flat.write_to(arrays[:flat], spare.named_parameters())
        _fill(float_buffers(spare), arrays[flat:])
        return self._network.scores_with(spare)


def _hand_out(network: Network, comm: Any, config: TrainConfig) -> None:
    """Begin with rank 0's parameters and buffers everywhere."""
    state = network.model.state_dict()
    broadcast_parameters(state, comm, deadline_seconds=config.deadline_seconds)


def _fill(targets: Sequence[Array], values: Sequence[Array]) -> None:
    for target, value in zip(targets, values, strict=True):
        store(target, value)
