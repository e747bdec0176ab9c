"""Classes as rows of zeros with a one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _core
from .._core import launch
from ..checks import whole
from .create import int64
from .index import _as_index

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["one_hot"]


def one_hot(input: Any, num_classes: int = -1) -> Tensor:
    """1 at each element's class and 0 elsewhere: y[..., c] = [x[...] = c].

    Parameters
    ----------
    input : Tensor or array_like
        Classes 0 ... num_classes - 1, integers of any shape.
    num_classes : int
        By default, -1, one more than the greatest class; for this the values are read, so that a step which leaves it
        open cannot be captured.

    Returns
    -------
    Tensor
        int64, (..., num_classes).

    Raises
    ------
    IndexError
        If a class is negative or not below `num_classes`.
    ValueError
        If `num_classes` is neither -1 nor at least 1, or left open for an empty `input`.
    """
    index = _as_index("one_hot", input, "input")
    if num_classes == -1:
        if index.numel() == 0:
            raise ValueError(f"one_hot: num_classes must be given, as input of shape {index.shape} has no greatest class")
        num_classes = max(int(index.numpy().max()) + 1, 1)
    y = _core.empty((*index.shape, whole("one_hot: num_classes", num_classes, 1)), int64)
    return launch.one_hot(index, out=y)
