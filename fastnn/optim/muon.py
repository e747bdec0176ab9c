"""Muon: momentum made orthogonal, for the matrices of hidden layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from .._core import launch
from ..checks import are_numbers, whole
from ..ops.operands import constant
from ..tensor import Tensor
from .optimizer import Optimizer, ParamGroup, empty_for


class Muon(Optimizer):
    """Steps along the matrix with the momentum's singular vectors and singular values near 1.

    m = momentum m + (1 - momentum) g; X is m, or g + momentum (m - g) with Nesterov's form, over its Frobenius norm, and
    goes through X = a X + (b S + c S S) X with S = X X^T, `ns_steps` times (Newton's and Schulz's iteration);
    p = (1 - lr weight_decay) p - lr r X, with r by shape. Products are made in the parameters' type, where PyTorch takes
    bfloat16.

    Parameters
    ----------
    params : iterable of Tensor, or iterable of dict
        What to optimise, matrices only; others go to another optimiser, such as `AdamW`.
    lr : float
        Learning rate.
    weight_decay : float
        How fast parameters shrink.
    momentum : float
        How much of the last steps stays.
    nesterov : bool
        Whether to use Nesterov's form.
    ns_coefficients : sequence of float
        a, b and c.
    eps : float
        The least norm that X is divided by.
    ns_steps : int
        At least 0 and below 100.
    adjust_lr_fn : str, optional
        What r is: "original", by default, sqrt(max(1, rows / columns)); "match_rms_adamw", 0.2 sqrt(max(rows, columns)), for
        rates as `AdamW` has them.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range or a parameter is no matrix.

    References
    ----------
    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", https://kellerjordan.github.io/posts/muon, 2024.
    Liu et al., "Muon is scalable for LLM training", arXiv:2502.16982, 2025 ("match_rms_adamw").
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict], lr: float | Tensor = 1e-3, weight_decay: float = 0.1,
                 momentum: float = 0.95, nesterov: bool = True,
                 ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315), eps: float = 1e-7,
                 ns_steps: int = 5, adjust_lr_fn: str | None = None):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov,
                                      ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps,
                                      adjust_lr_fn=adjust_lr_fn))

    def check(self, options: Mapping[str, Any]) -> None:
        self.require_not_negative(options, "lr", "weight_decay", "momentum", "eps")
        self.require(are_numbers(options["ns_coefficients"], 3), "ns_coefficients", options["ns_coefficients"],
                     "three numbers")
        steps = whole(f"{self.name}: ns_steps", options["ns_steps"], 0)
        self.require(steps < 100, "ns_steps", steps, "below 100")
        self.require(options["adjust_lr_fn"] in (None, "original", "match_rms_adamw"), "adjust_lr_fn",
                     options["adjust_lr_fn"], "None, 'original' or 'match_rms_adamw'")
        for p in options["params"]:
            if p.ndim != 2:
                raise ValueError(f"{self.name}: a parameter has shape {p.shape}, but must be a matrix")

    def update(self, params: list[Tensor], options: ParamGroup, lr: Tensor) -> None:
        params = [p for p in params if p.numel()]
        states = self.memory(params, "momentum_buffer", counted=False)
        buffers, updates = [state["momentum_buffer"] for state in states], [empty_for(p) for p in params]
        launch.muon_momentum.each([(m, p.grad, options.momentum) for m, p in zip(buffers, params)],
                                  list(zip(buffers, updates)), nesterov=options["nesterov"])
        for p, u in zip(params, updates):
            u = orthogonalized(u, options["ns_coefficients"], options["ns_steps"], options["eps"])
            launch.muon_step(p, u, lr, out=p, scale=_scale(p.shape, options["adjust_lr_fn"]),
                             weight_decay=options["weight_decay"])


def orthogonalized(u: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """A matrix with the singular vectors of `u` and singular values that Newton's and Schulz's iteration drew towards 1.

    Parameters
    ----------
    u : Tensor
        (M, N).
    coefficients : sequence of float
        a, b and c of a X + (b S + c S S) X with S = X X^T.
    steps : int
        How many.
    eps : float
        The least norm that `u` is divided by.

    Returns
    -------
    Tensor
        (M, N).
    """
    a, b, c = coefficients
    is_tall = u.shape[0] > u.shape[1]
    x = u.T if is_tall else u
    norm = launch.sqrt(launch.sum(launch.square(u), axes=3, keepdim=0, divisor=1.0))
    x = launch.div(x, launch.maximum(norm, constant(eps, u.dtype)))
    for _ in range(steps):
        s = launch.matmul(x, x.T)
        polynomial = launch.muon_combine(s, launch.matmul(s, s), alpha=b, beta=c)
        x = launch.muon_combine(x, launch.matmul(polynomial, x), alpha=a, beta=1.0)
    return x.T if is_tall else x


def _scale(shape: tuple[int, ...], rule: str | None) -> float:
    rows, columns = shape
    return 0.2 * math.sqrt(max(shape)) if rule == "match_rms_adamw" else math.sqrt(max(1.0, rows / columns))
