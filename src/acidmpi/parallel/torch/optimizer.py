"""Any torch optimizer, stepping with the mean of all ranks' gradients."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from numbers import Real
from typing import Any, NoReturn, Self, SupportsIndex, cast

from torch import Tensor
from torch.optim import Optimizer

from acidmpi.compression.dense import NoCompression
from acidmpi.compression.protocol import Compressor
from acidmpi.errors import ConfigError
from acidmpi.mpi.communicators import told_to_all
from acidmpi.mpi.reductions import Comm
from acidmpi.mpi.threads import ProgressMode
from acidmpi.parallel.averager import Averager
from acidmpi.parallel.statistics import ParallelStatistics
from acidmpi.parallel.torch import checkpoints
from acidmpi.parallel.torch.closures import Evaluation
from acidmpi.parallel.torch.conventions import found_infinity, scheduled
from acidmpi.parallel.torch.names import Names
from acidmpi.parallel.torch.synchroniser import NonFinite, Synchroniser
from acidmpi.progress.closing import Closing

FORGETFUL = ("none", "fp16", "bf16")
"""Compressors whose step leaves nothing behind that a skipped one would have to undo."""

_PLAIN = NoCompression()


class DistributedOptimizer(Closing, Optimizer):
    """Makes an optimizer average gradients over ranks before it uses them.

    Every rank of `comm` wraps an optimizer of the same parameters, and trains as usual:

        opt = acidmpi.DistributedOptimizer(opt, model.named_parameters(), comm=comm)
        with opt:
            for inputs, targets in batches:
                opt.zero_grad()
                loss(model(inputs), targets).backward()
                opt.step()

    The object is of a class derived from the wrapped optimizer's, and shares its
    attributes: state, defaults and parameter groups are the same objects, and `step` of
    either averages, so schedulers may be made of either, before or after. Parameters are
    not made equal here: see `functions.broadcast_parameters`.

    Messages travel while the backward pass goes on. Between a `backward()` and the end
    of `step()` or `synchronize()` gradients must neither be read nor changed.

    Owner: the thread that trains. Construction, `step`, `synchronize`,
    `gather_state_dict`, `load_state_dict` and `close` are collective.

    Args:
        optimizer: any torch optimizer of dense parameters, all on the CPU or all on one
            CUDA device (messages then go by way of host memory).
        named_parameters: as from the model; their order is taken for the reverse of that
            of backward passes. Without it: names and order of the optimizer's groups.
        comm: an mpi4py intracommunicator; duplicated.
        compression: how gradients become messages.
        bucket_bytes: size of messages before compression; 0: one for each parameter.
        seed: of what compressors draw; the same on all ranks.
        nonfinite: what all ranks do when a gradient is NaN or infinite on one of them:
            `raise` `NonFiniteError`, or `skip` the step. With `skip` and a compressor
            that remembers something, nothing is sent before the backward pass is over.
        progress: `thread`, or `inline` for an MPI below MPI_THREAD_MULTIPLE.
        deadline_seconds: how long other ranks may keep this one waiting.

    Raises:
        ConfigError: an option, the optimizer or a name is not acceptable.
        DisagreementError: ranks differ in parameters or options.
        ThreadLevelError: MPI does not allow `progress="thread"`.
    """

    def __new__(cls, optimizer: Optimizer, *_: Any, **__: Any) -> Self:
        """Make an object of a class that derives from the optimizer's, too."""
        kind = type(optimizer)
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"the optimizer must be a torch.optim.Optimizer, got {kind.__name__}"
            )
        if "_acidmpi" in vars(optimizer):
            raise ConfigError(
                "an optimizer can be wrapped once, but this one averages gradients "
                "already; use the object that you have, or close() it first"
            )
        derived = type(f"Distributed{kind.__name__}", (cls, kind), {})
        return cast(Self, object.__new__(derived))

    def __init__(
        self,
        optimizer: Optimizer,
        named_parameters: Iterable[tuple[str, Tensor]] | None = None,
        *,
        comm: Comm,
        compression: Compressor = _PLAIN,
        bucket_bytes: int = 25 << 20,
        seed: int = 0,
        nonfinite: NonFinite = "raise",
        progress: ProgressMode = "thread",
        deadline_seconds: float = 300.0,
    ) -> None:
        telling = partial(told_to_all, comm)
        with telling():
            _check_options(compression, nonfinite)
            _check_limits(bucket_bytes, deadline_seconds)
            names = Names(optimizer, named_parameters)
            rank, size = comm.rank, comm.size
        forgetful = compression.name in FORGETFUL
        synchroniser = Synchroniser(
            names,
            partial(
                Averager,
                compressor=compression,
                comm=comm,
                bucket_bytes=int(bucket_bytes),
                seed=seed,
                progress=progress,
                deadline_seconds=deadline_seconds,
            ),
            telling,
            rank,
            size,
            nonfinite,
            nonfinite == "raise" or forgetful,
        )
        # One dictionary for both: load_state_dict replaces state and groups, and whoever
        # holds the plain optimizer, as an older scheduler does, must see the new ones.
        self.__dict__ = vars(optimizer)
        self._acidmpi = synchroniser
        self._nonfinite = nonfinite
        self._forgetful = forgetful
        self._may_synchronise = True
        # Asks a GradScaler to call step() even if it has found an infinity.
        self._step_supports_amp_scaling = True
        # Also of the plain optimizer: a scheduler of either may put its own there.
        vars(self)["step"] = scheduled(self, type(self).step)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be pickled or copied: averagers belong to this process."""
        raise ConfigError(
            "an optimizer that averages over ranks cannot be pickled or copied; use its "
            "state_dict() or gather_state_dict()"
        )

    @property
    def skipped(self) -> int:
        """Steps that were left out because of a gradient that was not finite."""
        return self.synchroniser.skipped

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Average the gradients unless that was done, then take the optimizer's step.

        A closure is evaluated as often as the optimizer asks; each time its gradients,
        and the loss that it returns, are averaged over ranks.

        Raises:
            NonFiniteError: a gradient of some rank is not finite; all ranks raise it.
            RemoteError: another rank failed.
            DeadlineExceeded: another rank did not take part in time.
            ConfigError: closed, or a GradScaler was not handed to `synchronize`.
        """
        synchroniser = self.synchroniser
        try:
            if closure is not None:
                evaluate = Evaluation(closure, synchroniser, self.synchronise_for_step)
                return evaluate.step(super().step)
            overflow = found_infinity(vars(self), synchroniser.done)
            self.synchronise_for_step()
            return None if overflow or synchroniser.skipping else super().step()
        finally:
            synchroniser.renew()

    # Tells torch that the wrapped step() calls the hooks of users and profilers.
    step.hooked = True  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients; to None unless told otherwise, as in torch.

        Raises:
            ConfigError: gradients of a backward pass are still to be averaged.
        """
        if self.synchroniser.under_way:
            raise ConfigError(
                "gradients of a backward pass must be averaged before zero_grad(); call "
                "step() or synchronize() first, or wrap a pass whose gradients are not "
                "wanted in no_sync()"
            )
        self.synchroniser.begin()
        super().zero_grad(set_to_none)

    def synchronize(self, scaler: Any = None) -> None:
        """Average the gradients now, so that they can be clipped or read before `step`.

        Args:
            scaler: a `torch.amp.GradScaler` that has scaled the loss: gradients are
                unscaled by it here, and it learns of an overflow on any rank. Needs
                `nonfinite="skip"`. Its `unscale_` must not be called besides.

        Raises:
            NonFiniteError, RemoteError, DeadlineExceeded: as `step` does.
            ConfigError: a scaler with `nonfinite="raise"`.
        """
        synchroniser = self.synchroniser
        if scaler is None or not scaler.is_enabled():
            synchroniser.synchronise()
        elif self._nonfinite == "raise":
            raise ConfigError(
                "a GradScaler provokes gradients that are not finite and skips their "
                "steps, got nonfinite='raise'; use nonfinite='skip'"
            )
        else:
            synchroniser.synchronise(partial(scaler.unscale_, self))

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Accumulate: backward passes in this block are averaged with the next one."""
        with self.synchroniser.paused():
            yield

    @contextmanager
    def skip_synchronize(self) -> Iterator[None]:
        """In this block `step` takes the gradients as they are."""
        before, self._may_synchronise = self._may_synchronise, False
        try:
            yield
        finally:
            self._may_synchronise = before

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's, and what this rank's compressor remembers as `acidmpi`.

        With a compressor that keeps residuals every rank has to save its own, or rank 0
        that of `gather_state_dict`.
        """
        mine = checkpoints.entry(self.synchroniser.sections, lambda a: [a.state_dict()])
        return super().state_dict() | {checkpoints.KEY: mine}

    def gather_state_dict(self) -> dict[str, Any]:
        """As `state_dict`, with what the compressors of all ranks remember; collective."""
        every = checkpoints.entry(self.synchroniser.sections, Averager.gather_state)
        return super().state_dict() | {checkpoints.KEY: every}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`: this rank's own, or one with all ranks'; collective.

        One of the plain optimizer will do, too: compressors then begin anew. So many
        ranks as were saved go on bit for bit; another number shares residuals out.

        Raises:
            ConfigError: it is of other parameters, another compressor, or of one rank
                where all are needed.
        """
        synchroniser = self.synchroniser
        super().load_state_dict(state_dict)
        if checkpoints.KEY in state_dict:
            saved = state_dict[checkpoints.KEY]
            checkpoints.restore(synchroniser, saved, self._forgetful)
        synchroniser.begin()

    def statistics(self) -> ParallelStatistics:
        """What has happened so far, of all averagers together."""
        return together(s.averager.statistics() for s in self.synchroniser.sections)

    def close(self, error: BaseException | None = None) -> None:
        """Stop averaging and give the wrapped optimizer back as it was; collective.

        A second call does nothing.

        Args:
            error: what ends this rank's work, if something does: other ranks get a
                `RemoteError` from what they wait in.
        """
        synchroniser = vars(self).pop("_acidmpi", None)
        if synchroniser is not None:
            vars(self).pop("step", None)
            vars(self).pop("_step_supports_amp_scaling", None)
            synchroniser.close(error)

    @property
    def synchroniser(self) -> Synchroniser:
        """What averages; for classes that derive from this one.

        Raises:
            ConfigError: the optimizer is closed.
        """
        synchroniser: Synchroniser | None = vars(self).get("_acidmpi")
        if synchroniser is None:
            raise ConfigError(
                "a closed optimizer averages nothing; go on with the one that was "
                "wrapped, or wrap it again"
            )
        return synchroniser

    @property
    def may_synchronise(self) -> bool:
        """Whether `step` averages: not in a `skip_synchronize` block."""
        return self._may_synchronise

    def synchronise_for_step(self) -> None:
        """What `step` does first; classes that derive from this one may replace it."""
        if self._may_synchronise:
            self.synchroniser.synchronise()
        elif self.synchroniser.under_way:
            raise ConfigError(
                "gradients of a backward pass must be averaged before a step in "
                "skip_synchronize(); call synchronize() first, or use no_sync()"
            )


def _check_options(compression: Compressor, nonfinite: str) -> None:
    if nonfinite not in ("raise", "skip"):
        raise ConfigError(f"nonfinite must be 'raise' or 'skip', got {nonfinite!r}")
    made = not isinstance(compression, type)
    if not (made and callable(getattr(compression, "start", None))):
        raise ConfigError(
            "compression must be an object like acidmpi.PowerSGD(matrix_rank=4), got "
            f"{compression!r}; acidmpi.compression.registry.make() finds one by name"
        )


def _check_limits(bucket_bytes: Any, deadline_seconds: Any) -> None:
    whole = isinstance(bucket_bytes, Real) and float(bucket_bytes).is_integer()
    if not whole or bucket_bytes < 0:
        raise ConfigError(
            "bucket_bytes must be a whole number ≥ 0 (0: one bucket per parameter), got "
            f"{bucket_bytes!r}"
        )
    if not isinstance(deadline_seconds, Real) or not float(deadline_seconds) > 0:
        raise ConfigError(
            f"deadline_seconds must be a positive number, got {deadline_seconds!r}"
        )


def together(parts: Iterable[ParallelStatistics]) -> ParallelStatistics:
    """Add up what several averagers did for one optimizer; steps are the longest's."""
    rows = list(map(asdict, parts))
    sums = {key: sum(row[key] for row in rows) for key in rows[0]}
    return ParallelStatistics(**sums | {"steps": max(row["steps"] for row in rows)})
