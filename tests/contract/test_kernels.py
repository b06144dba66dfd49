"""The kernel contract on every backend, and planted faults that it must find."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from acidmpi.arrays import bfloat16
from acidmpi.kernels.hyper import SGD, Adam
from acidmpi.kernels.reference import ReferenceKernels
from acidmpi.testing import kernels as contract
from acidmpi.testing.kernel_cases import host
from acidmpi.testing.kernels import test_kernels_keep_the_contract  # noqa: F401


class MixesWithTheNewX(ReferenceKernels):
    """x̃ is mixed with the x that has been mixed already."""

    def apply_exchange(self, x, x_tilde, sent, received, a, b):
        if sent is not x:
            return super().apply_exchange(x, x_tilde, sent, received, a, b)
        x -= (a * (sent - received)).astype(x.dtype)
        x_tilde -= b * (sent - received)
        return None


class StepsWithTheNewX(ReferenceKernels):
    """The same mistake in a gradient event."""

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        if x_tilde is not None and weight:
            x += weight * (x_tilde - x)
            x_tilde += weight * (x - x_tilde)
        super().apply_gradient(x, x_tilde, gradient, state, 0.0, hyper)


class SnapshotWritesBack(ReferenceKernels):
    """The mixed x is stored in x as well."""

    def snapshot(self, x, x_tilde, out, weight):
        super().snapshot(x, x_tilde, out, weight)
        x[:] = out


class ForgetsTheCompanion(ReferenceKernels):
    """The update does not reach x̃."""

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        kept = None if x_tilde is None else x_tilde.copy()
        super().apply_gradient(x, x_tilde, gradient, state, weight, hyper)
        if x_tilde is not None:
            x_tilde[:] = kept


class WeighsByItself(ReferenceKernels):
    """Decoupled weight decay shrinks x̃ by x̃ and not by x."""

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        before = None if x_tilde is None else (x.copy(), x_tilde.copy())
        super().apply_gradient(x, x_tilde, gradient, state, weight, hyper)
        if before and isinstance(hyper, Adam) and hyper.decoupled:
            x_tilde += hyper.lr * hyper.weight_decay * (before[0] - before[1])


class MixesByZero(ReferenceKernels):
    """Weight zero is computed with like any other."""

    def snapshot(self, x, x_tilde, out, weight):
        super().snapshot(x, x_tilde, out, weight or 1e-300)

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        weight = weight or 1e-300
        super().apply_gradient(x, x_tilde, gradient, state, weight, hyper)


class UsesItsOwnX(ReferenceKernels):
    """m is taken from x as it is now, not from what was sent."""

    def apply_exchange(self, x, x_tilde, sent, received, a, b):
        super().apply_exchange(x, x_tilde, x, received, a, b)


class SwapsTheFactors(ReferenceKernels):
    """b for x and a for x̃."""

    def apply_exchange(self, x, x_tilde, sent, received, a, b):
        super().apply_exchange(x, x_tilde, sent, received, b, a)


class Overruns(ReferenceKernels):
    """One element too many."""

    def apply_exchange(self, x, x_tilde, sent, received, a, b):
        super().apply_exchange(x, x_tilde, sent, received, a, b)
        as_strided(x, (x.size + 1,))[-1] = 0


class NeverZeroes(ReferenceKernels):
    """`zero_gradient` is ignored."""

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        hyper = hyper._replace(zero_gradient=False)
        super().apply_gradient(x, x_tilde, gradient, state, weight, hyper)


class AlwaysZeroes(ReferenceKernels):
    """`zero_gradient` is taken for granted."""

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        hyper = hyper._replace(zero_gradient=True)
        super().apply_gradient(x, x_tilde, gradient, state, weight, hyper)


class TrustsTheBuffer(ReferenceKernels):
    """The first step reads a momentum that nobody has written."""

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        if isinstance(hyper, SGD):
            hyper = hyper._replace(first=False)
        super().apply_gradient(x, x_tilde, gradient, state, weight, hyper)


class DampensNothing(ReferenceKernels):
    """Dampening is ignored."""

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        if isinstance(hyper, SGD):
            hyper = hyper._replace(dampening=0.0)
        super().apply_gradient(x, x_tilde, gradient, state, weight, hyper)


class CountsFromZero(ReferenceKernels):
    """The bias is corrected for one step more."""

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        if isinstance(hyper, Adam):
            hyper = hyper._replace(step=hyper.step + 1)
        super().apply_gradient(x, x_tilde, gradient, state, weight, hyper)


class Truncates(ReferenceKernels):
    """bfloat16 results are cut off instead of rounded."""

    def apply_gradient(self, x, x_tilde, gradient, state, weight, hyper):
        if x.dtype != np.uint16:
            return super().apply_gradient(x, x_tilde, gradient, state, weight, hyper)
        wide = bfloat16.decode(x)
        slope = bfloat16.decode(gradient)
        super().apply_gradient(wide, x_tilde, slope, state, weight, hyper)
        x[:] = wide.view(np.uint32) >> 16
        gradient[:] = bfloat16.encode(slope)
        return None


class RoundsNanAway(ReferenceKernels):
    """A NaN whose bits overflow in rounding becomes a number."""

    def snapshot(self, x, x_tilde, out, weight):
        super().snapshot(x, x_tilde, out, weight)
        if x.dtype == np.uint16:
            out[x == 0xFFFF] = 0


class KeepsTheLock(ReferenceKernels):
    """Python all the way: no other thread runs meanwhile."""

    def snapshot(self, x, x_tilde, out, weight):
        for i in range(min(x.size, 10_000)):
            out[i] = x[i]


class OnlyQueues:
    """Calls are over at once, as those are that queue work on a GPU: no fault."""

    def snapshot(self, *arguments):
        """Too short for anyone to wake up in."""

    apply_exchange = apply_gradient = snapshot


def test_calls_that_only_queue_work_need_not_let_others_run():
    contract.other_threads_go_on(host(OnlyQueues()), "float32")


FAULTS = [
    (MixesWithTheNewX, contract.mixing_in_place_is_exact, "float32"),
    (StepsWithTheNewX, contract.gradients_follow_the_reference, "float32"),
    (SnapshotWritesBack, contract.snapshot_reads_only, "float32"),
    (ForgetsTheCompanion, contract.both_take_one_update, "float32"),
    (WeighsByItself, contract.both_take_one_update, "float32"),
    (MixesByZero, contract.weight_zero_is_the_baseline, "float32"),
    (UsesItsOwnX, contract.jumps_are_opposite, "float32"),
    (SwapsTheFactors, contract.exchanges_follow_the_reference, "float32"),
    (Overruns, contract.exchanges_follow_the_reference, "float32"),
    (NeverZeroes, contract.zeroing_changes_nothing_else, "float32"),
    (AlwaysZeroes, contract.gradients_follow_the_reference, "float32"),
    (TrustsTheBuffer, contract.many_steps_follow_torch, "float32"),
    (DampensNothing, contract.many_steps_follow_torch, "float32"),
    (CountsFromZero, contract.many_steps_follow_torch, "float32"),
    (Truncates, contract.sums_are_rounded_to_nearest, "uint16"),
    (RoundsNanAway, contract.nonfinite_numbers_stay, "uint16"),
    (KeepsTheLock, contract.other_threads_go_on, "float32"),
]


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
@pytest.mark.parametrize(("fault", "check", "dtype"), FAULTS)
def test_the_contract_finds_the_fault(fault, check, dtype):
    with pytest.raises(AssertionError):
        check(host(fault()), dtype)
