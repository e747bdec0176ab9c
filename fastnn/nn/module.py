"""Module: what every layer and network is; Parameter: what it learns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterator
from typing import Any

from .. import _core
from .._core import TensorBase, launch
from ..checks import shown
from ..ops.create import as_tensor
from ..ops.layout import format_wanted
from ..ops.shape import type_wanted
from ..tensor import Tensor, no_grad
from .hooks import Hook, RemovableHandle, call_hooked
from .state import Stateful


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


class Buffer(Tensor):
    """A tensor that a module keeps but does not learn: assigned to a module's attribute, it appears in its ``buffers()``.

    Parameters
    ----------
    data : array_like
        The first values; a tensor shares its memory.
    persistent : bool
        Whether it is part of the state dict.
    """

    __slots__ = ("persistent",)

    def __init__(self, data: Any, *, persistent: bool = True):
        self.set_data(as_tensor(data).detach())
        self.persistent = persistent

    def __repr__(self) -> str:
        return f"Buffer containing:\n{super().__repr__()}"


_ABSENT = object()


_PLAIN = bool, int, float, str


def _is_other(before: Any, value: Any) -> bool:
    """Whether an attribute that becomes `value` may change what a step computes: one that was absent is read by nobody, unless it is
    a parameter or module that containers go through."""
    if before is _ABSENT:
        return isinstance(value, (Parameter, Module))
    if isinstance(value, _PLAIN):
        return type(before) is not type(value) or repr(before) != repr(value)  # 0 and -0 are equal, but not the same
    return before is not value


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


def a_module(name: str, value: Any, argument: str = "module") -> Module:
    """`value`, which must be a module; `name` is who asks, for messages."""
    if isinstance(value, Module):
        return value
    raise TypeError(f"{name}: {argument} is a {type(value).__name__}, but must be a Module")


def _refuse_no_tensor(module: Module, inputs: tuple, options: dict[str, Any], error: AttributeError) -> None:
    """Raises where forward failed because one of its inputs, asked for what tensors have, is none."""
    if not hasattr(Tensor, error.name or ""):
        return
    for name, x in inspect.signature(module.forward).bind(*inputs, **options).arguments.items():
        if x is error.obj and not isinstance(x, TensorBase):
            raise TypeError(f"{type(module).__name__}: {name} is a {type(x).__name__}, but must be a Tensor") from None


class Module(Stateful):
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
        self.__dict__.update(training=True, _parameters={}, _buffers={}, _modules={}, _hooks={}, _state_hooks={}, _not_saved=set())

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Computes the outputs; to be written by the subclass."""
        raise TypeError(f"{type(self).__name__} has no forward(): a Module subclass must define it")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        outer = _core.enter_layer(self)
        try:
            return call_hooked(self, inputs, options) if self._hooks else self.run_forward(*inputs, **options)
        except AttributeError as error:
            _refuse_no_tensor(self, inputs, options, error)
            raise
        finally:
            _core.leave_layer(outer)

    def run_forward(self, *inputs: Any, **options: Any) -> Any:
        """Forward without hooks; a lazy module takes its shapes from the inputs first."""
        if self._is_lazy:
            self.materialize(*inputs, **options)
        return self.forward(*inputs, **options)

    def materialize(self, *inputs: Any, **options: Any) -> None:
        """Gives lazy parameters their shape; lazy layers define it."""
        raise TypeError(f"{type(self).__name__} has lazy parameters but no materialize()")

    # -- attributes: parameters, buffers and modules register themselves --

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}.__init__ must call super().__init__() before assigning attributes")
        if name == "training":
            self.set_training(value)
            return
        if _is_other(self.__dict__.get(name, getattr(type(self), name, _ABSENT)), value):
            is_counted = isinstance(value, _PLAIN) and not self._is_lazy
            _core.note_change(f"{type(self).__name__}.{name}" if is_counted else None)
        if isinstance(value, Buffer):
            if name not in self._buffers and name in self.__dict__:
                delattr(self, name)  # what was there, of another kind, gives way
            self.register_buffer(name, value, value.persistent)
        kind = self._parameters if isinstance(value, Parameter) else self._modules if isinstance(value, Module) else None
        if kind is None and name in self._buffers and (value is None or isinstance(value, TensorBase)):
            kind = self._buffers
        elif kind is None and value is None and name in self._parameters:
            kind = self._parameters
        for registry in (self._parameters, self._buffers, self._modules):
            if registry is not kind:
                registry.pop(name, None)
        if kind is not self._buffers:
            self._not_saved.discard(name)
        if kind is not None:
            kind[name] = value
        object.__setattr__(self, name, value)  # not __dict__: properties, and lazy layers that change their class

    def __delattr__(self, name: str) -> None:
        _core.note_change()
        for registry in (self._parameters, self._buffers, self._modules):
            registry.pop(name, None)
        self._not_saved.discard(name)
        object.__delattr__(self, name)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles are made of. What the layer computed, such as `weight_norm`'s weight, which the next call computes
        anew, is there as a value, without its graph."""
        return {name: value.detach() if isinstance(value, TensorBase) and value.grad_fn is not None else value
                for name, value in self.__dict__.items()}

    def _claim(self, registry: dict[str, Any], caller: str, name: Any) -> None:
        """Raises where `name` cannot be one of `registry`: it makes no dotted name, or is an attribute of another kind."""
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"{caller}: name is {name!r}, but must be a text that is not empty and holds no dot")
        if name not in registry and hasattr(self, name):
            raise ValueError(f"{caller}: name is {name!r}, but {type(self).__name__} has an attribute of this name already")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter; None reserves the name (a layer without bias)."""
        self._claim(self._parameters, "register_parameter", name)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"register_parameter: '{name}' is a {type(param).__name__}, but must be a Parameter or None")
        if _is_other(self.__dict__.get(name, _ABSENT), param):
            _core.note_change()
        self._parameters[name] = param
        self.__dict__[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is not trained (running statistics).

        Parameters
        ----------
        name : str
            The attribute's name.
        tensor : Tensor or None
            The buffer; None reserves the name.
        persistent : bool
            Whether it is part of the state dict.

        Raises
        ------
        TypeError
            If `tensor` is neither a tensor nor None.
        ValueError
            If the name is empty, holds a dot, or is another attribute's.
        """
        self._claim(self._buffers, "register_buffer", name)
        if tensor is not None and not isinstance(tensor, TensorBase):
            raise TypeError(f"register_buffer: '{name}' is a {type(tensor).__name__}, but must be a Tensor or None")
        if _is_other(self.__dict__.get(name, _ABSENT), tensor):
            _core.note_change()
        self._buffers[name] = tensor
        self.__dict__[name] = tensor
        (self._not_saved.discard if persistent else self._not_saved.add)(name)

    def add_module(self, name: str, module: Module) -> None:
        """Adds a sub-module under a name."""
        if not isinstance(module, Module):
            raise TypeError(f"add_module: '{name}' is a {type(module).__name__}, but must be a Module")
        self._claim(self._modules, "add_module", name)
        setattr(self, name, module)

    def register_module(self, name: str, module: Module) -> None:
        """Adds a sub-module under a name; another name of `add_module`."""
        self.add_module(name, module)

    # -- walking the tree; what appears twice (tied parameters, shared modules) is met once, unless asked otherwise --

    def named_modules(self, memo: set | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all below it, with dotted names.

        Parameters
        ----------
        memo : set, optional
            Modules that were met already; those found are added.
        prefix : str
            What names begin with.
        remove_duplicate : bool
            Whether a module met twice is given once.
        """
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules(remove_duplicate=remove_duplicate))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, with their names."""
        return ((name, module) for name, module in self._modules.items() if module is not None)

    def children(self) -> Iterator[Module]:
        """The modules directly below this one."""
        return (module for _, module in self.named_children())

    def _named(self, registry: str, prefix: str, recurse: bool, once: bool) -> Iterator[tuple[str, Tensor]]:
        memo: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=once) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, value in getattr(module, registry).items():
                if value is None or once and id(value) in memo:
                    continue
                memo.add(id(value))
                yield f"{path}.{name}" if path else name, value

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """All parameters with dotted names.

        Parameters
        ----------
        prefix : str
            What names begin with.
        recurse : bool
            Whether those of the modules below are among them.
        remove_duplicate : bool
            Whether a tied parameter is given under its first name only.
        """
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once; without `recurse` this module's own."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """All buffers with dotted names; see `named_parameters`."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers; without `recurse` this module's own."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module with a dotted name."""
        if not isinstance(target, str):
            raise TypeError(f"get_submodule: target is {target!r}, but must be a dotted name")
        module = self
        for name in target.split(".") if target else ():
            if module._modules.get(name) is None:
                raise AttributeError(f"{type(module).__name__} has no sub-module '{name}' (of '{target}')")
            module = module._modules[name]
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts a module where the one with a dotted name was, or, unless `strict`, where there was none."""
        path, _, name = target.rpartition(".")
        if strict:
            self.get_submodule(target)
        self.get_submodule(path).add_module(name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with a dotted name."""
        return self._found("_parameters", "parameter", target)

    def get_buffer(self, target: str) -> Tensor:
        """The buffer with a dotted name."""
        return self._found("_buffers", "buffer", target)

    def _found(self, registry: str, kind: str, target: str) -> Tensor:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        value = getattr(module, registry).get(name)
        if value is None:
            raise AttributeError(f"{type(module).__name__} has no {kind} '{name}'" + (f" (of '{target}')" if path else ""))
        return value

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Calls `fn` on every module below, then on this one; returns this module."""
        if not callable(fn):
            raise TypeError(f"apply: fn is {shown(fn)}, but must be callable")
        for module in self.children():
            module.apply(fn)
        fn(self)
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

    def to(self, *target: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False,
           memory_format: Any = None) -> Module:
        """Makes all parameters and floating buffers another type; returns the module.

        Parameters
        ----------
        *target : dtype, Tensor or "cpu"
            What they become: a type, that of a tensor, or, which changes nothing, the CPU's.
        dtype : dtype, optional
            float32 or float64.
        device : None or "cpu"
            There is no other.
        non_blocking : bool
            Taken for PyTorch's sake: there is nothing to wait for.
        memory_format : MemoryFormat, optional
            Taken for PyTorch's sake: parameters stay in C order, results of four axes are `channels_last` as it is.

        Raises
        ------
        TypeError
            If the type is no floating one, or `memory_format` is none.
        ValueError
            If the device is another.
        """
        format_wanted("to", memory_format)
        wanted = type_wanted("to", target, dtype, device)
        if wanted is None:
            return self
        if not wanted.is_floating:
            raise TypeError(f"to: dtype is {str(wanted)!r}, but a module's must be float32 or float64")
        code = wanted.code
        with no_grad():
            for tensor in (*self.parameters(), *self.buffers()):
                if tensor.dtype.is_floating and tensor.dtype.code != code:
                    gradient = tensor.grad
                    tensor.set_data(launch.copy(tensor, dtype=code))
                    tensor.grad = gradient if gradient is None else launch.copy(gradient, dtype=code)
        return self

    def type(self, dst_type: Any) -> Module:
        """Makes all parameters and floating buffers another type, float32 or float64; returns the module."""
        return self.to(dtype=dst_type)

    def float(self) -> Module:
        """Makes all parameters and floating buffers float32; returns the module."""
        return self.to("float32")

    def double(self) -> Module:
        """Makes all parameters and floating buffers float64; returns the module."""
        return self.to("float64")

    def cpu(self) -> Module:
        """Returns the module, which is on the CPU."""
        return self

    def cuda(self, device: Any = None) -> Module:
        """Refused: there is no device but the CPU."""
        raise ValueError("cuda: there is no device but the CPU")

    def half(self) -> Module:
        """Refused: parameters are float32 or float64."""
        raise TypeError("half: float16 is not offered; a module's types are float32 and float64")

    def bfloat16(self) -> Module:
        """Refused: parameters are float32 or float64."""
        raise TypeError("bfloat16: it is not offered; a module's types are float32 and float64. For products of bfloat16 "
                        "on AMX there is set_float32_matmul_precision('medium')")

    def compile(self, *arguments: Any, **options: Any) -> None:
        """Refused: steps are captured, not modules compiled."""
        raise TypeError("compile: a module is not compiled; fastnn.capture(step) records a whole step, and Trainer does so by "
                        "itself")

    # -- hooks; they are Python's: a captured step calls them while it is recorded, not in its replays --

    def register_forward_hook(self, hook: Callable, prepend: bool = False, with_kwargs: bool = False,
                              always_call: bool = False) -> RemovableHandle:
        """Calls ``hook(module, inputs, output)`` after every forward; what it returns, if not None, replaces the output.

        Parameters
        ----------
        hook : callable
            The function.
        prepend : bool
            Whether it comes before the hooks that are there.
        with_kwargs : bool
            Whether it is called as ``hook(module, inputs, keyword_arguments, output)``.
        always_call : bool
            Whether it is called, with what output there is, where forward raises.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the hook off.
        """
        return self._hooked(Hook("forward", hook, with_kwargs, always_call), prepend)

    def register_forward_pre_hook(self, hook: Callable, prepend: bool = False, with_kwargs: bool = False) -> RemovableHandle:
        """Calls ``hook(module, inputs)`` before every forward; what it returns, if not None, replaces the inputs.

        Parameters
        ----------
        hook : callable
            The function.
        prepend : bool
            Whether it comes before the hooks that are there.
        with_kwargs : bool
            Whether it is called as ``hook(module, inputs, keyword_arguments)``, and returns None or a pair of both.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the hook off.
        """
        return self._hooked(Hook("pre", hook, with_kwargs), prepend)

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Calls ``hook(module, grad_input, grad_output)`` when backward has the gradients of a call's inputs.

        Parameters
        ----------
        hook : callable
            It is given tuples with an entry for each positional argument and for each output; None stands for what takes no
            gradient, or got none. What it returns, if not None, replaces `grad_input`.
        prepend : bool
            Whether it comes before the hooks that are there.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the hook off.
        """
        return self._hooked(Hook("backward", hook), prepend)

    def register_full_backward_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Calls ``hook(module, grad_output)`` before backward enters a call; what it returns, if not None, replaces them.

        Parameters
        ----------
        hook : callable
            See `register_full_backward_hook`.
        prepend : bool
            Whether it comes before the hooks that are there.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the hook off.
        """
        return self._hooked(Hook("backward_pre", hook), prepend)

    def _hooked(self, hook: Hook, prepend: bool) -> RemovableHandle:
        if not callable(hook.function):
            raise TypeError(f"{type(self).__name__}: hook is {hook.function!r}, but must be callable")
        return RemovableHandle(self._state_hooks if hook.kind.startswith(("save", "load")) else self._hooks, hook, prepend)

    # -- text --

    def extra_repr(self) -> str:
        """What stands between the brackets of a layer's text."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr().split("\n")
        children = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()]
        lines = ([] if extra == [""] else extra) + children
        if not children and len(extra) == 1:
            return f"{type(self).__name__}({extra[0]})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"
