"""Convolution (cross-correlation, as in all deep-learning libraries)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._core import launch, record

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["conv2d"]


def pair(name: str, argument: str, value: int | Sequence[int]) -> tuple[int, int]:
    """`value`, an integer or two, as two."""
    result = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(result) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in result):
        raise TypeError(f"{name}: {argument} is {value!r}, but must be an integer or a pair of integers")
    return result


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
    options = {"stride": pair("conv2d", "stride", stride), "dilation": pair("conv2d", "dilation", dilation), "groups": groups}
    options["padding"] = _resolve_padding(padding, weight.shape[-2:], options["stride"], options["dilation"])
    y = launch.conv2d_forward(x, weight, bias, **options)
    return record(_conv2d_backward, (x, weight, bias), y, (x, weight), options)


def _resolve_padding(padding: int | str | Sequence[int], window: Sequence[int], stride: Sequence[int],
                     dilation: Sequence[int]) -> tuple[int, int, int, int]:
    """Rows above and below, columns left and right."""
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        if tuple(stride) != (1, 1):
            raise ValueError(f"conv2d: padding is 'same', which needs stride 1, but stride is {tuple(stride)}")
        height, width = (d * (n - 1) for d, n in zip(dilation, window))
        return height // 2, height - height // 2, width // 2, width - width // 2
    if isinstance(padding, str):
        raise ValueError(f"conv2d: padding is {padding!r}, but must be an integer, a pair, 'valid' or 'same'")
    rows, columns = pair("conv2d", "padding", padding)
    return rows, rows, columns, columns


def _conv2d_backward(node, dy):
    x, weight = node.saved
    options = node.context
    dx = launch.conv2d_backward_input(dy, weight, input=x.shape[2:], **options) if node.needs[0] else None
    dweight = launch.conv2d_backward_weight(dy, x, kernel=weight.shape[2:], **options) if node.needs[1] else None
    dbias = launch.sum(dy, axes=0b1101, keepdim=0, divisor=1.0) if node.needs[2] else None
    return dx, dweight, dbias
