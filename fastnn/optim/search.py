"""Random search and random local search: baselines without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .. import _core
from .._core import launch
from ..nn import init
from ..ops.create import float64
from ..tensor import Tensor, no_grad
from .optimizer import Optimizer, zeros_for


class RandomSearch(Optimizer):
    """Tries parameters drawn evenly from [-lr, lr] and keeps the best.

    After every step the parameters are the best so far; the first step evaluates those it finds too.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float
        Half the width of the interval.

    Raises
    ------
    ValueError
        If `lr` is negative.

    References
    ----------
    Rastrigin, "The convergence of the random search method in the extremal control of a many parameter system",
    Automation and Remote Control 24, 1963.
    """

    numbers = ("best",)

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1.0):
        super().__init__(params, dict(lr=lr))

    @property
    def best(self) -> float | None:
        """The least loss so far; part of the state."""
        state = self.state.get(next(self._parameters()), {})
        return state["best"].item() if "best" in state else None

    @best.setter
    def best(self, loss: float) -> None:
        self.state[next(self._parameters())]["best"] = _core.scalar(loss, float64)

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr")

    def draw(self, p: Tensor, best: Tensor, scale: float) -> None:
        """Writes a trial into `p`, given the best value so far."""
        init.uniform_(p, -scale, scale)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Evaluates one trial and keeps it if it is better.

        Parameters
        ----------
        closure : callable
            Returns the loss of the present parameters; gradients are not needed. It may call a captured program.

        Returns
        -------
        float
            The trial's loss.

        Raises
        ------
        TypeError
            If there is no closure.
        """
        if closure is None:
            raise TypeError(f"{self.name}: step needs a closure that returns the loss")
        with no_grad():
            if self.best is None:
                self.best = float(closure())
            before = [p.detach().clone() for p in self._parameters()]
            values = iter(before)
            for group in self.param_groups:
                for p in group["params"]:
                    self.draw(p, next(values), group["lr"])
            loss = float(closure())
            if loss < self.best:
                self.best = loss
            else:
                for p, value in zip(self._parameters(), before):
                    p.copy_(value)
        return loss


class RandomLocalSearch(RandomSearch):
    """Tries normally distributed steps from the best parameters so far and takes those that lower the loss.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float
        The steps' standard deviation.

    Raises
    ------
    ValueError
        If `lr` is negative.

    References
    ----------
    Rechenberg, "Evolutionsstrategie", Frommann-Holzboog, 1973: the (1+1) strategy, with a given step size.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 0.1):
        super().__init__(params, lr)

    def draw(self, p: Tensor, best: Tensor, scale: float) -> None:
        launch.add(best, init.normal_(zeros_for(p), 0.0, scale), out=p.detach())
