"""The names of an optimizer's parameters, and the order that averagers get them in."""

from collections.abc import Container, Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from acidmpi.errors import ConfigError

Named = list[tuple[str, Tensor]]


class Names:
    """Names given by the caller, by the optimizer, or by position.

    Args:
        optimizer: whose groups are looked at anew each time.
        named_parameters: pairs as from `model.named_parameters()`, or None. A parameter
            that has several names keeps the first; those that the optimizer does not
            hold are ignored.

    Raises:
        ConfigError: not pairs, a name for two parameters, or a parameter without a name.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        named_parameters: Iterable[tuple[str, Tensor]] | None,
    ) -> None:
        self._optimizer = optimizer
        self._given: dict[Tensor, str] = {}
        if named_parameters is not None:
            self._take(_pairs(named_parameters))
            self._check_complete()

    def trained(self, besides: Container[Tensor] = ()) -> Named:
        """Parameters that require a gradient and have elements, named, in order.

        The order is that of the given names, then that of the optimizer's groups.

        Args:
            besides: parameters to leave out.
        """
        left = {
            p
            for group in self._optimizer.param_groups
            for p in group["params"]
            if p.requires_grad and p not in besides and p.numel()
        }
        return self._in_order(left) if left else []

    def _in_order(self, parameters: set[Tensor]) -> Named:
        named = {p: name for name, p in self._held() if p in parameters}
        order = [p for p in self._given if p in named]
        return [(named[p], p) for p in dict.fromkeys([*order, *named])]

    def _held(self) -> Iterable[tuple[str, Tensor]]:
        for g, group in enumerate(self._optimizer.param_groups):
            own = group.get("param_names") or [
                f"group{g}.{k}" for k in range(len(group["params"]))
            ]
            for name, parameter in zip(own, group["params"], strict=True):
                yield self._given.get(parameter, name), parameter

    def _take(self, pairs: Iterable[tuple[str, Tensor]]) -> None:
        taken: dict[str, Tensor] = {}
        for name, parameter in pairs:
            if taken.setdefault(name, parameter) is not parameter:
                raise ConfigError(
                    f"names of parameters must be unique, got two called {name!r}; put "
                    "the name of the model before those of each of several models"
                )
            self._given.setdefault(parameter, name)

    def _check_complete(self) -> None:
        missing = [name for name, p in self._held() if p not in self._given]
        if missing:
            raise ConfigError(
                "named_parameters must hold every parameter of the optimizer, got none "
                f"for {', '.join(missing)}; pass model.named_parameters() of all models "
                "that it trains"
            )


def _pairs(named: Any) -> Named:
    pairs: list[Any] = list(named) if isinstance(named, Iterable) else [named]
    for pair in pairs:
        if not (
            isinstance(pair, tuple)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], Tensor)
        ):
            raise ConfigError(
                "named_parameters must be pairs of a name and a tensor, got "
                f"{type(pair).__name__}; pass model.named_parameters()"
            )
    return pairs
