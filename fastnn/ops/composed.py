"""Short forms of other operations, which PyTorch has both as functions and as methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import TensorBase
from ..checks import a_tensor, integers, number, whole
from .arrange import bmm, broadcast_tensors, flip, mv
from .create import float64
from .math import add, clip, mul, scaled, sub
from .linear import matmul
from .power import pow
from .reduce import amax, amin
from .shape import _axis, clone, reshape, to, transpose
from .slices import check_pieces, narrow, slice_view, split
from .trigonometry import erf
from .vector_norm import norm

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["addmv", "allclose", "aminmax", "baddbmm", "clamp_max", "clamp_min", "dist", "equal", "erfc", "fliplr", "flipud",
           "float_power", "inner", "is_nonzero", "is_same_size", "is_signed", "narrow_copy", "positive", "tensor_split"]


# ---- parts and order --------------------------------------------------------------------------------------------------


def fliplr(input: Tensor) -> Tensor:
    """Turned round along the second axis; see `flip`."""
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """Turned round along the first axis; see `flip`."""
    return flip(input, 0)


def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`narrow` with memory of its own."""
    return clone(narrow(input, dim, start, length))


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Cut along an axis into so many views, of which the first are one longer, or before the places given."""
    axis = _axis("tensor_split", dim, a_tensor("tensor_split", input).ndim)
    before = (slice(None),) * axis
    if isinstance(indices_or_sections, (tuple, list)):
        cuts = [None, *integers("tensor_split", "indices_or_sections", indices_or_sections), None]
        return tuple(slice_view(input, (*before, slice(*pair))) for pair in zip(cuts, cuts[1:]))
    sections = whole("tensor_split: indices_or_sections", indices_or_sections, 1)
    check_pieces("tensor_split: indices_or_sections", sections)
    longer = input.shape[axis] % sections
    return split(input, [input.shape[axis] // sections + (k < longer) for k in range(sections)], axis)


# ---- element by element -----------------------------------------------------------------------------------------------


def positive(input: Tensor) -> Tensor:
    """Itself."""
    return a_tensor("positive", input)


def clamp_min(input: Tensor, min: float) -> Tensor:
    """At least `min`."""
    return clip(input, min, None)


def clamp_max(input: Tensor, max: float) -> Tensor:
    """At most `max`."""
    return clip(input, None, max)


def erfc(input: Tensor) -> Tensor:
    """1 - erf, with no more digits than that has where it is near 0."""
    return sub(1.0, erf(input))


def float_power(input: Tensor, exponent: Tensor | float) -> Tensor:
    """`pow` in double precision."""
    return pow(to(input, float64), to(exponent, float64) if isinstance(exponent, TensorBase) else exponent)


# ---- reductions and products ------------------------------------------------------------------------------------------


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The smallest and the largest element, of all or along an axis; see `amin`."""
    return amin(input, dim, keepdim), amax(input, dim, keepdim)


def dist(input: Tensor, other: Tensor, p: float = 2.0) -> Tensor:
    """The norm of order `p` of the difference; see `norm`."""
    return norm(sub(input, other), p)


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products along the last axes, of each of `input`'s with each of `other`'s."""
    if a_tensor("inner", input).ndim == 0 or a_tensor("inner", other, "other").ndim == 0:
        return mul(input, other)
    rows, columns = (reshape(t, (-1, t.shape[-1])) for t in (input, other))
    return reshape(matmul(rows, transpose(columns, 0, 1)), (*input.shape[:-1], *other.shape[:-1]))


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """beta input + alpha batch1 batch2, (B, N, M); with `beta` 0, `input` is not read."""
    return _added("baddbmm", input, bmm(batch1, batch2), beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """beta input + alpha mat vec, (N,); with `beta` 0, `input` is not read."""
    return _added("addmv", input, mv(mat, vec), beta, alpha)


def _added(name: str, x: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    product = scaled(f"{name}: alpha", product, alpha)
    return product if beta == 0 else add(scaled(f"{name}: beta", x, beta), product)


# ---- questions with one answer: some read the elements ----------------------------------------------------------------


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether both have one shape."""
    return a_tensor("is_same_size", input).shape == a_tensor("is_same_size", other, "other").shape


def is_signed(input: Tensor) -> bool:
    """Whether the type has negative numbers."""
    return a_tensor("is_signed", input).dtype.name not in ("uint8", "bool")


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is other than 0."""
    return bool(a_tensor("is_nonzero", input))


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shape, type and all elements are the same."""
    a_tensor("equal", input), a_tensor("equal", other, "other")
    return input.shape == other.shape and input.dtype is other.dtype and np.array_equal(memoryview(input), memoryview(other))


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements differ by at most atol + rtol |other|."""
    broadcast_tensors(a_tensor("allclose", input), a_tensor("allclose", other, "other"))  # which says so where they do not fit
    return bool(np.allclose(memoryview(input), memoryview(other), number("allclose: rtol", rtol), number("allclose: atol", atol),
                            equal_nan))
