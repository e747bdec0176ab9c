"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._core import launch
from ..checks import real
from ..tensor import Tensor
from .optimizer import Optimizer, zeros_for


class SGD(Optimizer):
    """Gradient descent with momentum.

    With momentum, m = momentum m + (1 - dampening) g (m = g the first time), and p = p - lr m, or, with Nesterov's form,
    p = p - lr (g + momentum m); without, p = p - lr g.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float or Tensor
        Learning rate; a 0-d float64 tensor is read anew at every step.
    momentum : float
        How much of the last step stays.
    dampening : float
        How much of the gradient is kept out of the momentum.
    weight_decay : float
        Factor of the parameter that is added to its gradient.
    nesterov : bool
        Whether to use Nesterov's form; needs momentum and no dampening.
    maximize : bool
        Whether to climb.
    decoupled : bool
        Whether weight decay shrinks the parameter by lr weight_decay instead (Loshchilov and Hutter's SGDW).

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range.

    References
    ----------
    Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float | Tensor = 1e-3, momentum: float = 0.0,
                 dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False,
                 decoupled: bool = False):
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
                                      nesterov=nesterov, maximize=maximize, decoupled=decoupled))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "momentum", "weight_decay")
        real(f"{self.name}: dampening", options["dampening"])
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ValueError(f"{self.name}: nesterov needs momentum above 0 and dampening 0, not momentum "
                             f"{options['momentum']} and dampening {options['dampening']}")

    def update(self, params: list[Tensor], options: Mapping[str, Any], lr: Tensor) -> None:
        rule = {"weight_decay": options["weight_decay"], "decoupled": options["decoupled"], "maximize": options["maximize"]}
        states = [self.state[p] for p in params]
        if options["momentum"] == 0:
            self.apply(launch.sgd_step, params, states, (), lr, **rule)
            return
        rule |= {"momentum": options["momentum"], "dampening": options["dampening"], "nesterov": options["nesterov"]}
        is_new = [state.get("momentum_buffer") is None for state in states]
        for first in set(is_new):
            chosen = [k for k, new in enumerate(is_new) if new == first]
            for k in chosen if first else ():
                states[k]["momentum_buffer"] = zeros_for(params[k])
            self.apply(launch.sgd_momentum_step, [params[k] for k in chosen], [states[k] for k in chosen],
                       ("momentum_buffer",), lr, first=first, **rule)
