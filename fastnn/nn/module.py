"""Module: what every layer and network is; Parameter: what it learns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numpy as np

from .. import _core
from .._core import TensorBase, launch
from ..ops.create import as_tensor, empty
from ..tensor import Tensor, no_grad


class Parameter(Tensor):
    """A tensor that a module learns: assigned to a module's attribute, it appears in its ``parameters()``.

    Parameters
    ----------
    data : array_like
        The first values; a tensor shares its memory.
    requires_grad : bool
        Whether it is to be trained.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        self.set_data(as_tensor(data).detach())
        self.requires_grad = requires_grad

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def check_input(module: Module, x: Any, ranks: Container[int], layout: str) -> None:
    """Raises where a lazy module's first input is no tensor, or has another number of axes than the module takes.

    Parameters
    ----------
    module : Module
        Who asks, for the message.
    x : object
        The input.
    ranks : container of int
        Numbers of axes it may have.
    layout : str
        What it should look like.

    Raises
    ------
    TypeError
        If `x` is not a tensor.
    ValueError
        If it has another number of axes.
    """
    if not isinstance(x, TensorBase):
        raise TypeError(f"{type(module).__name__}: the input is a {type(x).__name__}, but must be a Tensor")
    if x.ndim not in ranks:
        raise ValueError(f"{type(module).__name__}: the input has shape {x.shape}, but must be {layout}")


class RemovableHandle:
    """What registering a hook returns; ``remove()`` takes the hook off again."""

    def __init__(self, hooks: dict, hook: Callable):
        self._hooks = hooks
        self._key = object()
        hooks[self._key] = hook
        _core.bump_settings()

    def remove(self) -> None:
        """Takes the hook off."""
        self._hooks.pop(self._key, None)
        _core.bump_settings()


class Module:
    """Base class of layers and networks, with PyTorch's names.

    A subclass calls ``super().__init__()``, assigns parameters and modules to attributes, and defines ``forward``.

    Attributes
    ----------
    training : bool
        Whether the module is in training mode (dropout drops, batch normalisation uses the batch's statistics).
    """

    training: bool
    _is_lazy = False  # set while parameters wait for the first input's shape; then `materialize(*inputs)` is called

    def __init__(self):
        self.__dict__.update(training=True, _parameters={}, _buffers={}, _modules={}, _forward_hooks={}, _forward_pre_hooks={})

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Computes the outputs; to be written by the subclass."""
        raise TypeError(f"{type(self).__name__} has no forward(): a Module subclass must define it")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        outer = _core.enter_layer(self)
        try:
            if self._forward_pre_hooks:
                for hook in tuple(self._forward_pre_hooks.values()):
                    changed = hook(self, inputs)
                    if changed is not None:
                        inputs = changed if isinstance(changed, tuple) else (changed,)
            if self._is_lazy:
                self.materialize(*inputs, **options)
            output = self.forward(*inputs, **options)
            if self._forward_hooks:
                for hook in tuple(self._forward_hooks.values()):
                    changed = hook(self, inputs, output)
                    if changed is not None:
                        output = changed
            return output
        finally:
            if outer is not None:
                _core.leave_layer(outer)

    def materialize(self, *inputs: Any, **options: Any) -> None:
        """Gives lazy parameters their shape; lazy layers define it."""
        raise TypeError(f"{type(self).__name__} has lazy parameters but no materialize()")

    # -- attributes: parameters, buffers and modules register themselves --

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}.__init__ must call super().__init__() before assigning attributes")
        kind = self._parameters if isinstance(value, Parameter) else self._modules if isinstance(value, Module) else None
        if kind is None and name in self._buffers and (value is None or isinstance(value, TensorBase)):
            kind = self._buffers
        elif kind is None and value is None and name in self._parameters:
            kind = self._parameters
        for registry in (self._parameters, self._buffers, self._modules):
            if registry is not kind:
                registry.pop(name, None)
        if kind is not None:
            kind[name] = value
        object.__setattr__(self, name, value)  # not __dict__: properties, and lazy layers that change their class

    def __delattr__(self, name: str) -> None:
        for registry in (self._parameters, self._buffers, self._modules):
            registry.pop(name, None)
        object.__delattr__(self, name)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Adds a parameter; None reserves the name (a layer without bias)."""
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(f"register_parameter: '{name}' is a {type(parameter).__name__}, but must be a Parameter or None")
        self._parameters[name] = parameter
        self.__dict__[name] = parameter

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Adds a tensor that is saved with the parameters but not trained (running statistics)."""
        if tensor is not None and not isinstance(tensor, TensorBase):
            raise TypeError(f"register_buffer: '{name}' is a {type(tensor).__name__}, but must be a Tensor or None")
        self._buffers[name] = tensor
        self.__dict__[name] = tensor

    def add_module(self, name: str, module: Module) -> None:
        """Adds a sub-module under a name."""
        if not isinstance(module, Module):
            raise TypeError(f"add_module: '{name}' is a {type(module).__name__}, but must be a Module")
        if not name or "." in name:
            raise ValueError(f"add_module: name is {name!r}, but must be non-empty and hold no dot")
        setattr(self, name, module)

    # -- walking the tree; what appears twice (tied parameters, shared modules) is met once --

    def named_modules(self, prefix: str = "", memo: set | None = None) -> Iterator[tuple[str, Module]]:
        """This module and all below it, with dotted names."""
        memo = set() if memo is None else memo
        if id(self) in memo:
            return
        memo.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(f"{prefix}.{name}" if prefix else name, memo)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, with their names."""
        return ((name, module) for name, module in self._modules.items() if module is not None)

    def children(self) -> Iterator[Module]:
        """The modules directly below this one."""
        return (module for _, module in self.named_children())

    def _named(self, registry: str, prefix: str, once: bool = True) -> Iterator[tuple[str, Tensor]]:
        memo: set[int] = set()
        for path, module in self.named_modules(prefix):
            for name, value in getattr(module, registry).items():
                if value is None or once and id(value) in memo:
                    continue
                memo.add(id(value))
                yield f"{path}.{name}" if path else name, value

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """All parameters with dotted names; a tied one under its first name only."""
        return self._named("_parameters", prefix)

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """All buffers with dotted names."""
        return self._named("_buffers", prefix)

    def buffers(self) -> Iterator[Tensor]:
        """All buffers."""
        return (buffer for _, buffer in self.named_buffers())

    def get_submodule(self, target: str) -> Module:
        """The module with a dotted name."""
        module = self
        for name in target.split(".") if target else ():
            if name not in module._modules:
                raise AttributeError(f"{type(module).__name__} has no sub-module '{name}' (of '{target}')")
            module = module._modules[name]
        return module

    def apply(self, function: Callable[[Module], Any]) -> Module:
        """Calls `function` on every module below, then on this one; returns this module."""
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    # -- modes --

    def train(self, mode: bool = True) -> Module:
        """Switches to training mode (or, with False, to evaluation mode) throughout; returns the module."""
        for module in self.modules():
            module.set_training(mode)
        return self

    def set_training(self, mode: bool) -> None:
        """Switches this module alone, not those in it."""
        if self.training != bool(mode):
            self.__dict__["training"] = bool(mode)
            _core.toggle_setting(self)

    def eval(self) -> Module:
        """Switches to evaluation mode throughout; returns the module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Freezes (False) or unfreezes all parameters; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets all gradients, or (set_to_none=False) fills them with zeros."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def to(self, dtype: Any) -> Module:
        """Makes all parameters and floating buffers `dtype`, float32 or float64; returns the module."""
        if not _core.as_dtype(dtype).is_floating:
            raise TypeError(f"to: dtype is {dtype!r}, but a module's must be float32 or float64")
        with no_grad():
            for tensor in (*self.parameters(), *self.buffers()):
                if tensor.is_floating_point():
                    tensor.set_data(launch.copy(tensor, dtype=_core.as_dtype(dtype).code))
        return self

    def float(self) -> Module:
        """Makes all parameters and floating buffers float32; returns the module."""
        return self.to("float32")

    def double(self) -> Module:
        """Makes all parameters and floating buffers float64; returns the module."""
        return self.to("float64")

    # -- state --

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and buffers under PyTorch's names, off the tape, sharing memory; a tied parameter appears once."""
        state = OrderedDict()
        memo: set[int] = set()
        for path, module in self.named_modules():
            for registry in (module._parameters, module._buffers):
                for name, value in registry.items():
                    if value is None or id(value) in memo:
                        continue
                    memo.add(id(value))
                    state[f"{prefix}{path}.{name}" if path else f"{prefix}{name}"] = value.detach()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Copies values into this module's parameters and buffers, in place; all or nothing.

        Parameters
        ----------
        state_dict : mapping of str to Tensor or numpy.ndarray
            As `state_dict` gives it; names and layouts are PyTorch's.
        strict : bool
            Whether every name must be on both sides.

        Raises
        ------
        KeyError
            If names are missing or unknown (when strict); the message lists them.
        ValueError
            If a value's shape differs; the message lists all of them.
        """
        own = {name: value for registry in ("_parameters", "_buffers") for name, value in self._named(registry, "", once=False)}
        first: dict[int, str] = {}
        for name, value in own.items():
            first.setdefault(id(value), name)
        missing = [name for name, value in own.items() if name not in state_dict and first[id(value)] == name]
        unknown = [name for name in state_dict if name not in own]
        if strict and (missing or unknown):
            raise KeyError(f"load_state_dict: missing {missing}, unknown {unknown} in {type(self).__name__}")
        pairs = [(own[name], _as_value(name, value)) for name, value in state_dict.items() if name in own]
        lazy = {id(p) for m in self.modules() if m._is_lazy for p in m._parameters.values()}
        lazy |= {id(b) for m in self.modules() if m._is_lazy for b in m._buffers.values()}
        wrong = [f"'{name}' is {tuple(value.shape)}, the model's is {own[name].shape}" for name, value in state_dict.items()
                 if name in own and tuple(np.shape(value)) != own[name].shape and id(own[name]) not in lazy]
        if wrong:
            raise ValueError(f"load_state_dict: shapes differ in {type(self).__name__}: {'; '.join(wrong)}")
        with no_grad():
            for target, value in pairs:
                if target.shape != value.shape:
                    target.set_data(empty(value.shape, dtype=target.dtype))
                target.copy_(value)
        for module in self.modules():
            if module._is_lazy and all(p is None or p.numel() for p in module._parameters.values()):
                module.loaded()

    def loaded(self) -> None:
        """Called on a lazy module whose parameters came from a state dict; lazy layers define it."""
        raise TypeError(f"{type(self).__name__} has lazy parameters but no loaded()")

    # -- hooks --

    def register_forward_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(module, inputs, output)`` after every forward; what it returns, if not None, replaces the output."""
        return RemovableHandle(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(module, inputs)`` before every forward; what it returns, if not None, replaces the inputs."""
        return RemovableHandle(self._forward_pre_hooks, hook)

    # -- text --

    def extra_repr(self) -> str:
        """What stands between the brackets of a layer's text."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()]
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = ([self.extra_repr()] if self.extra_repr() else []) + children
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def _as_value(name: str, value: Any) -> Tensor:
    try:
        return as_tensor(value if isinstance(value, TensorBase) else np.asarray(value)).detach()
    except TypeError as error:
        raise TypeError(f"load_state_dict: '{name}': {error}") from None
