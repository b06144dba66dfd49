"""Trainers of a torch model whose ranks step together."""

from collections.abc import Sequence
from typing import Any, final

from numpy.typing import NDArray

from acidmpi.arrays.torch import FlatModel
from acidmpi.config.train import TrainConfig
from acidmpi.parallel.torch.functions import broadcast_parameters
from acidmpi.parallel.torch.optimizer import DistributedOptimizer
from acidmpi.tasks.optimizer import clip_gradients
from acidmpi.train.averagers import open_dense_averager
from acidmpi.train.compressors import make_compressor
from acidmpi.train.course import Average, Scores
from acidmpi.train.gradients import Network, float_buffers, told
from acidmpi.train.plan import Plan
from acidmpi.train.synchronous import SynchronousCourse

Array = NDArray[Any]


@final
class AllReduce:
    """Averages the gradients of all ranks in each step; collective over `comm`.

    Parameters stay the same on all ranks, to the last bit. Floating-point buffers (the
    statistics of batch normalisation) are each rank's own until they are averaged for an
    evaluation and at the end.

    Args:
        task: a `TorchTask`.
        comm: the ranks.
        config: resolved options.
        plan: the work.
        metrics: where events are recorded.
    """

    def __init__(
        self, task: Any, comm: Any, config: TrainConfig, plan: Plan, metrics: Any
    ) -> None:
        compressor = make_compressor(config)
        self._clip = config.clip
        self._network = network = Network(task, plan, fused=False)
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
        self.course = SynchronousCourse(
            open_dense_averager(comm, config),
            plan,
            comm.rank,
            comm.size,
            metrics,
            buffers=network.float_buffers(),
        )
        self.course.hold(self._optimizer)

    def step(self, rate: float) -> float:
        """One batch: loss, gradient, its mean over ranks, update."""
        self._optimizer.zero_grad()
        loss = self._network.backward(rate)
        self._update()
        self.course.count(told(loss), rate)
        return loss

    def _update(self) -> None:
        if self._clip is None:
            self._optimizer.step()
            return
        self._optimizer.synchronize()
        clip_gradients(self._network.model, self._clip)
        with self._optimizer.skip_synchronize():
            self._optimizer.step()

    def scores(self) -> Scores:
        """On the test set, with the model as it is."""
        return self._network.scores()

    def scores_of(self, average: Average) -> Scores:
        """On the test set, with the ranks' average of buffers in a second model."""
        spare = self._network.spare()
        _fill(float_buffers(spare), average[1])
        return self._network.scores_with(spare)


@final
class LocalSGD:
    """Lets ranks step alone and averages parameters after every few steps; collective.

    The momentum stays each rank's own. Floating-point buffers are averaged with the
    parameters. Gradients that are not finite are left out on their rank only.

    Args:
        task: a `TorchTask`.
        comm: the ranks.
        config: resolved options.
        plan: the work.
        metrics: where events are recorded.
    """

    def __init__(
        self, task: Any, comm: Any, config: TrainConfig, plan: Plan, metrics: Any
    ) -> None:
        self._config = config
        self._network = network = Network(task, plan, fused=False)
        _hand_out(network, comm, config)
        self._flat = FlatModel(
            network.model.named_parameters(remove_duplicate=False),
            [group["params"] for group in network.optimizer.param_groups],
        )
        self.course = SynchronousCourse(
            open_dense_averager(comm, config),
            plan,
            comm.rank,
            comm.size,
            metrics,
            parameters=[buffer.values for buffer in self._flat.buffers],
            buffers=network.float_buffers(),
        )

    def step(self, rate: float) -> float:
        """One batch: loss, gradient, update; now and then the average."""
        self._flat.zero_gradients()
        loss = self._network.backward(rate)
        self._flat.collect_gradients()
        if self._flat.gradients_finite():
            self._clip()
            self._network.optimizer.step()
        elif self._config.nonfinite == "raise":
            self.course.complain()
        self.course.count(told(loss), rate)
        self.course.average_every(self._config.local_steps)
        return loss

    def _clip(self) -> None:
        if self._config.clip is not None:
            clip_gradients(self._network.model, self._config.clip)

    def scores(self) -> Scores:
        """On the test set, with the parameters as they are."""
        return self._network.scores()

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
        target[...] = value
