"""Adam's relatives: NAdam, RAdam, Lion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import _core
from .._core import launch
from ..ops.create import float64
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup


class NAdam(Optimizer):
    """Adam with Nesterov's momentum, which looks ahead.

    With b1' = b1 (1 - 0.96^(t momentum_decay) / 2) the momentum of step t, P their product up to it and m, v as in
    `Adam`:
    p = p - lr ((1 - b1') / (1 - P) g + b1'' / (1 - P b1'') m) / (sqrt(v / (1 - b2^t)) + eps), b1'' that of step t + 1.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float
        Learning rate.
    betas : pair of float
        Memory of the means of gradients and of their squares, at least 0 and below 1.
    eps : float
        Added to the divisor.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    momentum_decay : float
        How fast the momentum grows to b1.
    decoupled_weight_decay : bool
        Whether weight decay shrinks the parameter by lr weight_decay instead.
    maximize : bool
        Whether to climb.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range.

    References
    ----------
    T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 2e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
                 momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *, maximize: bool = False):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      momentum_decay=momentum_decay,
                                      decoupled_weight_decay=decoupled_weight_decay, maximize=maximize))

    numbers = ("step", "mu_product")

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "eps", "weight_decay", "momentum_decay")
        self.require_betas(options)

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        names, decay = ("exp_avg", "exp_avg_sq"), options["momentum_decay"]
        states = self.memory(params, *names)
        for state in states:
            if "mu_product" not in state:
                state["mu_product"] = _core.scalar(1.0, float64)
        launch.nadam_product.each([(state["mu_product"], state["step"], options.momentum) for state in states],
                                  [state["mu_product"] for state in states], decay=decay)
        self.apply(launch.nadam_step, params, states, names, lr, options.momentum, "step", "mu_product",
                   beta2=options["betas"][1], eps=options["eps"], weight_decay=options["weight_decay"],
                   decoupled=options["decoupled_weight_decay"], maximize=options["maximize"], momentum_decay=decay)


class RAdam(Optimizer):
    """Adam that divides by the root of v only once enough steps make its variance known, and not by a factor at first.

    m and v as in `Adam`, m' = m / (1 - b1^t), R = 2 / (1 - b2) - 1, r = R - 2 t b2^t / (1 - b2^t); while r <= 5,
    p = p - lr m', then p = p - lr m' sqrt((r - 4)(r - 2) R / ((R - 4)(R - 2) r)) sqrt(1 - b2^t) / (sqrt(v) + eps).

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float
        Learning rate.
    betas : pair of float
        Memory of the means of gradients and of their squares, at least 0 and below 1.
    eps : float
        Added to the divisor.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    decoupled_weight_decay : bool
        Whether weight decay shrinks the parameter by lr weight_decay instead.
    maximize : bool
        Whether to climb.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range.

    References
    ----------
    Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
                 decoupled_weight_decay: bool = False, *, maximize: bool = False):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      decoupled_weight_decay=decoupled_weight_decay, maximize=maximize))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "eps", "weight_decay")
        self.require_betas(options)

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        names = ("exp_avg", "exp_avg_sq")
        self.apply(launch.radam_step, params, self.memory(params, *names), names, lr, options.momentum, "step",
                   beta2=options["betas"][1], eps=options["eps"], weight_decay=options["weight_decay"],
                   decoupled=options["decoupled_weight_decay"], maximize=options["maximize"])


class Lion(Optimizer):
    """Steps of one length, in the direction of the momentum's signs; weight decay is decoupled.

    p = (1 - lr weight_decay) p - lr sign(b1 m + (1 - b1) g), m = b2 m + (1 - b2) g.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float
        Learning rate.
    betas : pair of float
        b1 and b2, at least 0 and below 1.
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
    Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-4,
                 betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0, *, maximize: bool = False):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "weight_decay")
        self.require_betas(options)

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        self.apply(launch.lion_step, params, self.memory(params, "exp_avg", counted=False), ("exp_avg",), lr,
                   options.momentum, beta2=options["betas"][1], weight_decay=options["weight_decay"],
                   maximize=options["maximize"])
