"""Resilient backpropagation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._core import launch
from ..checks import are_numbers
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup


class Rprop(Optimizer):
    """Steps by the gradient's sign, for whole batches: each element has a step size of its own.

    Where the gradient has the sign of the last one, the size grows by etas[1]; where it has the other sign, the size shrinks
    by etas[0] and the gradient counts as 0, also for the next step; p = p - size sign(g).

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float or Tensor
        The first step size; later rates change nothing.
    etas : pair of float
        Factors, the one above 0 and below 1, the other above 1.
    step_sizes : pair of float
        The least and the largest step size, at least 0.
    maximize : bool
        Whether to climb.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range.

    References
    ----------
    Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm", ICNN 1993.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float | Tensor = 1e-2,
                 etas: tuple[float, float] = (0.5, 1.2), step_sizes: tuple[float, float] = (1e-6, 50.0), *,
                 maximize: bool = False):
        super().__init__(params, dict(lr=lr, etas=etas, step_sizes=step_sizes, maximize=maximize))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr")
        etas, sizes = options["etas"], options["step_sizes"]
        self.require(are_numbers(etas, 2) and 0 < etas[0] < 1 < etas[1], "etas", etas,
                     "two numbers, the first above 0 and below 1, the second above 1")
        self.require(are_numbers(sizes, 2) and 0 <= sizes[0] <= sizes[1], "step_sizes", sizes,
                     "two numbers of at least 0, the second not less than the first")

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        names, (least, most) = ("prev", "step_size"), options["step_sizes"]
        eta_minus, eta_plus = options["etas"]
        self.apply(launch.rprop_step, params, self.memory(params, *names), names, lr, "step", eta_minus=eta_minus,
                   eta_plus=eta_plus, least=least, most=most, maximize=options["maximize"])
