"""What a module's state dict is loaded by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._core import TensorBase
from ..ops.create import as_tensor, empty
from ..tensor import Tensor, no_grad

if TYPE_CHECKING:
    from .module import Module

__all__ = ["IncompatibleKeys", "load_state"]


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


def load_state(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """See `Module.load_state_dict`, whose parameters these are."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"load_state_dict: state_dict is a {type(state_dict).__name__}, but must be a mapping of names to "
                        "tensors or arrays")
    own = module.named_state(once=False)
    first: dict[int, str] = {}
    for name, value in own.items():
        first.setdefault(id(value), name)
    keys = IncompatibleKeys([name for name, value in own.items() if name not in state_dict and first[id(value)] == name
                             and name.rpartition(".")[2] not in _MAY_BE_MISSING],
                            [name for name in state_dict if name not in own])
    values = {name: _as_value(name, value) for name, value in state_dict.items() if name in own}
    _refuse(module, keys if strict else IncompatibleKeys([], []), own, values)
    with no_grad():
        for name, value in values.items():
            target = own[name]
            if assign and value.dtype.is_floating == target.dtype.is_floating:
                target.set_data(value)
                continue
            if target.shape != value.shape:
                target.set_data(empty(value.shape, dtype=target.dtype))
            target.copy_(value)
    for part in module.modules():
        if part._is_lazy and all(p is None or p.numel() for p in part._parameters.values()):
            part.loaded()
    return keys


def _refuse(module: Module, keys: IncompatibleKeys, own: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Raises where something is missing or unknown or has another shape; PyTorch's words."""
    errors = [f"{what} key(s) in state_dict: {', '.join(map(repr, names))}."
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
