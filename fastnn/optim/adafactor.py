"""Adafactor: an adaptive optimiser whose memory of a matrix is one row and one column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .._core import launch
from ..checks import real
from ..ops.create import float64
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup, empty_for


class Adafactor(Optimizer):
    """Steps divided by the root of an estimate of squared gradients that a matrix's rows and columns make together.

    With w = t^beta2_decay at step t: R and C move by w towards the means of g^2 along rows and columns (the last two axes),
    V = R C / mean(R); tensors with fewer axes keep V itself. With u = g / max(sqrt(V), eps1),
    p = (1 - lr weight_decay) p - min(lr, 1 / sqrt(t)) max(eps2, rms(p)) / max(1, rms(u) / d) u.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float or Tensor
        The largest relative step; a 0-d float64 tensor is read anew at every step.
    beta2_decay : float
        At most 0: the estimate remembers the longer, the further below.
    eps : pair
        eps1, the least divisor (None: the epsilon of the parameter's type), and eps2, the least size a parameter is taken to
        have; at least 0.
    d : float
        How large the root of the mean square of u may be, at least 1; larger ones are scaled down.
    weight_decay : float
        How fast parameters shrink.
    maximize : bool
        Whether to climb.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range.

    References
    ----------
    Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost", ICML 2018; in PyTorch's variant.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float | Tensor = 1e-2, beta2_decay: float = -0.8,
                 eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0, *,
                 maximize: bool = False):
        super().__init__(params, dict(lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay,
                                      maximize=maximize))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "weight_decay")
        decay, eps = options["beta2_decay"], options["eps"]
        self.require(real(f"{self.name}: beta2_decay", decay) <= 0, "beta2_decay", decay, "a number of at most 0")
        real(f"{self.name}: d", options["d"], 1)
        self.require(isinstance(eps, (tuple, list)) and len(eps) == 2, "eps", eps, "two numbers, or None and a number")
        for value in eps if eps[0] is not None else eps[1:]:
            real(f"{self.name}: one of eps", value, 0)

    def state_shape(self, name: str, p: Tensor) -> tuple[int, ...]:
        return {"row_var": (*p.shape[:-1], 1), "col_var": (*p.shape[:-2], 1, *p.shape[-1:])}.get(name, p.shape)

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        params = [p for p in params if p.numel()]
        states = [self.memory([p], *(("row_var", "col_var") if p.ndim > 1 else ("variance",)))[0] for p in params]
        moves = [(state[name], mean, state["step"]) for state, square in zip(states, _squares([p.grad for p in params]))
                 for name, mean in _means(square).items()]
        launch.adafactor_average.each(moves, [average for average, *_ in moves], power=options["beta2_decay"])
        self._move(params, states, self._scaled(params, states, options["eps"][0]), options, lr)

    def _scaled(self, params: list[Tensor], states: list[dict], eps: float | None) -> list[Tensor]:
        """Gradients over the roots of their squares' estimates."""
        result = [empty_for(p) for p in params]
        for dtype in dict.fromkeys(p.dtype for p in params):
            chosen = [k for k, p in enumerate(params) if p.dtype is dtype]
            least = float(np.finfo(dtype.name).eps) if eps is None else eps
            for op, is_matrix in ((launch.adafactor_factored_scale, True), (launch.adafactor_scale, False)):
                these = [k for k in chosen if (params[k].ndim > 1) == is_matrix]
                op.each([(params[k].grad, *_estimate(states[k])) for k in these], [result[k] for k in these], eps=least)
        return result

    def _move(self, params: list[Tensor], states: list[dict], updates: list[Tensor], options: ParamGroup,
              lr: Tensor) -> None:
        sums = [_total(square) for square in _squares(params) + _squares(updates)]
        for p, u, state, pp, uu in zip(params, updates, states, sums, sums[len(params):]):
            launch.adafactor_step(p, u, pp, uu, lr, state["step"], out=p, size=p.numel(), least=options["eps"][1],
                                  d=options["d"], weight_decay=options["weight_decay"], maximize=options["maximize"])


def _squares(tensors: list[Tensor]) -> list[Tensor]:
    result = [empty_for(x) for x in tensors]
    launch.square.each([(x,) for x in tensors], result)
    return result


def _mean(x: Tensor, axis: int) -> Tensor:
    return launch.sum(x, axes=1 << axis, keepdim=1, divisor=float(x.shape[axis]))


def _means(square: Tensor) -> dict[str, Tensor]:
    """What a parameter's state moves towards."""
    if square.ndim < 2:
        return {"variance": square}
    return {"row_var": _mean(square, square.ndim - 1), "col_var": _mean(square, square.ndim - 2)}


def _estimate(state: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """What the squares' estimate is made of."""
    if "variance" in state:
        return (state["variance"],)
    row = state["row_var"]
    return row, state["col_var"], _mean(row, row.ndim - 2)


def _total(square: Tensor) -> Tensor:
    return launch.copy(launch.sum(square, axes=(1 << square.ndim) - 1, keepdim=0, divisor=1.0), dtype=float64.code)
