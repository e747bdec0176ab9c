"""Maps seen through a grid of places, and grids of affine changes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from .._core import launch, record
from ..checks import a_tensor, whole
from .create import tensor
from .linear import matmul
from .shape import reshape, transpose

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["affine_grid", "grid_sample"]

_MODES = {"bilinear": 0, "nearest": 1, "bicubic": 2}
_PADDING = {"zeros": 0, "border": 1, "reflection": 2}


def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool = False) -> Tensor:
    """Pixels of each map at the places that a grid names: y[n, :, h, w] = x[n, :] at the place grid[n, h, w] = (x, y).

    Parameters
    ----------
    input : Tensor
        (N, C, H, W), with at least one pixel.
    grid : Tensor
        (N, OH, OW, 2): columns, then rows, of places; -1 and 1 are the map's ends. NaN counts as -1.
    mode : str
        "bilinear", "nearest" (halves to even) or "bicubic" (Keys's kernel with a = -3/4).
    padding_mode : str
        What lies outside the map: "zeros", its nearest pixel ("border"), or its mirror image ("reflection").
    align_corners : bool
        Whether -1 and 1 are the middles of the outermost pixels, rather than their outer edges.

    Returns
    -------
    Tensor
        (N, C, OH, OW). In mode "nearest" the grid's gradient is 0.

    Raises
    ------
    ValueError
        If shapes do not fit or a mode is unknown.

    References
    ----------
    M. Jaderberg, K. Simonyan, A. Zisserman and K. Kavukcuoglu, "Spatial transformer networks", NIPS 2015.
    """
    if not (isinstance(mode, str) and isinstance(padding_mode, str) and mode in _MODES and padding_mode in _PADDING):
        raise ValueError(f"grid_sample: mode is {mode!r} and padding_mode {padding_mode!r}, but they must be 'bilinear', "
                         "'nearest' or 'bicubic', and 'zeros', 'border' or 'reflection'")
    options = {"mode": _MODES[mode], "padding": _PADDING[padding_mode], "align_corners": bool(align_corners)}
    y = launch.grid_sample_forward(input, grid, **options)
    return record(_grid_sample_backward, (input, grid), y, (input, grid), options)


def _grid_sample_backward(node, dy):
    x, grid = node.saved
    dx = dgrid = None
    if node.needs[0]:
        dx = _core.empty(x.shape, x.dtype)
        launch.grid_sample_backward_input(dy, grid, out=dx, **node.context)
    if node.needs[1]:
        dgrid = launch.grid_sample_backward_grid(dy, x, grid, **node.context)
    return dx, dgrid


@functools.lru_cache(maxsize=16)
def _plain_grid(height: int, width: int, align_corners: bool, dtype: str) -> Tensor:
    """(height width, 3): x, y and 1 of every place."""
    def line(n):
        ends = 1.0 if align_corners else (n - 1) / n
        return np.linspace(-ends, ends, n) if n > 1 else np.zeros(1)

    y, x = np.meshgrid(line(height), line(width), indexing="ij")
    return tensor(np.stack((x, y, np.ones_like(x)), -1).reshape(-1, 3), dtype)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """The grid through which `grid_sample` shows each map turned, scaled and moved: theta (x, y, 1) at every place.

    Parameters
    ----------
    theta : Tensor
        (N, 2, 3): affine changes of places in the result to places in the input.
    size : sequence of int
        (N, C, H, W), the result's.
    align_corners : bool
        As for `grid_sample`.

    Returns
    -------
    Tensor
        (N, H, W, 2).

    Raises
    ------
    ValueError
        If `theta` is not (N, 2, 3), or `size` not four numbers from 1 on with the same N.

    References
    ----------
    M. Jaderberg, K. Simonyan, A. Zisserman and K. Kavukcuoglu, "Spatial transformer networks", NIPS 2015.
    """
    if not isinstance(size, (tuple, list)) or len(size) != 4:
        raise ValueError(f"affine_grid: size is {size!r}, but must be (N, C, H, W)")
    images, _, height, width = (whole("affine_grid: an element of size", n, 1) for n in size)
    if a_tensor("affine_grid", theta, "theta").shape != (images, 2, 3):
        raise ValueError(f"affine_grid: theta has shape {theta.shape}, but must be ({images}, 2, 3)")
    places = _plain_grid(height, width, bool(align_corners), theta.dtype.name)
    return reshape(matmul(places, transpose(theta)), (images, height, width, 2))
