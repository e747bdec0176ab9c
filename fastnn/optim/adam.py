"""Adam, AdamW and Adamax."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._core import launch
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup


class Adam(Optimizer):
    """Adaptive moments: steps divided by the root of a running mean of squared gradients.

    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, p = p - lr m' / (sqrt(v') + eps), with m' = m / (1 - b1^t), v' = v / (1 - b2^t)
    at step t; with `amsgrad` the largest v so far stands in the place of v there.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float or Tensor
        Learning rate; a 0-d float64 tensor is read anew at every step.
    betas : pair of float
        b1 and b2, at least 0 and below 1.
    eps : float
        Added to the divisor.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    amsgrad : bool
        Whether to divide by the root of the largest v so far.
    maximize : bool
        Whether to climb.
    decoupled_weight_decay : bool
        Whether weight decay shrinks the parameter by lr weight_decay instead, as in `AdamW`.
    epsilon_hat : bool
        Whether `eps` is added to sqrt(v) instead of sqrt(v'): the paper's form at the end of section 2, which Keras and
        scikit-learn have.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    Reddi, Kale and Kumar, "On the convergence of Adam and beyond", ICLR 2018 (amsgrad).
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float | Tensor = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
                 amsgrad: bool = False, *, maximize: bool = False, decoupled_weight_decay: bool = False,
                 epsilon_hat: bool = False):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
                                      maximize=maximize, decoupled_weight_decay=decoupled_weight_decay,
                                      epsilon_hat=epsilon_hat))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "eps", "weight_decay")
        self.require_betas(options)

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        names, step = ("exp_avg", "exp_avg_sq"), launch.adam_step
        if options["amsgrad"]:
            names, step = (*names, "max_exp_avg_sq"), launch.adam_amsgrad_step
        self.apply(step, params, self.memory(params, *names), names, lr, options.momentum, "step",
                   beta2=options["betas"][1], eps=options["eps"], weight_decay=options["weight_decay"],
                   decoupled=options["decoupled_weight_decay"], maximize=options["maximize"],
                   epsilon_hat=options["epsilon_hat"])


class AdamW(Adam):
    """Adam with decoupled weight decay: the parameter shrinks by lr weight_decay, whatever its gradient's size.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float or Tensor
        Learning rate; a 0-d float64 tensor is read anew at every step.
    betas : pair of float
        Memory of the means of gradients and of their squares, at least 0 and below 1.
    eps : float
        Added to the divisor.
    weight_decay : float
        How fast parameters shrink.
    amsgrad : bool
        Whether to divide by the root of the largest mean of squares so far.
    maximize : bool
        Whether to climb.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range.

    References
    ----------
    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float | Tensor = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2,
                 amsgrad: bool = False, *, maximize: bool = False):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)


class Adamax(Optimizer):
    """Adam with the largest of the latest gradients in the place of the root of their squares' mean.

    m = b1 m + (1 - b1) g, u = max(b2 u, |g| + eps), p = p - lr / (1 - b1^t) m / u at step t.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float or Tensor
        Learning rate; a 0-d float64 tensor is read anew at every step.
    betas : pair of float
        b1 and b2, at least 0 and below 1.
    eps : float
        Added to the gradient's size.
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
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, section 7.1.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float | Tensor = 2e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0, *,
                 maximize: bool = False):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "eps", "weight_decay")
        self.require_betas(options)

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        names = ("exp_avg", "exp_inf")
        self.apply(launch.adamax_step, params, self.memory(params, *names), names, lr, options.momentum, "step",
                   beta2=options["betas"][1], eps=options["eps"], weight_decay=options["weight_decay"],
                   maximize=options["maximize"])
