"""What a module's state dict is loaded by."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._core import TensorBase
from ..ops.create import as_tensor, empty
from ..tensor import Tensor, no_grad
from .hooks import Hook, RemovableHandle

if TYPE_CHECKING:
    from .module import Module

__all__ = ["IncompatibleKeys", "Stateful", "copied_state", "load_state"]

EXTRA_STATE = "_extra_state"  # its name in a state dict

_MAY_BE_MISSING = ("num_batches_tracked",)  # states from before PyTorch 0.4.1 lack it


class IncompatibleKeys(NamedTuple):
    """Names that were on one side only.

    Attributes
    ----------
    missing_keys : list of str
        In the module, not in the state.
    unexpected_keys : list of str
        In the state, not in the module.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def copied_state(module: Module) -> dict[str, Any]:
    """A state dict that does not change with the module."""
    return {name: value.clone() if isinstance(value, TensorBase) else copy.deepcopy(value)
            for name, value in module.state_dict().items()}


def load_state(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """See `Module.load_state_dict`, whose parameters these are."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"load_state_dict: state_dict is a {type(state_dict).__name__}, but must be a mapping of names to "
                        "tensors or arrays")
    state_dict, keys, errors = dict(state_dict), IncompatibleKeys([], []), []
    modules = list(module.named_modules(remove_duplicate=False))
    for path, part in modules:
        hooks = part._state_functions("load_pre")
        if hooks:  # each sees, and may change, what is its module's and below
            prefix = f"{path}." if path else ""
            own = {name: state_dict.pop(name) for name in list(state_dict) if name.startswith(prefix)}
            for hook in hooks:
                hook(part, own, prefix, {}, strict, keys.missing_keys, keys.unexpected_keys, errors)
            state_dict.update(own)
    extras = _extras(modules)
    own = module.named_state()
    _compare(own, extras, state_dict, keys)
    values = {name: _as_value(name, value) for name, value in state_dict.items() if name in own}
    late = [(part, hook) for _, part in reversed(modules) for hook in part._state_functions("load")]
    _refuse(module, keys if strict and not late else IncompatibleKeys([], []), own, values, errors)
    _copy(own, values, assign)
    for name, part in extras.items():
        if name in state_dict:
            part.set_extra_state(state_dict[name])
    for _, part in modules:
        if part._is_lazy and all(p is None or p.numel() for p in part._parameters.values()):
            part.loaded()
    for part, hook in late:
        hook(part, keys)
    if late and strict:
        _refuse(module, keys, own, {}, [])
    return keys


def _extras(modules: list[tuple[str, Module]]) -> dict[str, Module]:
    """Modules that have more state than parameters and buffers, by its name."""
    return {f"{path}.{EXTRA_STATE}" if path else EXTRA_STATE: part for path, part in modules
            if type(part).set_extra_state is not Stateful.set_extra_state}


def _compare(own: dict[str, Tensor], extras: Mapping[str, Module], state: Mapping[str, Any], keys: IncompatibleKeys) -> None:
    """Adds to `keys` the names that are on one side only; a tied parameter may be there under one of its names alone."""
    names: dict[int, list[str]] = {}
    for name, value in own.items():
        names.setdefault(id(value), []).append(name)
    keys.missing_keys.extend(tied[0] for tied in names.values() if not any(name in state for name in tied)
                             and tied[0].rpartition(".")[2] not in _MAY_BE_MISSING)
    keys.missing_keys.extend(name for name in extras if name not in state)
    keys.unexpected_keys.extend(name for name in state if name not in own and name not in extras)


def _copy(own: dict[str, Tensor], values: dict[str, Tensor], assign: bool) -> None:
    with no_grad():
        for name, value in values.items():
            target = own[name]
            if assign and value.dtype.is_floating == target.dtype.is_floating:
                target.set_data(value)
                continue
            if target.shape != value.shape:
                target.set_data(empty(value.shape, dtype=target.dtype))
            target.copy_(value)


def _refuse(module: Module, keys: IncompatibleKeys, own: dict[str, Tensor], values: dict[str, Tensor], errors: list[str]) -> None:
    """Raises where something is missing or unknown or has another shape, or a hook found an error; PyTorch's words."""
    errors = errors + [f"{what} key(s) in state_dict: {', '.join(map(repr, names))}."
                       for what, names in (("Missing", keys.missing_keys), ("Unexpected", keys.unexpected_keys)) if names]
    lazy = {id(value) for part in module.modules() if part._is_lazy
            for registry in (part._parameters, part._buffers) for value in registry.values()}
    errors += [f"size mismatch for {name}: the state's shape is {value.shape}, the module's is {own[name].shape}."
               for name, value in values.items() if value.shape != own[name].shape and id(own[name]) not in lazy]
    if errors:
        raise RuntimeError(f"load_state_dict: error(s) in loading state_dict for {type(module).__name__}: "
                           + " ".join(errors))


def _as_value(name: str, value: Any) -> Tensor:
    try:
        return as_tensor(value if isinstance(value, TensorBase) else np.asarray(value)).detach()
    except TypeError as error:
        raise TypeError(f"load_state_dict: '{name}': {error}") from None


class Stateful:
    """What a `Module` does with its state: saving it, loading it, and hooks on both."""

    def named_state(self) -> dict[str, Tensor]:
        """Parameters and buffers that are saved, under all of their names."""
        return OrderedDict((f"{path}.{name}" if path else name, value)
                           for path, module in self.named_modules(remove_duplicate=False)
                           for registry in (module._parameters, module._buffers) for name, value in registry.items()
                           if value is not None and name not in module._not_saved)

    def state_dict(self, destination: dict[str, Any] | None = None, prefix: str = "",
                   keep_vars: bool = False) -> dict[str, Any]:
        """Parameters and buffers under PyTorch's names, sharing memory; a tied parameter appears under each of its names.

        Parameters
        ----------
        destination : dict, optional
            Where they are added; by default a new dictionary.
        prefix : str
            What names begin with.
        keep_vars : bool
            Whether parameters stay on the tape.

        Returns
        -------
        dict of str to Tensor
            And what `get_extra_state` gives of modules that define it.
        """
        state = OrderedDict() if destination is None else destination
        for hook in self._state_functions("save_pre"):
            hook(self, prefix, keep_vars)
        for name, value in (*self._parameters.items(), *self._buffers.items()):
            if value is not None and name not in self._not_saved:
                state[prefix + name] = value if keep_vars else value.detach()
        if type(self).get_extra_state is not Stateful.get_extra_state:
            state[f"{prefix}{EXTRA_STATE}"] = self.get_extra_state()
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=state, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_functions("save"):
            changed = hook(self, state, prefix, {})
            if changed is not None:
                raise RuntimeError(f"state_dict hook of {type(self).__name__}: it must change the state in place and return None")
        return state

    def _state_functions(self, kind: str) -> list[Callable]:
        return [hook.function for hook in self._state_hooks.values() if hook.kind == kind]

    def get_extra_state(self) -> Any:
        """What belongs to a module's state beside parameters and buffers; a subclass that has any defines it and
        `set_extra_state`."""
        raise TypeError(f"{type(self).__name__} has no extra state: a subclass that has any defines get_extra_state()")

    def set_extra_state(self, state: Any) -> None:
        """Takes over what `get_extra_state` gave."""
        raise TypeError(f"{type(self).__name__} has no extra state: a subclass that has any defines set_extra_state()")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> IncompatibleKeys:
        """Copies values into this module's parameters and buffers, in place; all or nothing.

        Parameters
        ----------
        state_dict : mapping of str to Tensor or numpy.ndarray
            As `state_dict` gives it; names and layouts are PyTorch's.
        strict : bool
            Whether every name must be on both sides.
        assign : bool
            Whether parameters and buffers take over the values' memory and type, instead of copying numbers into their own.
            They stay the objects that optimisers know.

        Returns
        -------
        IncompatibleKeys
            `missing_keys` and `unexpected_keys`, which only without `strict` can hold names.

        Raises
        ------
        RuntimeError
            If names are missing or unknown (when strict), or a value's shape differs; the message lists all of them.
        TypeError
            If a value is no array.
        """
        return load_state(self, state_dict, strict, assign)

    def loaded(self) -> None:
        """Called on a lazy module whose parameters came from a state dict; lazy layers define it."""
        raise TypeError(f"{type(self).__name__} has lazy parameters but no loaded()")

    def register_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(module, prefix, keep_vars)`` before `state_dict` looks at this module."""
        return self._hooked(Hook("save_pre", hook), False)

    def register_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Calls ``hook(module, state_dict, prefix, local_metadata)`` when `state_dict` has what this module and those in it have;
        it changes the dictionary in place. There is no metadata: {}."""
        return self._hooked(Hook("save", hook), False)

    def register_load_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Calls a function before this module's part of a state dict is loaded.

        Parameters
        ----------
        hook : callable
            ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)``: the state is a
            copy, which it may change; to the lists it may add names and messages. There is no metadata: {}.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the hook off.
        """
        return self._hooked(Hook("load_pre", hook), False)

    def register_load_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Calls a function when this module's part of a state dict is loaded.

        Parameters
        ----------
        hook : callable
            ``hook(module, incompatible_keys)``: names taken out of its lists are no error. With such a hook values are copied
            before missing and unexpected names are refused.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the hook off.
        """
        return self._hooked(Hook("load", hook), False)
