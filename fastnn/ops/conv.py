"""Convolution (cross-correlation, as in all deep-learning libraries)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import pair

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["conv2d"]


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1,
           padding: int | str | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1) -> Tensor:
    """Two-dimensional convolution.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W).
    weight : Tensor
        (K, C / groups, R, S).
    bias : Tensor, optional
        (K,).
    stride : int or pair of int
        Steps between windows.
    padding : int, pair of int, "valid" or "same"
        Rows and columns of zeros on each side; "same" keeps H and W, with the odd one behind, and needs stride 1.
    dilation : int or pair of int
        Steps between the elements of a window.
    groups : int
        Number of groups of channels that do not see one another.

    Returns
    -------
    Tensor
        (N, K, (H + 2 padding - dilation (R - 1) - 1) // stride + 1, ...), in N, H, W, C order.

    Raises
    ------
    ValueError
        If shapes, groups or padding do not fit one another.
    TypeError
        If an argument is no integer, or dtypes differ.
    """
    stride, dilation = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    options = {"stride": stride, "dilation": dilation, "groups": groups,
               "padding": sides("conv2d", padding, weight.shape[-2:], stride, dilation)}
    y = launch.conv2d_forward(x, weight, bias, **options)
    return record(_conv2d_backward, (x, weight, bias), y, (x, weight), options)


def sides(name: str, padding: int | str | Sequence[int], window: Sequence[int], stride: Sequence[int],
          dilation: Sequence[int]) -> tuple[int, int, int, int]:
    """What `padding` means: rows above and below, columns left and right; `name` is who asks, for messages."""
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        if tuple(stride) != (1, 1):
            raise ValueError(f"{name}: padding is 'same', which needs stride 1, but stride is {tuple(stride)}")
        height, width = (d * (n - 1) for d, n in zip(dilation, window))
        return height // 2, height - height // 2, width // 2, width - width // 2
    if isinstance(padding, str):
        raise ValueError(f"{name}: padding is {padding!r}, but must be an integer, a pair, 'valid' or 'same'")
    rows, columns = pair(name, "padding", padding, 0)
    return rows, rows, columns, columns


def _conv2d_backward(node, dy):
    x, weight = node.saved
    options = node.context
    dx = launch.conv2d_backward_input(dy, weight, input=x.shape[2:], **options) if node.needs[0] else None
    dweight = launch.conv2d_backward_weight(dy, x, kernel=weight.shape[2:], **options) if node.needs[1] else None
    dbias = launch.sum(dy, axes=0b1101, keepdim=0, divisor=1.0) if node.needs[2] else None
    return dx, dweight, dbias
