"""Optimisers that divide by running roots of squared gradients: Adagrad, RMSprop, Adadelta."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._core import launch
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients.

    s = s + g^2, p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps) at step t.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float
        Learning rate.
    lr_decay : float
        How fast the rate falls beside that.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    initial_accumulator_value : float
        What s starts from.
    eps : float
        Added to the divisor.
    maximize : bool
        Whether to climb.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range.

    References
    ----------
    Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR 12,
    2011.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-2, lr_decay: float = 0.0,
                 weight_decay: float = 0.0, initial_accumulator_value: float = 0.0, eps: float = 1e-10, *,
                 maximize: bool = False):
        super().__init__(params, dict(lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps, maximize=maximize,
                                      initial_accumulator_value=initial_accumulator_value))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        new = [p for p in params if not self.state[p]]
        states = self.memory(params, "sum")
        for p in new:
            self.state[p]["sum"].fill_(options["initial_accumulator_value"])
        self.apply(launch.adagrad_step, params, states, ("sum",), lr, "step", lr_decay=options["lr_decay"],
                   eps=options["eps"], weight_decay=options["weight_decay"], maximize=options["maximize"])


class RMSprop(Optimizer):
    """Steps divided by the root of a running mean of squared gradients.

    s = alpha s + (1 - alpha) g^2, d = g / (sqrt(s) + eps), p = p - lr d; with momentum b = momentum b + d,
    p = p - lr b.
    Centred, the root is that of the variance s - a^2, with a the running mean of gradients.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float
        Learning rate.
    alpha : float
        Memory of the mean, at least 0 and at most 1.
    eps : float
        Added to the divisor.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    momentum : float
        How much of the last step stays.
    centered : bool
        Whether to divide by the root of the variance.
    maximize : bool
        Whether to climb.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range.

    References
    ----------
    Tieleman and Hinton, "Lecture 6.5: RMSProp", Neural Networks for Machine Learning, Coursera, 2012.
    A. Graves, "Generating sequences with recurrent neural networks", arXiv:1308.0850, 2013 (centred).
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1e-2, alpha: float = 0.99,
                 eps: float = 1e-8, weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, *,
                 maximize: bool = False):
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum,
                                      centered=centered, maximize=maximize))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "alpha", "eps", "weight_decay", "momentum")
        self.require(options["alpha"] <= 1, "alpha", options["alpha"], "at least 0 and at most 1")

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        centered, momentum = bool(options["centered"]), options["momentum"] > 0
        names = ("square_avg", *["grad_avg"] * centered, *["momentum_buffer"] * momentum)
        step = getattr(launch, "rmsprop" + "_centered" * centered + "_momentum" * momentum + "_step")
        self.apply(step, params, self.memory(params, *names), names, lr, *[options.momentum] * momentum,
                   alpha=options["alpha"], eps=options["eps"], weight_decay=options["weight_decay"],
                   maximize=options["maximize"])


class Adadelta(Optimizer):
    """Steps as long as earlier steps were, relative to the gradients' size.

    s = rho s + (1 - rho) g^2, d = sqrt(u + eps) / sqrt(s + eps) g, u = rho u + (1 - rho) d^2, p = p - lr d.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float
        Learning rate.
    rho : float
        Memory of the means, at least 0 and at most 1.
    eps : float
        Added under the roots.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    maximize : bool
        Whether to climb.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range.

    References
    ----------
    M. D. Zeiler, "ADADELTA: an adaptive learning rate method", arXiv:1212.5701, 2012.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6,
                 weight_decay: float = 0.0, *, maximize: bool = False):
        super().__init__(params, dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "rho", "eps", "weight_decay")
        self.require(options["rho"] <= 1, "rho", options["rho"], "at least 0 and at most 1")

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        names = ("square_avg", "acc_delta")
        self.apply(launch.adadelta_step, params, self.memory(params, *names), names, lr, rho=options["rho"],
                   eps=options["eps"], weight_decay=options["weight_decay"], maximize=options["maximize"])
