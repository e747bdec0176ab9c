"""Convolution (cross-correlation, as in all deep-learning libraries)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import a_tensor, integer, pair
from .shape import reshape, unsqueeze
from .unbatched import batch_of_one

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["conv1d", "conv2d"]


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1,
           padding: int | str | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1) -> Tensor:
    """Two-dimensional convolution.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W), or (C, H, W).
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
    if a_tensor("conv2d", input).ndim == 3:
        return batch_of_one(conv2d, input, weight, bias, stride, padding, dilation, groups)
    stride, dilation = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    options = {"stride": stride, "dilation": dilation, "groups": groups,
               "padding": sides("conv2d", padding, a_tensor("conv2d", weight, "weight").shape[-2:], stride, dilation)}
    y = launch.conv2d_forward(input, weight, bias, **options)
    return record(_conv2d_backward, (input, weight, bias), y, (input, weight), options)


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


# ---- one dimension: maps of one row ----


def single(name: str, argument: str, value: int | Sequence[int]) -> int:
    """`value`, an integer or a sequence of one, as an integer."""
    return integer(name, argument, value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value)


def flat(name: str, x: Tensor) -> Tensor:
    """(N, C, L) as maps of one row."""
    if a_tensor(name, x).ndim != 3:
        raise ValueError(f"{name}: input has shape {x.shape}, but must be (N, C, L)")
    return unsqueeze(x, 2)


def sequence(y: Tensor) -> Tensor:
    """Maps of one row as (N, C, L): a view."""
    return reshape(y, (y.shape[0], y.shape[1], y.shape[3]))


def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1,
           padding: int | str | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1) -> Tensor:
    """One-dimensional convolution.

    Parameters
    ----------
    input : Tensor
        (N, C, L), or (C, L).
    weight : Tensor
        (K, C / groups, R).
    bias : Tensor, optional
        (K,).
    stride : int
        Steps between windows.
    padding : int, "valid" or "same"
        Zeros on each side; "same" keeps L, with the odd one behind, and needs stride 1.
    dilation : int
        Steps between the elements of a window.
    groups : int
        Number of groups of channels that do not see one another.

    Returns
    -------
    Tensor
        (N, K, (L + 2 padding - dilation (R - 1) - 1) // stride + 1).

    Raises
    ------
    ValueError
        If shapes, groups or padding do not fit one another.
    TypeError
        If an argument is no integer, or dtypes differ.
    """
    if a_tensor("conv1d", input).ndim == 2:
        return batch_of_one(conv1d, input, weight, bias, stride, padding, dilation, groups)
    stride, dilation = single("conv1d", "stride", stride), single("conv1d", "dilation", dilation)
    both = padding if isinstance(padding, str) else (0, single("conv1d", "padding", padding))
    return sequence(conv2d(flat("conv1d", input), unsqueeze(weight, 2), bias, (1, stride), both, (1, dilation), groups))
