"""One optimizer's gradients, from backward passes to their means on all ranks.

Gradients are handed to averagers in one of two ways:
- *overlapping*: by hooks, as soon as the backward pass has finished each of them, so that
  messages travel while the pass goes on. One that is not finite is handed over as zeros,
  and all ranks learn of it when the step is complete;
- *late*, where a step may be skipped and the compressor remembers something: all of them
  in `synchronise`, after ranks have agreed that they are finite. A skipped step then
  leaves no trace, at the price of the overlap.

Either way, a step costs one small sum over ranks (`parallel.torch.verdict`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from typing import Literal

import numpy as np
from torch import Tensor

from acidmpi.arrays.accelerator import Accelerator
from acidmpi.errors import ConfigError, NonFiniteError
from acidmpi.parallel.averager import Averager
from acidmpi.parallel.torch.gradients import GradientBuffers
from acidmpi.parallel.torch.names import Named, Names
from acidmpi.parallel.torch.section import Section, check_free
from acidmpi.parallel.torch.verdict import Verdict, judge, statement

NonFinite = Literal["raise", "skip"]
Unscale = Callable[[], None]


class Synchroniser:
    """Averages the gradients of all parameters that are trained.

    Parameters that are new in a step get a section of their own, on all ranks.

    Owner: the thread that trains; hooks run while it waits for its backward pass.

    Args:
        names: the parameters that are trained at a time.
        enlist: makes an averager for parameters of these `Spec`s, with gradients on an
            `accelerator`; collective.
        telling: a block in which a failure on one rank is told to those that enlist.
        rank: of this process.
        size: number of ranks.
        nonfinite: what to do when a gradient is not finite.
        overlap: whether hooks hand over at once.

    Raises:
        ConfigError: nothing is trained.
    """

    def __init__(
        self,
        names: Names,
        enlist: Callable[..., Averager],
        telling: Callable[[], AbstractContextManager[None]],
        rank: int,
        size: int,
        nonfinite: NonFinite,
        overlap: bool,
    ) -> None:
        self._names = names
        self._enlist = enlist
        self._telling = telling
        self._rank = rank
        self._size = size
        self._nonfinite = nonfinite
        self._overlap = overlap
        self._known: set[Tensor] = set()
        self._paused = False
        self._done = False
        self.sections: list[Section] = []
        """In the order in which their parameters came."""
        self.skipping = False
        """Whether the step at hand is to be left out."""
        self.skipped = 0
        """Steps left out so far."""
        self._add(self._newcomers())

    @property
    def accelerator(self) -> Accelerator | None:
        """The device that gradients are on; None is host memory."""
        return self.sections[0].buffers.accelerator

    @property
    def under_way(self) -> bool:
        """Whether a backward pass has left gradients that are to be averaged yet."""
        return not self._done and any(section.seen for section in self.sections)

    @property
    def done(self) -> bool:
        """Whether the gradients are means already."""
        return self._done

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Backward passes in this block only add up, on this rank."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def synchronise(self, unscale: Unscale | None = None) -> None:
        """Replace every gradient by its mean, unless that is done; collective.

        Args:
            unscale: divides gradients by a loss scale, before a compressor that
                remembers sees them; it has to find infinity where the step is skipped.

        Raises:
            NonFiniteError: a gradient is not finite and nothing is to be skipped.
        """
        if not self._done:
            self._collect(self.sections)
            verdict = self._consult()
            if verdict.bad:
                self._refuse(verdict.bad, unscale)
            else:
                self._average(verdict, unscale)
            self._done = True

    def begin(self) -> None:
        """Forget this step: the next gradient begins a new one."""
        self._done = self.skipping = False
        for section in self.sections:
            section.begin()

    def renew(self) -> None:
        """Begin a new step if this one is over."""
        if self._done:
            self.begin()

    def mean(self, value: float) -> float:
        """Mean of a number over ranks; collective."""
        array = np.array([value], np.float64)
        self.sections[0].averager.average([array])
        return float(array[0])

    def divide(self, partition: Sequence[Sequence[str]]) -> None:
        """Make sections of these parameters, by name; collective.

        What compressors remember is lost; no step may be under way.
        """
        named = dict(self._names.trained())
        self.close()
        self._known.clear()
        self.sections.clear()
        for names in partition:
            self._add([(name, named[name]) for name in names])

    def close(self, error: BaseException | None = None) -> None:
        """Take all hooks off and close the averagers; collective.

        Args:
            error: what ends this rank instead; it is told to all.
        """
        if error is not None:
            for section in self.sections:
                section.averager.fail(error)
        with ExitStack() as stack:
            for section in self.sections:
                stack.callback(section.averager.close, error)
                section.release()

    def _touch(self) -> bool:
        """A backward pass has finished a gradient; does it take part in this step?"""
        self.renew()
        return not self._paused

    def _newcomers(self) -> Named:
        return self._names.trained(besides=self._known)

    def _add(self, named: Named) -> None:
        with self._telling():
            if not named:
                raise ConfigError(
                    "the optimizer must hold a parameter that requires a gradient, got "
                    "none; unfreeze one"
                )
            names, parameters = zip(*named, strict=True)
            check_free(names, parameters)
            buffers = GradientBuffers(names, parameters)
        averager = self._enlist(buffers.specs, accelerator=buffers.accelerator)
        self.sections.append(
            Section(names, buffers, averager, self._touch, self._overlap)
        )
        self._known.update(parameters)

    def _collect(self, sections: Sequence[Section]) -> None:
        for section in sections:
            section.collect()
        if self._overlap:
            _exchange(sections)

    def _consult(self) -> Verdict:
        """Hear all ranks; welcome new parameters, then hear them again."""
        while (verdict := self._ask()).newcomers:
            self._add(self._newcomers())
            self._collect(self.sections[-1:])
        return verdict

    def _ask(self) -> Verdict:
        present = [held for section in self.sections for held in section.present]
        vector = statement(
            present, self._first_bad(), len(self._newcomers()), self._rank, self._size
        )
        self.sections[0].averager.average([vector])
        return judge(vector * self._size, self._size)

    def _first_bad(self) -> int | None:
        start = 0
        for section in self.sections:
            bad = section.bad
            if bad is not None:
                return start + bad
            start += len(section.names)
        return None

    def _average(self, verdict: Verdict, unscale: Unscale | None) -> None:
        anyone = iter(verdict.anyone)
        for section in self.sections:
            section.settle(list(islice(anyone, len(section.names))))
        if unscale:
            unscale()
        if not self._overlap:
            _exchange(self.sections)

    def _refuse(self, bad: tuple[int, int], unscale: Unscale | None) -> None:
        rank, index = bad
        if self._nonfinite == "raise":
            step = self.sections[0].averager.step
            self.begin()
            names = [name for section in self.sections for name in section.names]
            raise NonFiniteError(
                f"the gradient of {names[index]!r} on rank {rank} is not finite in step "
                f"{step}; lower the learning rate, clip gradients, or use "
                "nonfinite='skip'"
            )
        self.skipping = True
        self.skipped += 1
        for section in self.sections:
            section.spoil() if unscale else section.drop()
        if unscale:
            unscale()


def _exchange(sections: Sequence[Section]) -> None:
    for section in sections:
        section.hand_over()
    for section in sections:
        section.averager.finish()
