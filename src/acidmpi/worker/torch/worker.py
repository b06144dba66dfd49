"""Asynchronous decentralised training of a torch model."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from acidmpi.arrays.accelerator import Buffers, here, store
from acidmpi.arrays.torch import FlatModel
from acidmpi.arrays.torch.views import as_array, describe
from acidmpi.errors import ConfigError
from acidmpi.mpi.communicators import told_to_all
from acidmpi.mpi.reductions import Comm
from acidmpi.worker.averaging import Average
from acidmpi.worker.engine import Engine
from acidmpi.worker.keeping import Keeping
from acidmpi.worker.options import WorkerOptions
from acidmpi.worker.participant import Participant, make_options
from acidmpi.worker.torch.finiteness import make_finiteness
from acidmpi.worker.torch.optimizers import GenericOptimizer, fuse

Array = NDArray[Any]
NonFinite = Literal["raise", "skip"]

_TRAINED: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Parameters that a worker trains, and that worker as long as somebody has it: two would
take them out of one another's buffers."""


class Worker(Participant):
    """Trains a model on many ranks that never wait for one another.

    Every rank of `comm` makes one with the same model and optimizer, runs its own
    training loop, and calls `step()` where the optimizer's `step()` would stand:

        worker = acidmpi.Worker(model, optimizer, comm=comm, topology="ring")
        with worker:
            for inputs, targets in batches:
                worker.zero_grad()
                loss(model(inputs), targets).backward()
                worker.step()

    Parameters of rank 0, frozen ones and buffers included, are handed to all at the
    start; when all have left the block, every rank holds the average of the parameters
    and of the floating-point buffers.

    A model on a CUDA GPU stays there: its parameters move into buffers of that device, and
    `step()` works in torch's current stream (docs/gpu.md).

    The parameters are live: an exchange may change them between a forward and a backward
    pass, as the theory has it.

    Args:
        model: its parameters move into flat buffers; the `Parameter` objects stay.
        optimizer: SGD, Adam and AdamW are fused with the mixing; any other works through
            its own `step()`.
        comm: an mpi4py intracommunicator; duplicated.
        nonfinite: what to do with a NaN or an infinity in a gradient: `raise`
            `NonFiniteError`, or `skip` the update (the gradient still counts). On a
            GPU it is known later, see `step`.
        metrics: a `telemetry.metrics.Metrics`, or None.
        keeping: checkpoints, or None for none.
        options: fields of `WorkerOptions`.

    Raises:
        ConfigError: an option, the model or the optimizer is not acceptable.
        DisagreementError: ranks differ in model or options.
        ThreadLevelError: MPI does not allow `progress="thread"`.
        TopologyError: the graph does not fit the number of ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        comm: Comm,
        nonfinite: NonFinite = "raise",
        metrics: Any = None,
        keeping: Keeping | None = None,
        **options: Any,
    ) -> None:
        self._module = model
        self._optimizer = optimizer
        self._nonfinite = nonfinite
        self._released = False
        with told_to_all(comm):
            chosen = make_options(options)
            _check_nonfinite(nonfinite)
            _check_kinds(model, optimizer)
            _check_plain(optimizer)
            _check_untrained(model)
            self._held = _trained(optimizer)
            _check_free(model, self._held)
            self._flat = FlatModel(
                model.named_parameters(remove_duplicate=False),
                [group["params"] for group in optimizer.param_groups],
            )
            self._fused = fuse(optimizer, self._flat)
            self._generic = (
                None if self._fused else GenericOptimizer(optimizer, self._flat)
            )
        _TRAINED.update(dict.fromkeys(self._held, ref(self)))
        try:
            with here(self._flat.accelerator):
                self._prepare(keeping)
                self._engine = self._start(comm, chosen, metrics, keeping)
                self._restore_buffers(keeping)
                self._finiteness = make_finiteness(
                    self._flat, self._fused, self._engine, nonfinite, self._event
                )
        except BaseException as error:
            self._abandon(error)
            raise
        self._engine.drill.spoil_before(
            self._finiteness,
            "look",
            lambda: self._flat.gradients[0],
            self._engine.next_gradient,
        )

    def _start(
        self,
        comm: Comm,
        options: WorkerOptions,
        metrics: Any,
        keeping: Keeping | None,
    ) -> Engine:
        return Engine(
            Buffers(
                [buffer.values for buffer in self._flat.buffers],
                self._flat.accelerator,
            ),
            comm,
            options,
            signature=self._signature(),
            rules=self._fused.rules() if self._fused else (),
            common=self._common(),
            metrics=metrics,
            keeping=keeping,
        )

    @property
    def skipped(self) -> int:
        """Gradients of this rank that were not finite and therefore not applied.

        On a GPU those that are known of: all after `close()`.
        """
        return self._finiteness.skipped

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place."""
        self._engine.check_open()
        self._flat.zero_gradients()

    def clip_grad_norm_(self, max_norm: float) -> float:
        """Scale all gradients so that their common Euclidean norm is at most `max_norm`.

        Returns:
            The norm before.
        """
        self._engine.check_open()
        self._flat.collect_gradients()
        norm = self._flat.gradient_norm()
        if np.isfinite(norm) and norm > max_norm:
            self._flat.scale_gradients(max_norm / (norm + 1e-6))
        return norm

    def step(
        self, loss: float | None = None, samples: int = 0, *, zero_grad: bool = False
    ) -> None:
        """Apply the gradients: one gradient event on x and x̃.

        Args:
            loss: for telemetry, or None.
            samples: how many went into the gradient, for telemetry.
            zero_grad: clear the gradients in the same pass over memory, which is cheaper
                than `zero_grad()`.

        Raises:
            NonFiniteError: a gradient is not finite and `nonfinite="raise"`. With a
                fused optimizer on a GPU the device leaves such a gradient out, and the
                error comes up to 8 steps later, or from `close()`.
            AcidError: communication failed here or on another rank.
        """
        self._engine.check_open()
        self._flat.collect_gradients()
        event = self._finiteness.event(zero_grad)
        self._engine.gradient(event or _nothing, loss, samples, self._rate())
        if zero_grad and (self._generic or event is None):
            self._flat.zero_gradients()

    def _learned(self) -> dict[str, Any]:
        """What a checkpoint keeps of the optimizer and of the model's buffers.

        The optimizer's arrays change with `step` only; buffers are copied.
        """
        optimizer = self._fused or self._generic
        assert optimizer is not None
        buffers = [as_array(b.detach().clone()) for b in self._module.buffers()]
        return {"optimizer": optimizer.state(), "buffers": buffers}

    def _prepare(self, keeping: Keeping | None) -> None:
        """Before communication begins: the optimizer goes on from a checkpoint."""
        if keeping is None:
            return
        keeping.learned = self._learned
        if keeping.saved is not None:
            optimizer = self._fused or self._generic
            assert optimizer is not None
            optimizer.restore(keeping.saved.part["caller"]["learned"]["optimizer"])

    def _restore_buffers(self, keeping: Keeping | None) -> None:
        """After rank 0's were handed to all: each rank has its own statistics."""
        if keeping is not None and keeping.saved is not None:
            saved = keeping.saved.part["caller"]["learned"]["buffers"]
            for buffer, array in zip(self._module.buffers(), saved, strict=True):
                store(as_array(buffer.detach()), array)

    def load_average(self, average: Average, other: nn.Module) -> None:
        """Write an average into `other`, a model of the same architecture."""
        self._flat.write_to(average.arrays, other.named_parameters())

    def close(self, error: BaseException | None = None) -> None:
        """Answer until all ranks have closed; then the model holds the average.

        From there on it is a plain model, whose parameters have memory of their own, and
        the optimizer's `step()` goes on with the state it has, of 16-bit parameters
        rounded to their type. A second call does nothing.

        Args:
            error: what ends this rank's computation, if something does: the others end
                with `RemoteError`. A `KeyboardInterrupt` ends all of them in order.

        Raises:
            AcidError: the first failure of any rank, unless `error` is given.
            NonFiniteError: on a GPU, as in `step`: one of the last gradients.
            ConfigError: the model has left the buffers meanwhile, as `model.to()` does.
        """
        late = self._finiteness.settle() if error is None else None
        try:
            with here(self._flat.accelerator):
                self._engine.close(error or late, self._float_buffers())
            self._engine.parts.state.site.settle()
            if late is not None:
                raise late
            if error is None and not self._released:
                self._flat.check_views(self._module.named_parameters())
        finally:
            self._release()

    def _abandon(self, error: BaseException) -> None:
        """It could not be made: a loop that runs already tells the others and ends."""
        if hasattr(self, "_engine"):
            self._engine.close(error)
        self._release()

    def _release(self) -> None:
        """Let the model and the optimizer go."""
        if not self._released:
            self._released = True
            for parameter in self._held:
                if parameter in _TRAINED:
                    del _TRAINED[parameter]
            if self._fused is not None:
                self._fused.close()
            self._flat.release()

    def _event(self, zero_grad: bool) -> Callable[[], None]:
        state = self._engine.parts.state
        if self._fused is not None:
            updates = self._fused.updates(zero_grad)
            return lambda: state.apply_gradient(updates)
        generic = self._generic
        assert generic is not None
        return lambda: state.apply_foreign(lambda: generic.step(state.x_tilde))

    def _rate(self) -> float:
        """For telemetry; NaN where the optimizer has none, or finds its own."""
        rate = self._optimizer.param_groups[0].get("lr")
        return math.nan if rate is None else float(rate)

    def _signature(self) -> dict[str, str]:
        """What ranks must agree on beside the options."""
        buffers = {
            f"buffer {name}": describe(tensor)
            for name, tensor in self._module.named_buffers()
        }
        kind = type(self._optimizer).__name__
        memory = "host" if self._flat.accelerator is None else "cuda"
        choices = {"optimizer": kind, "nonfinite": self._nonfinite, "memory": memory}
        return {**self._flat.signature(), **buffers, **choices}

    def _common(self) -> list[Array]:
        """What rank 0 hands to all, apart from nothing: the whole model."""
        left: Sequence[torch.Tensor] = [
            *self._flat.frozen.values(),
            *self._flat.untrained.values(),
            *self._module.buffers(),
        ]
        flat = [buffer.values for buffer in self._flat.buffers]
        return flat + [as_array(tensor.detach()) for tensor in left]

    def _float_buffers(self) -> list[Array]:
        return [
            as_array(b.detach())
            for b in self._module.buffers()
            if b.is_floating_point()
        ]


def _nothing() -> None:
    """The event of a gradient that is not applied."""


def _check_nonfinite(choice: str) -> None:
    if choice not in ("raise", "skip"):
        raise ConfigError(f"nonfinite must be 'raise' or 'skip', got {choice!r}")


def _check_kinds(model: Any, optimizer: Any) -> None:
    for name, value, kind in (
        ("model", model, nn.Module),
        ("optimizer", optimizer, Optimizer),
    ):
        if not isinstance(value, kind):
            raise ConfigError(
                f"the {name} must be a torch.{kind.__module__.split('.')[1]}."
                f"{kind.__name__}, got {type(value).__name__}; the model comes first"
            )


def _check_plain(optimizer: Optimizer) -> None:
    if "_acidmpi" in vars(optimizer):
        raise ConfigError(
            "a worker needs a plain optimizer, got one that averages gradients over "
            "ranks; close() it first, or train without the worker"
        )


def _trained(optimizer: Optimizer) -> list[torch.Tensor]:
    """What moves into buffers; other parameters, of the same model too, are let be."""
    groups = optimizer.param_groups
    return [p for group in groups for p in group["params"] if p.requires_grad]


def _check_free(model: nn.Module, trained: Sequence[torch.Tensor]) -> None:
    taken = {id(p) for p in trained if p in _TRAINED and _TRAINED[p]() is not None}
    for name, parameter in model.named_parameters():
        if id(parameter) in taken:
            raise ConfigError(
                "a model is trained by one worker at a time, but another one has "
                f"{name!r}; close() that one first"
            )


def _check_untrained(model: nn.Module) -> None:
    """Raise where rank 0 could not hand out a buffer or a frozen parameter."""
    frozen = [(n, p) for n, p in model.named_parameters() if not p.requires_grad]
    for name, buffer in model.named_buffers():
        if is_lazy(buffer):
            raise ConfigError(
                f"every buffer needs a shape, got the lazy {name!r}; run the model on "
                "one example first"
            )
    for name, tensor in [*frozen, *model.named_buffers()]:
        try:
            if not is_lazy(tensor):
                as_array(tensor.detach())
        except (TypeError, RuntimeError) as error:
            raise ConfigError(
                "buffers and frozen parameters must be dense tensors of a type that "
                f"NumPy knows, got {name!r} ({tensor.dtype}, {tensor.layout}); keep it "
                "outside the model while it is trained"
            ) from error
