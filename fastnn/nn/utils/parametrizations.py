"""Weights computed from others: their norm apart from their direction, or divided by their greatest singular value."""

from __future__ import annotations

from ...checks import positive, whole
from ...ops.distance import normalize
from ...ops.math import div, mul
from ...ops.shape import _axis
from ...tensor import Tensor
from ..module import Module
from ..weight import norms
from .parametrize import register_parametrization
from .spectral import as_matrix, default_axis, divided, iterate, start

__all__ = ["spectral_norm", "weight_norm"]


class _WeightNorm(Module):
    """w = g v / |v|."""

    def __init__(self, dim: int | None):
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return mul(v, div(g, norms(v, self.dim)))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        norm = norms(weight, self.dim)
        return (norm if self.dim is not None else norm.reshape(())), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Makes a layer learn norm and direction of its weight apart: w = g v / |v|.

    Parameters
    ----------
    module : Module
        A layer; g and v are ``parametrizations.<name>.original0`` and ``original1``.
    name : str
        The parameter.
    dim : int, optional
        The axis whose slices have a norm each; None or, as PyTorch has it, -1: one for all.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        If it has no such parameter.
    IndexError
        If that has no such axis.

    References
    ----------
    T. Salimans and D. P. Kingma, "Weight normalization", NeurIPS 2016.
    """
    if dim is not None:
        dim = None if dim == -1 else _axis("weight_norm", dim, _weight("weight_norm", module, name).ndim)
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _SpectralNorm(Module):
    """The weight over its greatest singular value."""

    def __init__(self, weight: Tensor, n_power_iterations: int, dim: int, eps: float):
        super().__init__()
        self.dim, self.eps = dim, eps
        self.n_power_iterations = n_power_iterations
        if weight.ndim > 1:
            u, v = start(as_matrix(weight.detach(), self.dim), eps)
            self.register_buffer("_u", u)
            self.register_buffer("_v", v)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        if self.training:
            iterate(as_matrix(weight, self.dim), self._u, self._v, self.n_power_iterations, self.eps)
        return divided(weight, self.dim, self._u, self._v)

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
                  dim: int | None = None) -> Module:
    """Makes a layer divide its weight by the weight's greatest singular value, which a step of the power method follows at every
    use in training.

    Parameters
    ----------
    module : Module
        A layer; what is divided is ``parametrizations.<name>.original``.
    name : str
        The parameter.
    n_power_iterations : int
        Steps of the power method at a use.
    eps : float
        The least norm by which vectors are divided.
    dim : int, optional
        The axis of outputs; by default 0, of transposed convolutions 1.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        If it has no such parameter, or a number does not fit.
    IndexError
        If that has no such axis.

    References
    ----------
    T. Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018.
    """
    steps, eps = whole("spectral_norm: n_power_iterations", n_power_iterations, 1), positive("spectral_norm: eps", eps)
    weight = _weight("spectral_norm", module, name)
    axis = _axis("spectral_norm", default_axis(module) if dim is None else dim, weight.ndim)
    return register_parametrization(module, name, _SpectralNorm(weight, steps, axis, eps))


def _weight(caller: str, module: Module, name: str) -> Tensor:
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"{caller}: name is {name!r}, but must be a parameter of {type(module).__name__}")
    return weight
