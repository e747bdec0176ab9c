"""Lazy layers: what a layer's first input decides is left open until then."""

from __future__ import annotations

import inspect
from collections.abc import Container
from typing import Any

from ..ops.create import empty
from ..tensor import Tensor
from .module import Module, check_input

__all__ = ["Lazy"]


class Lazy(Module):
    """What makes a layer lazy: ``class LazyLinear(Lazy, Linear)`` leaves out the first argument, a number of channels.

    At its first input, or when a state is loaded, an object of such a class becomes one of the class it is derived from.

    Attributes
    ----------
    _count : str
        Name of the argument left out, and of its attribute.
    _lazy_axes : dict of str to int
        For each parameter or buffer of open shape the axis that is open.
    _channel_axis : int
        The input's axis that decides.
    _lazy_ranks, _lazy_layout : container of int, str
        How many axes an input may have, and what it looks like, for messages.
    _lazy_defaults : dict of str to object
        Defaults that the lazy layer has in place of the layer's.
    """

    _is_lazy = True
    _count: str
    _lazy_axes: dict[str, int]
    _channel_axis: int
    _lazy_ranks: Container[int]
    _lazy_layout: str
    _lazy_defaults: dict[str, Any] = {}

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(0, *arguments, **options)

    def __init_subclass__(cls, **options: Any):
        """Shows the layer's own signature, without the first argument."""
        super().__init_subclass__(**options)
        if len(cls.__bases__) < 2:  # what lazy layers of one family share
            return
        given = inspect.signature(cls.__bases__[-1].__init__)
        own, _, *others = given.parameters.values()
        others = [p.replace(default=cls._lazy_defaults.get(p.name, p.default)) for p in others]

        def __init__(self, *arguments: Any, **options: Any):
            by_position = {p.name for p in others[:len(arguments)]}
            defaults = {name: value for name, value in cls._lazy_defaults.items() if name not in by_position}
            super(cls, self).__init__(*arguments, **{**defaults, **options})

        __init__.__signature__ = given.replace(parameters=[own, *others])
        cls.__init__ = __init__

    def _share(self) -> int:
        """How many groups divide the channels of a parameter."""
        return 1

    def _become(self, count: int) -> None:
        groups = getattr(self, "groups", None)
        if groups and count == 0:
            raise ValueError(f"{type(self).__name__}: the input has 0 channels, but must have at least 1")
        if groups and count % groups:
            raise ValueError(f"{type(self).__name__}: the input has {count} channels, which is no multiple of groups {groups}")
        setattr(self, self._count, count)
        self.__class__ = type(self).__bases__[-1]

    def _open(self) -> list[tuple[Tensor, int]]:
        """The parameters and buffers of open shape, with the open axis."""
        return [(getattr(self, name), axis) for name, axis in self._lazy_axes.items() if getattr(self, name) is not None]

    def materialize(self, x: Tensor) -> None:
        """Becomes a layer for inputs like `x`."""
        check_input(self, x, self._lazy_ranks, self._lazy_layout)
        values, share, count = self._open(), self._share(), x.shape[self._channel_axis]
        self._become(count)
        for value, axis in values:
            shape = list(value.shape)
            shape[axis] = count // share
            value.set_data(empty(*shape, dtype=value.dtype))
        self.reset_parameters()

    def loaded(self) -> None:
        """Becomes a layer as wide as what was loaded."""
        extents = [value.shape[axis] for value, axis in self._open() if value.numel()]
        if extents:
            self._become(extents[0] * self._share())
