"""Up-sampling, un-pooling and padding layers."""

from __future__ import annotations

from collections.abc import Sequence

from ..checks import among, integer, pair, real
from ..ops.conv import single
from ..ops.resample import INTERPOLATION_MODES, bed_of_nails2d, check_extents, interpolate, max_unpool1d, max_unpool2d
from ..ops.slices import pad
from ..tensor import Tensor
from .module import Module

__all__ = ["BedOfNails2d", "CircularPad1d", "CircularPad2d", "ConstantPad1d", "ConstantPad2d", "MaxUnpool1d",
           "MaxUnpool2d", "ReflectionPad1d", "ReflectionPad2d", "ReplicationPad1d", "ReplicationPad2d", "Upsample",
           "UpsamplingBilinear2d", "UpsamplingNearest2d", "ZeroPad1d", "ZeroPad2d"]


class Upsample(Module):
    """Makes sequences or maps larger (or smaller); see `fastnn.functional.interpolate`.

    Parameters
    ----------
    size : int or pair of int, optional
        The result's; either this or `scale_factor`.
    scale_factor : float or pair of float, optional
        Size of the result over that of the input.
    mode : str
        "nearest", "nearest-exact", "linear", "bilinear", "bicubic" or "area".
    align_corners : bool, optional
        For linear and cubic modes: whether corner elements coincide.
    recompute_scale_factor : bool, optional
        Whether positions follow the sizes rather than `scale_factor`.
    """

    def __init__(self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None,
                 mode: str = "nearest", align_corners: bool | None = None, recompute_scale_factor: bool | None = None):
        super().__init__()
        check_extents(type(self).__name__, size, scale_factor)
        among(f"{type(self).__name__}: mode", mode, INTERPOLATION_MODES)
        for name, value in (("align_corners", align_corners), ("recompute_scale_factor", recompute_scale_factor)):
            if value not in (None, True, False):
                raise ValueError(f"{type(self).__name__}: {name} is {value!r}, but must be True, False or None")
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners, self.recompute_scale_factor = align_corners, recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor)

    def extra_repr(self) -> str:
        size = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{size}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Repeats elements: (N, C, H, W) -> (N, C, OH, OW).

    Parameters
    ----------
    size : int or pair of int, optional
        The result's; either this or `scale_factor`.
    scale_factor : float or pair of float, optional
        Size of the result over that of the input.
    """

    def __init__(self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None):
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """Interpolates bilinearly, corner elements in the corners: (N, C, H, W) -> (N, C, OH, OW).

    Parameters
    ----------
    size : int or pair of int, optional
        The result's; either this or `scale_factor`.
    scale_factor : float or pair of float, optional
        Size of the result over that of the input.
    """

    def __init__(self, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None):
        super().__init__(size, scale_factor, "bilinear", True)


class BedOfNails2d(Module):
    """Spreads elements out, with zeros between them; see `fastnn.functional.bed_of_nails2d`.

    Parameters
    ----------
    scale_factor : int or pair of int
        Rows and columns from one element to the next.
    """

    def __init__(self, scale_factor: int | Sequence[int] = 2):
        super().__init__()
        self.scale_factor = pair("BedOfNails2d", "scale_factor", scale_factor, 1)

    def forward(self, input: Tensor) -> Tensor:
        return bed_of_nails2d(input, self.scale_factor)

    def extra_repr(self) -> str:
        return f"{self.scale_factor}"


# ---- un-pooling ----


class MaxUnpool2d(Module):
    """Puts what MaxPool2d gave back where it came from: ``unpool(y, indices)``; see `fastnn.functional.max_unpool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
        Height and width of the window.
    stride : int or pair of int, optional
        From window to window; by default `kernel_size`.
    padding : int or pair of int
        Rows and columns that were put around each map.
    """

    _unpool = staticmethod(max_unpool2d)

    def __init__(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
                 padding: int | Sequence[int] = 0):
        super().__init__()
        stride = kernel_size if stride is None else stride
        for name, value, least in (("kernel_size", kernel_size, 1), ("stride", stride, 1), ("padding", padding, 0)):
            pair(type(self).__name__, name, value, least)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return self._unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(MaxUnpool2d):
    """Puts what MaxPool1d gave back where it came from: ``unpool(y, indices)``; see `fastnn.functional.max_unpool1d`.

    Parameters
    ----------
    kernel_size : int
        Width of the window.
    stride : int, optional
        From window to window; by default `kernel_size`.
    padding : int
        Elements that were put on each side.
    """

    _unpool = staticmethod(max_unpool1d)

    def __init__(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
                 padding: int | Sequence[int] = 0):
        super().__init__(single("MaxUnpool1d", "kernel_size", kernel_size),
                         None if stride is None else single("MaxUnpool1d", "stride", stride),
                         single("MaxUnpool1d", "padding", padding))


# ---- padding ----


class _Pad(Module):
    """What padding layers share."""

    _mode = "constant"
    _axes: int
    value = 0.0

    def __init__(self, padding: int | Sequence[int]):
        super().__init__()
        count = 2 * self._axes
        given = padding if isinstance(padding, (tuple, list)) else (padding,) * count
        if len(given) != count:
            raise ValueError(f"{type(self).__name__}: padding is {padding!r}, but must be an integer or {count} "
                             "integers")
        self.padding = tuple(integer(type(self).__name__, "padding", n) for n in given)

    def forward(self, input: Tensor) -> Tensor:
        return pad(input, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


_PARAMETERS = """

    Parameters
    ----------
    padding : int or sequence of int
        Elements on each side: one number for all, or left, right{two}; negative ones crop.
    """


def _pad_layer(name: str, axes: int, mode: str, text: str) -> type[_Pad]:
    """A padding layer of a mode; see `fastnn.functional.pad`."""
    layout = "(..., H, W)" if axes == 2 else "(..., L)"
    doc = f"Surrounds {layout} with {text}; see `fastnn.functional.pad`." + _PARAMETERS.format(
        two=", top, bottom" if axes == 2 else "")
    return type(name, (_Pad,), {"_mode": mode, "_axes": axes, "__doc__": doc, "__module__": __name__})


ZeroPad1d = _pad_layer("ZeroPad1d", 1, "constant", "zeros")
ZeroPad2d = _pad_layer("ZeroPad2d", 2, "constant", "zeros")
ReflectionPad1d = _pad_layer("ReflectionPad1d", 1, "reflect", "its mirror image, the edge not repeated")
ReflectionPad2d = _pad_layer("ReflectionPad2d", 2, "reflect", "its mirror image, the edges not repeated")
ReplicationPad1d = _pad_layer("ReplicationPad1d", 1, "replicate", "its edge elements, repeated")
ReplicationPad2d = _pad_layer("ReplicationPad2d", 2, "replicate", "its edge elements, repeated")
CircularPad1d = _pad_layer("CircularPad1d", 1, "circular", "its other end, as on a ring")
CircularPad2d = _pad_layer("CircularPad2d", 2, "circular", "its other side, as on a torus")


class _ConstantPad(_Pad):
    def __init__(self, padding: int | Sequence[int], value: float):
        super().__init__(padding)
        self.value = real(f"{type(self).__name__}: value", value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Surrounds (..., L) with a constant.

    Parameters
    ----------
    padding : int or sequence of int
        Elements on each side: one number, or left and right; negative ones crop.
    value : float
        The constant.
    """

    _axes = 1


class ConstantPad2d(_ConstantPad):
    """Surrounds (..., H, W) with a constant.

    Parameters
    ----------
    padding : int or sequence of int
        Elements on each side: one number, or left, right, top, bottom; negative ones crop.
    value : float
        The constant.
    """

    _axes = 2
