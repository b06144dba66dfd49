"""How torch's schedulers and loss scalers talk to an optimizer.

Neither has a public interface for an optimizer that wraps another one: they set
attributes, which are read and set here and nowhere else.
"""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from acidmpi.errors import ConfigError


def found_infinity(attributes: dict[str, Any], averaged: bool) -> bool:
    """Whether a GradScaler, which calls `step` at this moment, has found an infinity.

    An optimizer with `_step_supports_amp_scaling` is told so by two attributes. The
    wrapped `step` is not to see them: gradients are unscaled already.

    Args:
        attributes: of the optimizer; changed.
        averaged: whether the gradients are means already.

    Raises:
        ConfigError: gradients are still scaled, or not averaged.
    """
    found = attributes.get("found_inf")
    if found is None:
        return False
    if attributes["grad_scale"] is not None or not averaged:
        del attributes["found_inf"], attributes["grad_scale"]
        raise ConfigError(
            "gradients must be averaged and unscaled before a GradScaler's step(); "
            "call synchronize(scaler) after backward()"
        )
    attributes["found_inf"] = None
    return bool(found)


def scheduled(optimizer: Optimizer, step: Callable[..., Any]) -> Callable[..., Any]:
    """What stands where a scheduler's own `step` would, which goes around the plain one.

    A scheduler puts a function into the attributes of its optimizer, to see whether steps
    are taken, unless one is there, and warns when it is gone.

    Args:
        optimizer: the one that averages.
        step: of its class.
    """

    def counted(*args: Any, **kwargs: Any) -> Any:
        vars(optimizer)["_opt_called"] = True
        return step(optimizer, *args, **kwargs)

    counted._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    return counted
