"""Weights divided by their greatest singular value."""

from __future__ import annotations

from typing import Any

from ...checks import positive, whole
from ...ops.distance import normalize
from ...ops.linear import matmul
from ...ops.math import div
from ...ops.shape import _axis, flatten, permute
from ...random import randn
from ...tensor import Tensor, no_grad
from ..conv_transpose import ConvTranspose1d, ConvTranspose2d
from ..module import Module, Parameter, a_module

__all__ = ["remove_spectral_norm", "spectral_norm"]


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """The weight as a matrix whose rows are along axis `dim`."""
    if dim:
        weight = permute(weight, dim, *(d for d in range(weight.ndim) if d != dim))
    return flatten(weight, 1) if weight.ndim > 1 else weight


def default_axis(module: Module) -> int:
    """The axis of a layer's outputs."""
    return 1 if isinstance(module, (ConvTranspose1d, ConvTranspose2d)) else 0


def iterate(matrix: Tensor, u: Tensor, v: Tensor, times: int, eps: float, u_first: bool = True) -> None:
    """Steps of the power method, in place: u and v approach the greatest singular value's vectors."""
    with no_grad():
        matrix = matrix.detach()
        down, up = (u, v, matrix), (v, u, permute(matrix, 1, 0))
        for _ in range(times):
            for to, by, factor in (down, up) if u_first else (up, down):
                to.copy_(normalize(matmul(factor, by), dim=0, eps=eps))


def divided(weight: Tensor, dim: int, u: Tensor, v: Tensor) -> Tensor:
    """The weight over u . W v."""
    return div(weight, matmul(u.clone(), matmul(as_matrix(weight, dim), v.clone())))  # copies: the next step writes to u and v


def start(matrix: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Random vectors, 15 steps on."""
    u, v = (normalize(randn(n, dtype=matrix.dtype), dim=0, eps=eps) for n in matrix.shape)
    iterate(matrix, u, v, 15, eps)
    return u, v


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
                  dim: int | None = None) -> Module:
    """Makes a layer divide its weight by the weight's greatest singular value, which a step of the power method follows at every
    call in training.

    Parameters
    ----------
    module : Module
        A layer; its parameter `name` becomes `name`_orig, with the buffers `name`_u and `name`_v.
    name : str
        The parameter.
    n_power_iterations : int
        Steps of the power method at a call.
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
        If it has no such parameter, that has one axis, or a number does not fit.
    IndexError
        If that has no such axis.

    References
    ----------
    T. Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018.
    """
    a_module("spectral_norm", module)
    weight = module._parameters.get(name)
    if weight is None or weight.ndim < 2:
        raise ValueError(f"spectral_norm: name is {name!r}, but must be a parameter of {type(module).__name__} with two axes "
                         f"or more")
    steps, eps = whole("spectral_norm: n_power_iterations", n_power_iterations, 1), positive("spectral_norm: eps", eps)
    axis = _axis("spectral_norm", default_axis(module) if dim is None else dim, weight.ndim)
    u, v = start(as_matrix(weight.detach(), axis), eps)
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)

    def compute(layer: Module, inputs: Any) -> None:
        original, u, v = (getattr(layer, f"{name}_{part}") for part in ("orig", "u", "v"))
        if layer.training:
            iterate(as_matrix(original, axis), u, v, steps, eps, u_first=False)
        object.__setattr__(layer, name, divided(original, axis, u, v))

    object.__setattr__(module, name, divided(weight, axis, u, v))
    module.__dict__.setdefault("_spectral", {})[name] = (module.register_forward_pre_hook(compute), axis)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Undoes `spectral_norm`: the parameter keeps the value that it had last.

    Parameters
    ----------
    module : Module
        A layer that `spectral_norm` was given.
    name : str
        The parameter.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        If `spectral_norm` was not called on it.
    """
    a_module("remove_spectral_norm", module)
    handle, axis = module.__dict__.get("_spectral", {}).pop(name, (None, 0))
    if handle is None:
        raise ValueError(f"remove_spectral_norm: name is {name!r}, but spectral_norm was not called on it")
    handle.remove()
    with no_grad():
        value = divided(getattr(module, f"{name}_orig"), axis, getattr(module, f"{name}_u"),
                        getattr(module, f"{name}_v"))
    requires_grad = getattr(module, f"{name}_orig").requires_grad
    for part in ("orig", "u", "v"):
        delattr(module, f"{name}_{part}")
    object.__delattr__(module, name)
    setattr(module, name, Parameter(value, requires_grad))
    return module
