"""Parameters that are computed from others whenever they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._core import TensorBase, bump_settings
from ...tensor import Tensor, no_grad
from ..container import ModuleList, ModuleDict
from ..module import Module, Parameter

__all__ = ["ParametrizationList", "is_parametrized", "register_parametrization", "remove_parametrizations"]


class ParametrizationList(ModuleList):
    """What one tensor is computed by, and from: ``original``, or ``original0``, ``original1``, ...

    Parameters
    ----------
    modules : sequence of Module
        Applied one after the other. One that has ``right_inverse`` says with it what gives a value.
    original : Tensor
        The tensor's value so far.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor):
        super().__init__(modules)
        with no_grad():
            value: Any = original
            for module in reversed(list(modules)):
                if hasattr(module, "right_inverse"):
                    value = module.right_inverse(value)
        self.is_tensor = isinstance(value, TensorBase)
        self.ntensors = 1 if self.is_tensor else len(value)
        if not self.is_tensor:
            for k, part in enumerate(value):
                setattr(self, f"original{k}", Parameter(part.detach().clone(), original.requires_grad))
        elif isinstance(original, Parameter):
            original.set_data(value.detach().clone())  # it stays the object that optimisers know
            self.original = original
        else:
            self.register_buffer("original", value)

    def forward(self) -> Tensor:
        """The tensor's present value."""
        originals = (self.original,) if self.is_tensor else tuple(getattr(self, f"original{k}") for k in range(self.ntensors))
        value = self[0](*originals)
        for k in range(1, len(self)):
            value = self[k](value)
        return value


def _computed(name: str) -> property:
    """An attribute that its parametrizations compute."""
    def value(module: Module) -> Tensor:
        return module.parametrizations[name]()

    def put(module: Module, new: Tensor) -> None:
        raise AttributeError(f"{type(module).__name__}.{name} is computed: write to module.parametrizations.{name}, or remove "
                             f"them first")

    return property(value, put)


def _set_class(module: Module) -> None:
    """Gives a module a class of its own, which computes what it has parametrizations of: copies of it share the class."""
    plain = getattr(type(module), "_plain", type(module))
    computed = {name: _computed(name) for name in module.parametrizations}
    module.__class__ = type(f"Parametrized{plain.__name__}", (plain,), {"_plain": plain, **computed}) if computed else plain


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module computes one of its tensors, or the one of a given name, by parametrizations."""
    found = module._modules.get("parametrizations")
    return found is not None and (len(found) > 0 if tensor_name is None else tensor_name in found)


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> Module:
    """Has a module compute a parameter or buffer by another module, from what takes the parameter's place.

    Parameters
    ----------
    module : Module
        Its class becomes ``Parametrized<its name>``.
    tensor_name : str
        The parameter or buffer. What it is computed from is ``module.parametrizations.<tensor_name>.original``.
    parametrization : Module
        From the original to the tensor; behind those that are there already.
    unsafe : bool
        Whether it may change shape or type.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        If there is no such parameter or buffer, or its shape or type would change.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        _check(tensor_name, getattr(module, tensor_name), parametrization(getattr(module, tensor_name)), unsafe)
        module.parametrizations[tensor_name].append(parametrization)
        bump_settings()
        return module
    original = module._parameters.get(tensor_name)
    original = module._buffers.get(tensor_name) if original is None else original
    if original is None:
        raise ValueError(f"register_parametrization: tensor_name is {tensor_name!r}, but must be a parameter or buffer of "
                         f"{type(module).__name__}: {', '.join([*module._parameters, *module._buffers])}")
    before = original.detach().clone()
    parts = ParametrizationList([parametrization], original)
    try:
        _check(tensor_name, before, parts(), unsafe)
    except BaseException:
        if parts.is_tensor and isinstance(original, Parameter):
            original.set_data(before)
        raise
    delattr(module, tensor_name)
    if "parametrizations" not in module._modules:
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = parts
    _set_class(module)
    bump_settings()
    return module


def _check(name: str, before: Tensor, after: Tensor, unsafe: bool) -> None:
    if not unsafe and (after.shape != before.shape or after.dtype is not before.dtype):
        raise ValueError(f"register_parametrization: {name} is {before.dtype} {before.shape}, but would become {after.dtype} "
                         f"{after.shape}; "
                         "unsafe=True allows that")


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Takes all parametrizations of a tensor off again.

    Parameters
    ----------
    module : Module
        The module.
    tensor_name : str
        The tensor.
    leave_parametrized : bool
        Whether the tensor keeps the value that was computed, or becomes the original one.

    Returns
    -------
    Module
        `module`.

    Raises
    ------
    ValueError
        If the tensor is not parametrized, or is to become one of several originals.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"remove_parametrizations: tensor_name is {tensor_name!r}, which is not parametrized")
    parts = module.parametrizations[tensor_name]
    if not leave_parametrized and not parts.is_tensor:
        raise ValueError("remove_parametrizations: leave_parametrized is False, but there are several originals")
    with no_grad():
        value = parts() if leave_parametrized else parts.original
    first = parts.original if parts.is_tensor else parts.original0
    if parts.is_tensor and leave_parametrized:
        requires_grad = first.requires_grad
        first.set_data(value.detach().clone())
        first.requires_grad = requires_grad
        value = first
    elif leave_parametrized:
        value = Parameter(value, first.requires_grad)
    del module.parametrizations[tensor_name]
    _set_class(module)
    if not len(module.parametrizations):
        del module.parametrizations
    if isinstance(value, Parameter):
        setattr(module, tensor_name, value)
    else:
        module.register_buffer(tensor_name, value)
    bump_settings()
    return module
