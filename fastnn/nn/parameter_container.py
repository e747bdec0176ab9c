"""Modules that hold parameters: ParameterList and ParameterDict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .._core import TensorBase
from ..checks import integer, named_pairs
from .module import Module, Parameter

__all__ = ["ParameterDict", "ParameterList"]


def _kept(value: Any) -> Any:
    """A tensor becomes a parameter, as in PyTorch; anything else stays what it is."""
    return Parameter(value) if isinstance(value, TensorBase) and not isinstance(value, Parameter) else value


def _line(name: Any, value: Any) -> str:
    """An entry in the container's text."""
    what = f"{type(value).__name__} containing: [{value.dtype} of size {'x'.join(map(str, value.shape))}]"
    return f"({name}): {what}" if isinstance(value, TensorBase) else f"({name}): Object of type: {type(value).__name__}"


class ParameterList(Module):
    """A list of parameters that its module finds; tensors become parameters, other objects are kept as they are.

    Parameters
    ----------
    values : iterable
        The first members.
    """

    def __init__(self, values: Iterable[Any] = ()):
        super().__init__()
        self._size = 0
        self.extend(values)

    def _place(self, index: int) -> str:
        index = integer("ParameterList", "index", index)
        if not -self._size <= index < self._size:
            raise IndexError(f"ParameterList: index is {index}, but the list has {self._size} members")
        return str(index % self._size)

    def append(self, value: Any) -> ParameterList:
        """Adds a member at the end; returns the list."""
        self._size += 1
        self[self._size - 1] = value
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Adds members at the end; returns the list."""
        if isinstance(values, TensorBase) or not isinstance(values, Iterable):
            raise TypeError(f"ParameterList: values is a {type(values).__name__}, but must be an iterable of tensors")
        for value in values:
            self.append(value)
        return self

    def pop(self, index: int = -1) -> Any:
        """Removes and returns a member."""
        members = list(self)
        value = members.pop(int(self._place(index)))
        for k in range(self._size):
            delattr(self, str(k))
        self._size = 0
        self.extend(members)
        return value

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return (self[k] for k in range(self._size))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return ParameterList([self[k] for k in range(*index.indices(self._size))])
        return getattr(self, self._place(index))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, self._place(index), _kept(value))

    def __iadd__(self, values: Iterable[Any]) -> ParameterList:
        return self.extend(values)

    def extra_repr(self) -> str:
        return "\n".join(_line(k, value) for k, value in enumerate(self))


class ParameterDict(Module):
    """Parameters under names, which its module finds; tensors become parameters, other objects are kept as they are.

    Parameters
    ----------
    parameters : mapping or iterable of pairs, optional
        The first members.
    """

    def __init__(self, parameters: Any = None):
        super().__init__()
        self._names: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def update(self, parameters: Any) -> None:
        """Adds members from a mapping or an iterable of pairs."""
        for name, value in named_pairs("ParameterDict", "parameters", parameters):
            self[name] = value

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return getattr(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str) or "." in name or hasattr(type(self), name) or name in ("_names", "training"):
            raise KeyError(f"ParameterDict: a name is {name!r}, but must be a string without a dot that is no attribute of "
                           "modules")
        self._names[name] = None
        setattr(self, name, _kept(value))

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def pop(self, name: str) -> Any:
        """Removes a member and returns it."""
        value = self[name]
        del self._names[name]
        delattr(self, name)
        return value

    def popitem(self) -> tuple[str, Any]:
        """Removes the last member and returns its name and it."""
        name = next(reversed(self._names))
        return name, self.pop(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The member of that name, or `default`."""
        return self[name] if name in self._names else default

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The member of that name, which is `default` if there was none."""
        if name not in self._names:
            self[name] = default
        return self[name]

    def fromkeys(self, names: Iterable[str], default: Any = None) -> ParameterDict:
        """A new container with the same value under each name."""
        return ParameterDict((name, default) for name in names)

    def copy(self) -> ParameterDict:
        """A new container of the same parameters."""
        return ParameterDict(self)

    def clear(self) -> None:
        """Removes all."""
        for name in tuple(self._names):
            self.pop(name)

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._names.keys()

    def values(self) -> Iterable[Any]:
        """The members."""
        return (self[name] for name in self._names)

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and members."""
        return ((name, self[name]) for name in self._names)

    def __or__(self, other: Any) -> ParameterDict:
        joined = self.copy()
        joined.update(other)
        return joined

    def __ior__(self, other: Any) -> ParameterDict:
        self.update(other)
        return self

    def extra_repr(self) -> str:
        return "\n".join(_line(name, value) for name, value in self.items())
