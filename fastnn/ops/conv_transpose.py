"""Transposed convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import a_tensor, pair
from .conv import flat, sequence, sides, single
from .shape import unsqueeze
from .slices import pad
from .unbatched import batch_of_one

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["conv_transpose1d", "conv_transpose2d"]


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1,
                     padding: int | Sequence[int] = 0, output_padding: int | Sequence[int] = 0, groups: int = 1,
                     dilation: int | Sequence[int] = 1) -> Tensor:
    """Two-dimensional transposed convolution: what gives the gradient of a convolution with respect to its input.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W), or (C, H, W).
    weight : Tensor
        (C, K / groups, R, S).
    bias : Tensor, optional
        (K,).
    stride : int or pair of int
        Steps between the places where neighbouring elements of `input` put their filters.
    padding : int or pair of int
        Rows and columns cut off on each side.
    output_padding : int or pair of int
        Rows and columns added at the end; less than stride or dilation.
    groups : int
        Number of groups of channels that do not see one another.
    dilation : int or pair of int
        Steps between the elements of a filter.

    Returns
    -------
    Tensor
        (N, K, (H - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1, ...), in N, H, W, C order.

    Raises
    ------
    ValueError
        If shapes, groups or output_padding do not fit.
    TypeError
        If an argument is no integer, or dtypes differ.

    References
    ----------
    V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, 2016, chapter 4.
    """
    if a_tensor("conv_transpose2d", input).ndim == 3:
        return batch_of_one(conv_transpose2d, input, weight, bias, stride, padding, output_padding, groups, dilation)
    name = "conv_transpose2d"
    stride, dilation = pair(name, "stride", stride, 1), pair(name, "dilation", dilation, 1)
    extra = pair(name, "output_padding", output_padding, 0)
    edges = sides(name, pair(name, "padding", padding, 0), (1, 1), stride, dilation)
    if a_tensor(name, weight, "weight").ndim != 4 or input.ndim != 4 or input.shape[1] != weight.shape[0]:
        raise ValueError(f"{name}: input {input.shape} must be (N, C, H, W) and weight {weight.shape} (C, K / groups, R, S)")
    if any(e >= s and e >= d for e, s, d in zip(extra, stride, dilation)):
        raise ValueError(f"{name}: output_padding is {extra}, but must be less than stride {stride} or dilation "
                         f"{dilation}")
    if any(e >= s for e, s in zip(extra, stride)):  # more than a stride: as if the input went on with zeros
        steps = [e // s for e, s in zip(extra, stride)]
        input = pad(input, (0, steps[1], 0, steps[0]))
        extra = [e - k * s for e, k, s in zip(extra, steps, stride)]
    size = [(n - 1) * s - 2 * edges[2 * k] + d * (r - 1) + e + 1
            for k, (n, s, d, r, e) in enumerate(zip(input.shape[2:], stride, dilation, weight.shape[2:], extra))]
    if min(size) < 1:
        raise ValueError(f"{name}: the result would be {size[0]} x {size[1]}: padding {padding!r} cuts off all of it")
    options = {"stride": stride, "padding": edges, "dilation": dilation, "groups": groups}
    y = launch.conv2d_backward_input(input, weight, bias, input=size, **options)
    return record(_conv_transpose2d_backward, (input, weight, bias), y, (input, weight), options)


def _conv_transpose2d_backward(node, dy):
    x, weight = node.saved
    options = node.context
    dx = launch.conv2d_forward(dy, weight, None, **options) if node.needs[0] else None
    dweight = launch.conv2d_backward_weight(x, dy, kernel=weight.shape[2:], **options) if node.needs[1] else None
    dbias = launch.sum(dy, axes=0b1101, keepdim=0, divisor=1.0) if node.needs[2] else None
    return dx, dweight, dbias


def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1,
                     padding: int | Sequence[int] = 0, output_padding: int | Sequence[int] = 0, groups: int = 1,
                     dilation: int | Sequence[int] = 1) -> Tensor:
    """One-dimensional transposed convolution; see `conv_transpose2d`.

    Parameters
    ----------
    input : Tensor
        (N, C, L), or (C, L).
    weight : Tensor
        (C, K / groups, R).
    bias : Tensor, optional
        (K,).
    stride : int
        Steps between the places where neighbouring elements of `input` put their filters.
    padding : int
        Elements cut off on each side.
    output_padding : int
        Elements added at the end; less than stride or dilation.
    groups : int
        Number of groups of channels that do not see one another.
    dilation : int
        Steps between the elements of a filter.

    Returns
    -------
    Tensor
        (N, K, (L - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1).

    Raises
    ------
    ValueError
        If shapes, groups or output_padding do not fit.
    TypeError
        If an argument is no integer, or dtypes differ.
    """
    if a_tensor("conv_transpose1d", input).ndim == 2:
        return batch_of_one(conv_transpose1d, input, weight, bias, stride, padding, output_padding, groups, dilation)
    values = [single("conv_transpose1d", argument, value) for argument, value in (
        ("stride", stride), ("padding", padding), ("output_padding", output_padding), ("dilation", dilation))]
    (s, p, e, d) = values
    y = conv_transpose2d(flat("conv_transpose1d", input), unsqueeze(weight, 2), bias, (1, s), (0, p), (0, e), groups,
                         (1, d))
    return sequence(y)
