"""Modules that hold modules: Sequential, ModuleList, ModuleDict, Concat, Residual."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..checks import integer, named_pairs
from ..ops.math import add
from ..ops.slices import cat, pad, slice_view
from ..tensor import Tensor
from .module import Module


class _Row(Module):
    """What a sequence and a list of modules share: members under the names "0", "1", ..."""

    def _place(self, index: int) -> str:
        """The name of a member."""
        index = integer(type(self).__name__, "index", index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"{type(self).__name__}: index is {index}, but it has {len(self)} members")
        return list(self._modules)[index]

    def _renamed(self, modules: Iterable[Module]) -> None:
        """Holds these modules, under new names."""
        modules = list(modules)
        for name in tuple(self._modules):
            delattr(self, name)
        for k, module in enumerate(modules):
            self.add_module(str(k), module)

    def append(self, module: Module) -> _Row:
        """Adds a module at the end; returns this one."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> _Row:
        """Adds modules at the end; returns this one."""
        if not isinstance(modules, Iterable) or isinstance(modules, str):
            raise TypeError(f"{type(self).__name__}: modules is {modules!r}, but must be an iterable of Modules")
        for module in list(modules):
            if not isinstance(module, Module):
                raise TypeError(f"{type(self).__name__}: one of modules is {module!r}, but each must be a Module")
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> _Row:
        """Puts a module before the one at `index`, as in a list; returns this one."""
        modules = list(self)
        modules.insert(integer(type(self).__name__, "index", index), module)
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: module is {module!r}, but must be a Module")
        self._renamed(modules)
        return self

    def pop(self, key: int = -1) -> Module:
        """Removes a module and returns it."""
        module = self[key]
        del self[key]
        return module

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return self._part(list(self._modules.items())[index])
        return self._modules[self._place(index)]

    def _part(self, named: list[tuple[str, Module]]) -> Module:
        """A container of its own class with some of the members."""
        raise TypeError(f"{type(self).__name__} has no slices")

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(self._place(index), module)

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        del modules[index if isinstance(index, slice) else list(self._modules).index(self._place(index))]
        self._renamed(modules)

    def __iadd__(self, modules: Iterable[Module]) -> _Row:
        return self.extend(modules)

    def __add__(self, modules: Iterable[Module]) -> Module:
        return type(self)().extend(self).extend(modules)


class Sequential(_Row):
    """Modules applied one after the other.

    Parameters
    ----------
    *modules : Module or OrderedDict of str to Module
        The modules, named "0", "1", ... , or one ordered dictionary with names.
    """

    def __init__(self, *modules: Module | OrderedDict):
        super().__init__()
        named = modules[0].items() if len(modules) == 1 and isinstance(modules[0], Mapping) else enumerate(modules)
        for name, module in named:
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input

    def _part(self, named: list[tuple[str, Module]]) -> Sequential:
        return Sequential(OrderedDict(named))


class ModuleList(_Row):
    """A list of modules, whose parameters are found.

    Parameters
    ----------
    modules : iterable of Module
        The first members.
    """

    def __init__(self, modules: Iterable[Module] = ()):
        super().__init__()
        self.extend(modules)

    def _part(self, named: list[tuple[str, Module]]) -> ModuleList:
        return ModuleList(module for _, module in named)

    def __repr__(self) -> str:
        """Equal neighbours share a line, as in PyTorch."""
        runs: list[list[Any]] = []
        for k, text in enumerate(map(repr, self)):
            if runs and runs[-1][2] == text:
                runs[-1][1] = k
            else:
                runs.append([k, k, text])
        lines = [f"({a}): {text}" if a == b else f"({a}-{b}): {b - a + 1} x {text}" for a, b, text in runs]
        return f"{type(self).__name__}(" + "".join("\n  " + line.replace("\n", "\n  ") for line in lines) + ("\n)" if lines
                                                                                                             else ")")


class ModuleDict(Module):
    """Modules under names, whose parameters are found.

    Parameters
    ----------
    modules : mapping of str to Module, or iterable of pairs
        The first members.
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None):
        super().__init__()
        if modules is not None:
            self.update(modules)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Adds modules from a mapping or from pairs."""
        for name, module in named_pairs("ModuleDict", "modules", modules):
            self[name] = module

    def __getitem__(self, name: str) -> Module:
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        if isinstance(name, str) and (name in self.__dict__ or hasattr(type(self), name)) and name not in self._modules:
            raise KeyError(f"ModuleDict: a name is {name!r}, which modules have as an attribute")
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def __contains__(self, name: str) -> bool:
        return name in self._modules

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def pop(self, key: str) -> Module:
        """Removes a module and returns it."""
        module = self._modules[key]
        delattr(self, key)
        return module

    def clear(self) -> None:
        """Removes all modules."""
        for name in tuple(self._modules):
            delattr(self, name)

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """Names and modules."""
        return self._modules.items()


class Concat(Module):
    """Branches: each module sees the same input; their results are joined.

    Parameters
    ----------
    *modules : Module
        The branches.
    dim : int
        The axis along which results are joined.
    """

    def __init__(self, *modules: Module, dim: int = 1):
        super().__init__()
        self.dim = integer("Concat", "dim", dim)
        for k, module in enumerate(modules):
            self.add_module(str(k), module)

    def forward(self, input: Any) -> Tensor:
        return cat([module(input) for module in self._modules.values()], self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Residual(Module):
    """A module and a way around it: y = module(x) + shortcut(x).

    Parameters
    ----------
    module : Module
        What learns the difference.
    shortcut : str or Module
        "identity": x itself; "zero": x, of which every second (third, ...) row and column is taken where the result is
        smaller, and which is extended by channels of 0 where the result has more; or a module (a projection).

    Raises
    ------
    ValueError
        If `shortcut` is none of these, or at the first input if shapes do not fit.

    References
    ----------
    K. He et al., "Deep residual learning for image recognition", CVPR 2016: shortcuts A (zero), B and C (projection).
    """

    def __init__(self, module: Module, shortcut: str | Module = "identity"):
        super().__init__()
        if not isinstance(shortcut, Module) and shortcut not in ("identity", "zero"):
            raise ValueError(f"Residual: shortcut is {shortcut!r}, but must be 'identity', 'zero' or a Module")
        self.module = module
        self.shortcut = shortcut

    def forward(self, input: Tensor) -> Tensor:
        y = self.module(input)
        if isinstance(self.shortcut, Module):
            return add(y, self.shortcut(input))
        if self.shortcut == "zero":
            input = self._extended(input, y.shape)
        if input.shape != y.shape:
            raise ValueError(f"Residual: the module makes {y.shape} of {input.shape}, which shortcut {self.shortcut!r} "
                             "does not")
        return add(y, input)

    @staticmethod
    def _extended(x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """`x` thinned out and with channels of 0, to be of this shape."""
        if x.ndim != len(shape) or x.ndim < 2 or shape[1] < x.shape[1]:
            return x
        steps = [-(-n // m) if m else 1 for n, m in zip(x.shape[2:], shape[2:])]
        if any(s > 1 for s in steps):
            x = slice_view(x, (slice(None), slice(None), *(slice(None, None, s) for s in steps)))
        return pad(x, (0, 0) * (x.ndim - 2) + (0, shape[1] - x.shape[1])) if shape[1] > x.shape[1] else x

    def extra_repr(self) -> str:
        return "" if isinstance(self.shortcut, Module) else f"shortcut={self.shortcut!r}"
