"""Stochastic gradient descent, with momentum or averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import _core
from .._core import launch
from ..checks import real
from ..ops.create import float64
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup, zeros_for


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

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        rule = {"weight_decay": options["weight_decay"], "decoupled": options["decoupled"], "maximize": options["maximize"]}
        states = [self.state[p] for p in params]
        if options["momentum"] == 0:
            self.apply(launch.sgd_step, params, states, (), lr, **rule)
            return
        rule |= {"dampening": options["dampening"], "nesterov": options["nesterov"]}
        is_new = [state.get("momentum_buffer") is None for state in states]
        for first in set(is_new):
            chosen = [k for k, new in enumerate(is_new) if new == first]
            for k in chosen if first else ():
                states[k]["momentum_buffer"] = zeros_for(params[k])
            self.apply(launch.sgd_momentum_step, [params[k] for k in chosen], [states[k] for k in chosen],
                       ("momentum_buffer",), lr, options.momentum, first=first, **rule)


class ASGD(Optimizer):
    """Gradient descent that also averages the parameters it comes by: `state` has the averages under "ax".

    p = (1 - lambd eta) p - eta g, ax = ax + mu (p - ax) at step t; then eta = lr / (1 + lambd lr t)^alpha and
    mu = 1 / max(1, t - t0) for the next one, so that a new rate takes effect a step later; eta = lr and mu = 1 at first.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise.
    lr : float or Tensor
        Learning rate; a 0-d float64 tensor is read anew at every step.
    lambd : float
        How fast the parameters shrink and the rate falls.
    alpha : float
        Power of the rate's fall.
    t0 : float
        After which step averages begin; the last parameters before.
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
    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control and Optimization 30,
    1992.
    """

    numbers = ("step", "eta", "mu")

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float | Tensor = 1e-2, lambd: float = 1e-4,
                 alpha: float = 0.75, t0: float = 1e6, weight_decay: float = 0.0, maximize: bool = False):
        super().__init__(params, dict(lr=lr, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay,
                                      maximize=maximize))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "lambd", "alpha", "t0", "weight_decay")

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        states = self.memory(params, "ax")
        for state in states:
            if "eta" not in state:
                state |= {"eta": lr.clone(), "mu": _core.scalar(1.0, float64)}
        self.apply(launch.asgd_step, params, states, ("ax",), "eta", "mu", lambd=options["lambd"],
                   weight_decay=options["weight_decay"], maximize=options["maximize"])
        rates = [(state["eta"], state["mu"]) for state in states]
        launch.asgd_rates.each([(*pair, lr, state["step"]) for pair, state in zip(rates, states)], rates,
                               lambd=options["lambd"], alpha=options["alpha"], t0=options["t0"])
