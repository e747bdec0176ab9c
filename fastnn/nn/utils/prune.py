"""Pruning: weights that a mask holds at 0, under PyTorch's names.

The parameter ``weight`` becomes ``weight_orig``, beside it there is the buffer ``weight_mask``, and at every call the layer's
``weight`` is their product. What is pruned already counts as gone: a second call takes its share of the rest.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ...checks import a_tensor, shown
from ...ops.create import ones_like
from ...ops.math import abs, mul, ne, where
from ...ops.order import topk
from ...ops.reduce import any as any_over
from ...ops.shape import _axis, flatten, reshape, to
from ...ops.slices import cat, split
from ...ops.vector_norm import norm
from ...random import rand, rand_like
from ...tensor import Tensor, no_grad
from ..module import Module, a_module

__all__ = ["L1Unstructured", "RandomUnstructured", "custom_from_mask", "global_unstructured", "identity", "is_pruned",
           "l1_unstructured", "ln_structured", "random_structured", "random_unstructured", "remove"]


def _parameter(caller: str, module: Module, name: str) -> Tensor:
    """The parameter to prune: `name`, or what `name` was made from."""
    for there in (name, f"{name}_orig"):
        if a_module(caller, module)._parameters.get(there) is not None:
            return module._parameters[there]
    raise ValueError(f"{caller}: name is {name!r}, but must be a parameter of {type(module).__name__}")


def _mask(module: Module, name: str) -> Tensor:
    """What is left of a parameter so far: 1 and 0."""
    kept = module._buffers.get(f"{name}_mask")
    return ones_like(module._parameters[name].detach()) if kept is None else kept


def _count(caller: str, amount: Any, size: int) -> int:
    """How many of `size` are to go."""
    if isinstance(amount, numbers.Integral) and not isinstance(amount, bool) and 0 <= amount <= size:
        return int(amount)
    if isinstance(amount, (float, np.floating)) and 0 <= amount <= 1:
        return round(float(amount) * size)
    raise ValueError(f"{caller}: amount is {amount!r}, but must be a share from 0.0 to 1.0, or a number of at most {size}")


def _without_least(caller: str, scores: Tensor, left: Tensor, amount: Any) -> Tensor:
    """`left`, a bool vector, without those `amount` that have the least scores."""
    gone = topk(where(left, scores, float("inf")), _count(caller, amount, int(left.sum())), largest=False).indices
    left = left.clone()
    left[gone] = False
    return left


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Holds those elements of a parameter at 0 where a mask is 0.

    Parameters
    ----------
    module : Module
        A layer.
    name : str
        The parameter; it becomes `name`_orig, with the buffer `name`_mask.
    mask : Tensor
        Of the parameter's shape; anything else than 0 keeps an element, where an earlier mask has kept it.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        If there is no such parameter, or shapes differ.
    """
    weight = _parameter("custom_from_mask", module, name)
    if a_tensor("custom_from_mask", mask, "mask").shape != weight.shape:
        raise ValueError(f"custom_from_mask: mask has shape {mask.shape}, but {name} has {weight.shape}")
    with no_grad():
        kept = mul(_mask(module, name), to(ne(mask.detach(), 0), weight.dtype))
    if name in module._parameters:
        delattr(module, name)
        module.register_parameter(f"{name}_orig", weight)
        module.__dict__.setdefault("_pruned", {})[name] = module.register_forward_pre_hook(_masking(name))
    module.register_buffer(f"{name}_mask", kept)
    _masking(name)(module, ())
    return module


def _masking(name: str) -> Callable[[Module, Any], None]:
    """What makes a layer's weight anew at every call."""

    def compute(layer: Module, inputs: Any) -> None:
        object.__setattr__(layer, name, mul(getattr(layer, f"{name}_orig"), getattr(layer, f"{name}_mask")))

    return compute


def identity(module: Module, name: str) -> Module:
    """Prunes nothing, but makes `name`_orig and `name`_mask; parameters as `custom_from_mask`."""
    return custom_from_mask(module, name, ones_like(_parameter("identity", module, name).detach()))


def l1_unstructured(module: Module, name: str, amount: float, importance_scores: Tensor | None = None) -> Module:
    """Prunes the elements of least magnitude.

    Parameters
    ----------
    module : Module
        A layer.
    name : str
        The parameter.
    amount : float or int
        A share of the elements that are left, or how many.
    importance_scores : Tensor, optional
        Of the parameter's shape: those of least magnitude are taken instead.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        If there is no such parameter, shapes differ, or `amount` is out of range.

    References
    ----------
    Han et al., "Learning both weights and connections for efficient neural networks", NeurIPS 2015.
    """
    return _prune_elements("l1_unstructured", module, name, L1Unstructured, amount, importance_scores)


def random_unstructured(module: Module, name: str, amount: float) -> Module:
    """Prunes elements at random; parameters as `l1_unstructured`."""
    return _prune_elements("random_unstructured", module, name, RandomUnstructured, amount)


def _prune_elements(caller: str, module: Module, name: str, score: Callable[[Tensor], Tensor], amount: Any,
                    given: Tensor | None = None) -> Module:
    _prune_together(caller, [(module, name)], score, {} if given is None else {(module, name): given}, amount)
    return module


def ln_structured(module: Module, name: str, amount: float, n: float, dim: int, importance_scores: Tensor | None = None) -> Module:
    """Prunes whole slices of a parameter, as channels are, those of the least norm.

    Parameters
    ----------
    module : Module
        A layer.
    name : str
        The parameter, of two axes or more.
    amount : float or int
        A share of the slices that are left, or how many.
    n : float
        Which norm; see `fastnn.norm`.
    dim : int
        The axis along which slices are counted: 0 for the units or channels that a layer gives.
    importance_scores : Tensor, optional
        Of the parameter's shape: their norms decide instead.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        If there is no such parameter, it has one axis, shapes differ, or a number is out of range.
    IndexError
        If there is no such axis.
    """
    weight = _parameter("ln_structured", module, name)
    scores = _scores("ln_structured", weight, importance_scores)
    axis = _slices_axis("ln_structured", weight, dim)
    return _prune_slices("ln_structured", module, name, amount, axis, norm(scores, n, _others(weight, axis)))


def random_structured(module: Module, name: str, amount: float, dim: int) -> Module:
    """Prunes whole slices of a parameter at random; parameters as `ln_structured`."""
    weight = _parameter("random_structured", module, name)
    axis = _slices_axis("random_structured", weight, dim)
    return _prune_slices("random_structured", module, name, amount, axis, rand(weight.shape[axis]))


def _slices_axis(caller: str, weight: Tensor, dim: int) -> int:
    if weight.ndim < 2:
        raise ValueError(f"{caller}: the parameter has shape {weight.shape}, but must have two axes or more")
    return _axis(caller, dim, weight.ndim)


def _others(weight: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(d for d in range(weight.ndim) if d != axis)


def _scores(caller: str, weight: Tensor, given: Tensor | None) -> Tensor:
    if given is not None and a_tensor(caller, given, "importance_scores").shape != weight.shape:
        raise ValueError(f"{caller}: importance_scores has shape {given.shape}, but the parameter has {weight.shape}")
    return (weight if given is None else given).detach()


def _prune_slices(caller: str, module: Module, name: str, amount: Any, axis: int, scores: Tensor) -> Module:
    weight = _parameter(caller, module, name)
    left = any_over(_mask(module, name), _others(weight, axis))
    left = _without_least(caller, scores, left, amount)
    along = [-1 if d == axis else 1 for d in range(weight.ndim)]
    return custom_from_mask(module, name, mul(ones_like(weight.detach()), to(reshape(left, along), weight.dtype)))


def L1Unstructured(weight: Tensor) -> Tensor:
    """For `global_unstructured`: elements are scored by their magnitudes."""
    return abs(weight)


def RandomUnstructured(weight: Tensor) -> Tensor:
    """For `global_unstructured`: elements are scored at random."""
    return rand_like(weight)


def global_unstructured(parameters: Iterable[tuple[Module, str]], pruning_method: Callable[[Tensor], Tensor],
                        importance_scores: Mapping[tuple[Module, str], Tensor] | None = None, *, amount: float) -> None:
    """Prunes the elements of the least scores of several layers together.

    Parameters
    ----------
    parameters : iterable of (Module, str)
        Layers and the names of their parameters.
    pruning_method : callable
        `L1Unstructured`, `RandomUnstructured`, or what else gives the scores of a parameter.
    importance_scores : mapping, optional
        From (Module, str) to a tensor of the parameter's shape, which is scored in its place.
    amount : float or int
        A share of all elements that are left, or how many.

    Raises
    ------
    ValueError
        If there is no parameter, none of such a name, shapes differ, or `amount` is out of range.
    TypeError
        If `parameters` holds something else, or `pruning_method` is no function of a parameter.
    """
    places = list(parameters)
    if not all(isinstance(place, (tuple, list)) and len(place) == 2 for place in places):
        raise TypeError(f"global_unstructured: parameters is {shown(places)}, but must hold (module, name)")
    if not places:
        raise ValueError("global_unstructured: parameters is empty, but must hold (module, name)")
    if not callable(pruning_method):
        raise TypeError(f"global_unstructured: pruning_method is {pruning_method!r}, but must be L1Unstructured, RandomUnstructured or "
                        "a function that scores a parameter")
    _prune_together("global_unstructured", [tuple(place) for place in places], pruning_method, importance_scores or {}, amount)


def _prune_together(caller: str, places: list[tuple[Module, str]], score: Callable[[Tensor], Tensor],
                    given: Mapping[tuple[Module, str], Tensor], amount: Any) -> None:
    weights = [_parameter(caller, *place) for place in places]
    with no_grad():
        scores = [score(_scores(caller, w, given.get(p))) for p, w in zip(places, weights)]
        for found, weight in zip(scores, weights):
            if a_tensor(caller, found, "what pruning_method returns").shape != weight.shape:
                raise ValueError(f"{caller}: pruning_method returns shape {found.shape} for a parameter of {weight.shape}, but must give "
                                 "every element a score")
        left = cat([flatten(ne(_mask(*place), 0)) for place in places])
        left = _without_least(caller, cat([flatten(found) for found in scores]), left, amount)
    for place, weight, part in zip(places, weights, split(left, [w.numel() for w in weights])):
        custom_from_mask(*place, reshape(part, weight.shape))


def is_pruned(module: Module) -> bool:
    """Whether a parameter of a module, or of one in it, is pruned.

    Parameters
    ----------
    module : Module
        What is asked about.

    Returns
    -------
    bool
    """
    return any(layer.__dict__.get("_pruned") for layer in a_module("is_pruned", module).modules())


def remove(module: Module, name: str) -> Module:
    """Makes pruning lasting: the parameter has its name again, with zeros in it that training may change.

    Parameters
    ----------
    module : Module
        A layer.
    name : str
        The parameter.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        If it is not pruned.
    """
    handle = a_module("remove", module).__dict__.get("_pruned", {}).pop(name, None)
    if handle is None:
        raise ValueError(f"remove: name is {name!r}, but no such parameter of {type(module).__name__} is pruned")
    handle.remove()
    weight = module._parameters[f"{name}_orig"]
    with no_grad():
        weight.copy_(mul(weight, getattr(module, f"{name}_mask")))
    for part in (f"{name}_orig", f"{name}_mask"):
        delattr(module, part)
    object.__delattr__(module, name)
    setattr(module, name, weight)
    return module
