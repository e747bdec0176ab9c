"""How large gradients and updates are, layer by layer: what `Trainer(..., watch_gradients=True)` records."""

from __future__ import annotations

import math
import warnings
from typing import Any

import fastnn

from .._core import launch
from ..ops.create import float64
from ..ops.operands import constant

VANISHING, EXPLODING = 1e-6, 1e3
"""A layer is warned of when its gradient norm is below the first times the largest layer's, or above the second."""


class GradientWatch:
    """Adds up squares of gradients and of updates while steps go by, by launches, so that captured steps do it, too.

    A layer is a module with parameters of its own, under its name in the model.

    Parameters
    ----------
    model : fastnn.nn.Module
        The model; its lazy layers must have their shapes.
    """

    def __init__(self, model: Any) -> None:
        self._layers: dict[str, list[Any]] = {}
        for name, parameter in model.named_parameters():
            self._layers.setdefault(name.rpartition(".")[0] or type(model).__name__, []).append(parameter)
        self._gradients = {layer: fastnn.zeros((), dtype=float64) for layer in self._layers}
        self._updates = {layer: fastnn.zeros((), dtype=float64) for layer in self._layers}
        self._steps = fastnn.zeros((), dtype=float64)
        self._warned: set[tuple[str, str]] = set()

    def reset(self) -> None:
        """Begin a run: nothing added up, nobody warned."""
        self._clear()
        self._warned.clear()

    def _clear(self) -> None:
        for total in (self._steps, *self._gradients.values(), *self._updates.values()):
            total.zero_()

    def before_update(self) -> dict[str, list[Any]]:
        """Add the gradients; returns copies of the parameters, for `after_update`."""
        with fastnn.no_grad():
            launch.add(self._steps, constant(1.0, float64), out=self._steps)
            for layer, parameters in self._layers.items():
                _add_squares(self._gradients[layer], [p.grad for p in parameters if p.grad is not None])
            return {layer: [launch.contiguous(p.detach()) for p in parameters]
                    for layer, parameters in self._layers.items()}

    def after_update(self, before: dict[str, list[Any]]) -> None:
        """Add what the step changed.

        Parameters
        ----------
        before : dict of str to list of Tensor
            What `before_update` gave.
        """
        with fastnn.no_grad():
            for layer, parameters in self._layers.items():
                _add_squares(self._updates[layer], [launch.sub(p.detach(), old)
                                                    for p, old in zip(parameters, before[layer])])

    def end_epoch(self, history: Any) -> None:
        """Record the epoch's norms, warn of what vanishes or explodes, and begin the next.

        Parameters
        ----------
        history : History
            Gets one number a layer in ``gradient_norms`` and ``update_norms``: the root of the mean over the steps of
            the squared norm.
        """
        steps = max(self._steps.item(), 1.0)
        norms = {layer: math.sqrt(total.item() / steps) for layer, total in self._gradients.items()}
        for layer, norm in norms.items():
            history.gradient_norms.setdefault(layer, []).append(norm)
            history.update_norms.setdefault(layer, []).append(math.sqrt(self._updates[layer].item() / steps))
        self._warn(norms)
        self._clear()

    def _warn(self, norms: dict[str, float]) -> None:
        """Once a layer and kind."""
        largest = max((norm for norm in norms.values() if math.isfinite(norm)), default=0.0)
        for layer, norm in norms.items():
            if not any(p.requires_grad for p in self._layers[layer]):
                continue  # frozen: it has no gradient
            if not norm <= EXPLODING:
                kind, text = "explodes", f"is {norm:.3g}, above {EXPLODING:g}; try a smaller learning rate, or clipping"
            elif norm <= VANISHING * largest:
                kind, text = "vanishes", f"is {norm:.3g}, beside {largest:.3g} in the layer where it is largest"
            else:
                continue
            if (layer, kind) not in self._warned:
                self._warned.add((layer, kind))
                warnings.warn(f"the gradient of layer {layer!r} {kind}: its norm {text}", RuntimeWarning, stacklevel=2)


def _add_squares(total: Any, tensors: list[Any]) -> None:
    """total += the sum of all squares, by squares in the tensors' own type."""
    for value in tensors:
        launch.add(total, launch.copy(launch.square(value).sum(), dtype=float64.code), out=total)
