"""Which function writes a layer's class as ONNX; users add their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ...nn.module import Module

WRITERS: dict[type, Callable[..., Any]] = {}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def onnx_writer(*classes: type) -> Callable[[_Function], _Function]:
    """Say how layers of a class are written to ONNX files; a decorator.

    Parameters
    ----------
    *classes : type
        Subclasses of Module. A class derived from one of them is written in the same way unless it has a forward of its own.

    Returns
    -------
    callable
        Takes ``writer(graph, layer, *inputs)``, which puts nodes into a `Graph` and returns the output, a `Value`, or a tuple
        of them; and gives it back.

    Raises
    ------
    TypeError
        If what is given is no subclass of Module, or what is decorated cannot be called.

    Examples
    --------
    >>> class Scaled(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.gain = nn.Parameter([2.0])
    ...     def forward(self, x):
    ...         return x * self.gain
    >>> @onnx_writer(Scaled)
    ... def write_scaled(graph, layer, x):
    ...     return graph.node("Mul", x, graph.parameter(layer, "gain"))

    A network of one's own calls its layers, as its forward does:

    >>> @onnx_writer(Network)
    ... def write_network(graph, network, x):
    ...     y = graph.call(network.body, x)
    ...     return graph.call(network.head, graph.node("Add", x, y))
    """
    for given in classes:
        if not (isinstance(given, type) and issubclass(given, Module)):
            raise TypeError(f"onnx_writer: {given!r} was given, but it must be a subclass of Module")
    if not classes:
        raise TypeError("onnx_writer: no class was given, but there must be at least one subclass of Module")

    def register(writer: _Function) -> _Function:
        if not callable(writer):
            raise TypeError(f"onnx_writer: the writer is {writer!r}, but must be a function")
        WRITERS.update(dict.fromkeys(classes, writer))
        return writer

    return register


def writer_of(layer: Module) -> Callable[..., Any] | None:
    """The function that writes a layer.

    Parameters
    ----------
    layer : Module
        The layer.

    Returns
    -------
    callable or None
        That of the first class among the layer's own and those it is derived from, as far as these share its forward; None
        where there is none.
    """
    from . import writers  # noqa: F401  fills the table; it stands on all of fastnn.nn

    kinds = (kind for kind in type(layer).__mro__ if getattr(kind, "forward", None) is type(layer).forward)
    return next((WRITERS[kind] for kind in kinds if kind in WRITERS), None)
