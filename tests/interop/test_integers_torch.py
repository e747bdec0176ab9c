"""int64 near 2^53 and 2^63, where float64 rounds, beside PyTorch: every operation that takes integers is exact, or wraps as there."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

torch = pytest.importorskip("torch")

EDGES = np.array([2**53 - 1, 2**53, 2**53 + 1, 2**53 + 3, 2**60 + 1, 2**62 + 1, 2**63 - 2, 2**63 - 1, -2**53 - 1, -2**53 - 3, -2**63,
                  -2**63 + 1, -3, 0, 3, 7])
INDEX = np.random.default_rng(1).integers(0, 4, (4, 5))
LINE = np.array([0, 2, 0, 1])


def other(x):
    return x.flip((0,)) if isinstance(x, torch.Tensor) else F.flip(x, 0)


def divisor(x, L):
    return L.where(other(x) == 0, 1, other(x))


def like(x, array):
    return torch.tensor(array) if isinstance(x, torch.Tensor) else fastnn.tensor(array)


def along(axis):
    """What takes an axis."""
    names = ("amax", "amin", "sum", "prod", "argmax", "argmin", "max", "min", "cummax", "cummin", "cumsum", "cumprod", "median")
    return {f"{name}-{axis}": lambda L, x, name=name: getattr(L, name)(x, axis) for name in names}


def reductions():
    return {f"scatter_reduce-{how}-{own}": lambda L, x, how=how, own=own: L.scatter_reduce(x, 0, like(x, INDEX), other(x), how,
                                                                                         include_self=own)
            for how in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)}


CASES = {
    **along(0), **along(1), **reductions(),
    **{name: lambda L, x, name=name: getattr(L, name)(x) for name in ("sum", "amax", "amin", "max", "min", "argmax", "argmin", "prod",
                                                                     "median", "nansum", "any", "all", "count_nonzero", "abs", "neg",
                                                                     "square")},
    **{name: lambda L, x, name=name: getattr(L, name)(x, divisor(x, L)) for name in ("floor_divide", "remainder", "fmod")},
    **{name: lambda L, x, name=name: getattr(L, name)(x, other(x)) for name in ("add", "sub", "mul", "maximum", "minimum", "eq", "lt")},
    "sum-both": lambda L, x: L.sum(x, (0, 1)),
    "amax-both": lambda L, x: L.amax(x, (0, 1)),
    "aminmax": lambda L, x: tuple(x.aminmax(dim=0)),
    "trace": lambda L, x: L.trace(x[:, :4]),
    "einsum": lambda L, x: L.einsum("ij->i", x),
    "unique": lambda L, x: L.unique(x, True, True, True),
    "scatter_add": lambda L, x: L.scatter_add(x, 1, like(x, INDEX), other(x)),
    "scatter-multiply": lambda L, x: L.scatter(x, 0, like(x, INDEX), other(x), reduce="multiply"),
    "index_add": lambda L, x: L.index_add(x, 0, like(x, LINE), other(x)),
    "index_add-alpha": lambda L, x: L.index_add(x, 0, like(x, LINE), other(x), alpha=3),
    "index_put_": lambda L, x: x.clone().index_put_((like(x, LINE),), other(x), accumulate=True),
    "div-trunc": lambda L, x: L.div(x, divisor(x, L), rounding_mode="trunc"),
    "div-floor": lambda L, x: L.div(x, divisor(x, L), rounding_mode="floor"),
}


def arrays(value):
    return [a for part in value for a in arrays(part)] if isinstance(value, tuple) else [np.asarray(value)]


@pytest.mark.parametrize("name", CASES)
def test_as_pytorch_s(name):
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.choice(EDGES, (4, 5))
        got, want = arrays(CASES[name](F, fastnn.tensor(x))), arrays(CASES[name](torch, torch.tensor(x)))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
@pytest.mark.parametrize("name", ["amax", "argmin-1", "cummax-0", "max-1", "scatter_reduce-mean-True", "scatter_add", "index_add", "fmod",
                                  "div-trunc", "div-floor"])
def test_narrower_integers(name, dtype):
    x = np.random.default_rng(2).integers(0, 100, (4, 5)).astype(dtype) * np.array(1 if dtype == "uint8" else -1, dtype)
    got, want = arrays(CASES[name](F, fastnn.tensor(x))), arrays(CASES[name](torch, torch.tensor(x)))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
