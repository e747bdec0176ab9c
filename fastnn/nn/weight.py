"""Layers around a layer's weight: its norm apart from its direction, and weights that are dropped."""

from __future__ import annotations

from typing import Any

from ..checks import integer, real
from ..ops.dropout import dropout
from ..ops.math import div, mul, sqrt, square
from ..ops.reduce import sum as sum_over
from ..tensor import Tensor, no_grad
from .module import Module, Parameter, a_module

__all__ = ["DropConnect", "WeightNorm", "norms", "remove_weight_norm", "weight_norm"]


def norms(v: Tensor, dim: int | None) -> Tensor:
    """The norm of each slice of `v` along `dim`, with v's rank; of all of it without one."""
    axes = tuple(d for d in range(v.ndim) if d != dim)
    return sqrt(sum_over(square(v), axes, keepdim=True)) if dim is not None or v.ndim else v


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Makes a layer learn norm and direction of its weight apart: w = g v / |v|.

    Parameters
    ----------
    module : Module
        A layer; its parameter `name` becomes `name`_g and `name`_v.
    name : str
        The parameter.
    dim : int, optional
        The axis whose slices have a norm each; None: one for all.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        If it has no such parameter or axis.

    References
    ----------
    T. Salimans and D. P. Kingma, "Weight normalization: a simple reparameterization to accelerate training of deep
    neural networks", NeurIPS 2016.
    """
    a_module("weight_norm", module)
    weight = module._parameters.get(name)
    if weight is None:
        raise ValueError(f"weight_norm: name is {name!r}, but must be a parameter of {type(module).__name__}: "
                         f"{', '.join(module._parameters)}")
    if dim is not None and not -weight.ndim <= integer("weight_norm", "dim", dim) < weight.ndim:
        raise ValueError(f"weight_norm: dim is {dim}, but {name} has {weight.ndim} axes")
    axis = None if dim is None else dim % weight.ndim
    with no_grad():
        g = norms(weight.detach(), axis)
        g = g.reshape(()) if axis is None else g
    delattr(module, name)
    module.register_parameter(f"{name}_g", Parameter(g.clone()))
    module.register_parameter(f"{name}_v", Parameter(weight.detach().clone()))

    def compute(layer: Module, inputs: Any) -> None:
        v = getattr(layer, f"{name}_v")
        object.__setattr__(layer, name, mul(v, div(getattr(layer, f"{name}_g"), norms(v, axis))))

    compute(module, ())
    module.__dict__.setdefault("_norms", {})[name] = (module.register_forward_pre_hook(compute), compute)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Undoes `weight_norm`: the parameter has the value that g and v give.

    Parameters
    ----------
    module : Module
        A layer that `weight_norm` was given.
    name : str
        The parameter.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        If `weight_norm` was not called on it.
    """
    a_module("remove_weight_norm", module)
    handle, compute = module.__dict__.get("_norms", {}).pop(name, (None, None))
    if handle is None:
        raise ValueError(f"remove_weight_norm: name is {name!r}, but weight_norm was not called on it")
    handle.remove()
    with no_grad():
        compute(module, ())
    value = getattr(module, name)
    for part in ("g", "v"):
        delattr(module, f"{name}_{part}")
    object.__delattr__(module, name)
    setattr(module, name, Parameter(value))
    return module


class WeightNorm(Module):
    """A layer whose weight's norm and direction are learned apart; see `weight_norm`.

    Parameters
    ----------
    module : Module
        The layer.
    name : str
        Its parameter.
    dim : int, optional
        The axis whose slices have a norm each; None: one for all.
    """

    def __init__(self, module: Module, name: str = "weight", dim: int | None = 0):
        super().__init__()
        self.module = weight_norm(module, name, dim)

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)


class DropConnect(Module):
    """A layer whose weights are set to 0 with probability `p`, anew at every call, in training; others grow by 1 / (1
    - p).

    Parameters
    ----------
    module : Module
        The layer.
    p : float
        Probability of dropping a weight.
    name : str
        The parameter that is dropped.

    Raises
    ------
    ValueError
        If `p` is not a probability or there is no such parameter.

    References
    ----------
    L. Wan et al., "Regularization of neural networks using DropConnect", ICML 2013.
    """

    def __init__(self, module: Module, p: float = 0.5, name: str = "weight"):
        super().__init__()
        p = real("DropConnect: p", p, 0, 1)
        a_module("DropConnect", module)
        if module._parameters.get(name) is None:
            raise ValueError(f"DropConnect: name is {name!r}, but must be a parameter of {type(module).__name__}")
        self.module, self.p, self.name = module, p, name

    def forward(self, *inputs: Any) -> Any:
        if not self.training or self.p == 0:
            return self.module(*inputs)
        places = self.module.__dict__
        weight = places[self.name]
        places[self.name] = dropout(weight, self.p)  # for this call; the parameter stays registered
        try:
            return self.module(*inputs)
        finally:
            places[self.name] = weight

    def extra_repr(self) -> str:
        return f"p={self.p}, name={self.name!r}"
