"""Inputs without a batch, as PyTorch takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .shape import reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__: list[str] = []


def batch_of_one(function: Callable, x: Tensor, *arguments: Any) -> Tensor | tuple[Tensor, ...]:
    """What `function` makes of one image or sequence: a batch of one on the way in, and none on the way out."""
    result = function(reshape(x, (1, *x.shape)), *arguments)
    if isinstance(result, tuple):
        return tuple(reshape(r, r.shape[1:]) for r in result)
    return reshape(result, result.shape[1:])
