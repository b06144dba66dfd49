"""Faults to order in methods whose ranks step together.

Only the computation of a gradient can be disturbed: the messages of these methods have no
single events that a plan could name.
"""

from collections.abc import Callable
from typing import Any

from acidmpi.config.train import ASYNCHRONOUS, TrainConfig
from acidmpi.errors import ConfigError
from acidmpi.faults.drill import Drill
from acidmpi.faults.plan import Plan

EVENT = "gradient"
NOT_HERE = ("nan", "delay", "full")


def order_faults(owner: Any, method: str, config: TrainConfig, comm: Any) -> None:
    """Have what is planned for this rank happen just after each gradient of `owner`.

    `slow:F` makes the computation F times as long; waiting for other ranks is not part
    of it. Asynchronous methods have drills of their own, in the worker.

    Args:
        owner: computes gradients.
        method: its method that does.
        config: has the plan and the seed.
        comm: the ranks.

    Raises:
        ConfigError: the plan names an event or an action that there is not here.
    """
    plan = Plan() if config.method in ASYNCHRONOUS else Plan.of(config.fault)
    for fault in plan.faults:
        if fault.event != EVENT or fault.action in NOT_HERE:
            raise ConfigError(
                f"--method {config.method} takes faults at=gradient:… with do=kill, stop, "
                f"pause, slow or raise, got {fault.text!r}"
            )
    if not plan:
        return
    drill = Drill(plan, comm.rank, comm.size, config.seed)
    if drill.plans(EVENT):
        setattr(owner, method, _disturbed(getattr(owner, method), drill))


def _disturbed(gradient: Callable[..., Any], drill: Drill) -> Callable[..., Any]:
    def disturbed(*arguments: Any) -> Any:
        drill.begin(EVENT)
        result = gradient(*arguments)
        drill.reach(EVENT)
        return result

    return disturbed
