"""Keeps what a training run never uses out of its memory.

Making the first torch optimizer imports torch's compiler, because four methods of
`Optimizer` are wrapped so that a compiled function leaves them alone. Here nothing is
compiled; with 64 ranks on a machine the import costs minutes of processor time and
gigabytes. The wrapper keeps what it calls in an attribute: set that to the method itself,
and it never imports anything. A torch that works differently is left as it is. (The
optimizer's own `step()` would import it all the same; a fused one does not call that.)
"""

from torch.optim import Optimizer

WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
_KEPT = "__dynamo_disable"


def leave_out_compiler() -> None:
    """Call before the first optimizer is made, in a process that compiles nothing."""
    for name in WRAPPED:
        method = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, _KEPT):
            setattr(method, _KEPT, method)
