"""Which parameters are decayed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def parameter_groups(model: "nn.Module", weight_decay: float) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: no weight decay on parameters of one dimension.

    Biases and the scales and shifts of normalisation layers set ranges, not complexity;
    decaying them only slows training. Frozen parameters and empty groups are left out.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
