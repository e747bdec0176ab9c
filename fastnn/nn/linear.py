"""Fully connected layers."""

from __future__ import annotations

import math

from ..checks import integer, whole
from ..ops.create import empty
from ..ops.linear import linear
from ..ops.shape import flatten, unflatten
from ..tensor import Tensor
from . import init
from .lazy import Lazy
from .module import Module, Parameter
from .typed import typed


class Identity(Module):
    """Gives its input back.

    Parameters
    ----------
    *arguments, **options : object
        Anything, so that it can stand where another layer stood.
    """

    def __init__(self, *arguments: object, **options: object):
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


@typed
class Linear(Module):
    """y = x W^T + b.

    Parameters
    ----------
    in_features, out_features : int
        Widths of the input's and the output's last axis.
    bias : bool
        Whether b is there.

    Attributes
    ----------
    weight : Parameter
        (out_features, in_features), at first uniform in +-1 / sqrt(in_features), as PyTorch's.
    bias : Parameter or None
        (out_features,), at first from the same interval.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.in_features = whole(f"{type(self).__name__}: in_features", in_features, 0)
        self.out_features = whole(f"{type(self).__name__}: out_features", out_features, 0)
        self.weight = Parameter(empty(self.out_features, self.in_features))
        self.register_parameter("bias", Parameter(empty(self.out_features)) if bias else None)
        if not self._is_lazy:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new first values."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)"""
        return linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class LazyLinear(Lazy, Linear):
    """A Linear that takes in_features from its first input; the other parameters are Linear's."""

    _count, _lazy_axes, _channel_axis = "in_features", {"weight": 1}, -1
    _lazy_ranks, _lazy_layout = range(1, 9), "(..., in_features)"


class Flatten(Module):
    """Merges axes `start_dim` to `end_dim` into one: (N, C, H, W) -> (N, C H W) by default.

    Parameters
    ----------
    start_dim, end_dim : int
        First and last axis to merge.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim = integer("Flatten", "start_dim", start_dim)
        self.end_dim = integer("Flatten", "end_dim", end_dim)

    def forward(self, input: Tensor) -> Tensor:
        return flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits axis `dim` into axes of the given sizes.

    Parameters
    ----------
    dim : int
        The axis to split.
    unflattened_size : tuple of int
        What to split it into; one may be -1.
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]):
        super().__init__()
        self.dim = integer("Unflatten", "dim", dim)
        if not isinstance(unflattened_size, (tuple, list)):
            raise TypeError(f"Unflatten: unflattened_size is {unflattened_size!r}, but must be a tuple of integers")
        self.unflattened_size = tuple(integer("Unflatten", "unflattened_size", size) for size in unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        return unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
