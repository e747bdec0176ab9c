"""int64 near 2^53 and 2^63, where float64 rounds, beside PyTorch: every operation that takes integers is exact, or wraps as there."""

import itertools
import operator

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
                                                                     "square", "relu", "sign")},
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
    **{name: lambda L, x, name=name: getattr(L.nn.functional, name)(x) for name in ("relu6", "hardtanh")},
    **{f"pow-{p}": lambda L, x, p=p: x ** p for p in (0, 1, 2, 3, 7, 64)},
    **{f"pow-of-{base}": lambda L, x, base=base: base ** L.remainder(x, 70) for base in (0, 1, -1, 2, -3, 2**40 + 1)},
    "pow": lambda L, x: L.pow(x, L.fmod(other(x), 9)),
    "matmul": lambda L, x: x @ other(x).T,
    "matmul-batch": lambda L, x: L.matmul(x.reshape(2, 1, 2, 5), other(x).reshape(2, 5, 2)),
    "mm-turned": lambda L, x: L.mm(x.T, other(x)),
    "mv": lambda L, x: L.mv(x, other(x)[1]), "dot": lambda L, x: L.dot(x[0], x[1]), "vector-matrix": lambda L, x: x[:, 0] @ x,
    "bmm": lambda L, x: L.bmm(x.reshape(2, 2, 5), other(x).reshape(2, 5, 2)),
    "matmul-none": lambda L, x: x[:, :0] @ x[:0],
    "einsum-product": lambda L, x: L.einsum("ij,kj->ik", x, other(x)),
    "linear": lambda L, x: L.nn.functional.linear(x, other(x), x[:, 0]),
    "addmm": lambda L, x: L.addmm(x, x[:, :4], other(x)), "addmm-factors": lambda L, x: L.addmm(x, x[:, :4], x, beta=3, alpha=-2),
    "addcmul": lambda L, x: L.addcmul(x, other(x), x), "addcmul-value": lambda L, x: L.addcmul(x, other(x), x, value=-3),
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
        got, want = arrays(CASES[name](fastnn, fastnn.tensor(x))), arrays(CASES[name](torch, torch.tensor(x)))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
@pytest.mark.parametrize("name", ["amax", "argmin-1", "cummax-0", "max-1", "scatter_reduce-mean-True", "scatter_add", "index_add", "fmod",
                                  "div-trunc", "div-floor", "pow-3", "pow-7", "pow", "relu", "relu6", "sign", "matmul", "mm-turned",
                                  "linear", "addcmul", "addmm"])
def test_narrower_integers(name, dtype):
    x = np.random.default_rng(2).integers(0, 100, (4, 5)).astype(dtype) * np.array(1 if dtype == "uint8" else -1, dtype)
    got, want = arrays(CASES[name](fastnn, fastnn.tensor(x))), arrays(CASES[name](torch, torch.tensor(x)))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_columns_beyond_a_block_and_any_strides():
    rng = np.random.default_rng(3)
    a, b = rng.integers(-2**62, 2**62, (3, 7, 6)), rng.integers(-2**62, 2**62, (600, 7))
    got = fastnn.tensor(a).transpose(1, 2) @ fastnn.tensor(b).T
    np.testing.assert_array_equal(got.numpy(), (torch.tensor(a).transpose(1, 2) @ torch.tensor(b).T).numpy())


@pytest.mark.parametrize("a", ["int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("b", ["int64", "int32", "uint8", "bool"])
def test_the_wider_type_holds_the_result(a, b):
    x, y = np.ones(3, a), np.arange(3).astype(b)
    for name in ("mul", "maximum", "add")[:2 if a == b == "bool" else 3]:
        got, want = (getattr(L, name)(L.tensor(x), L.tensor(y)) for L in (fastnn, torch))
        assert a == b == "bool" or str(got.dtype) == str(want.dtype).removeprefix("torch.")  # ours counts bools in int64
        np.testing.assert_array_equal(got.numpy(), want.numpy())


@pytest.mark.parametrize("name", ["cat", "stack"])
def test_joined_types(name):
    types = ("float32", "float64", "int64", "int32", "uint8", "bool")
    for a in types:
        for b in types:
            got, want = (getattr(L, name)([L.tensor(np.ones(2, a)), L.tensor(np.zeros(2, b))]) for L in (fastnn, torch))
            assert str(got.dtype) == str(want.dtype).removeprefix("torch.")
            np.testing.assert_array_equal(got.numpy(), want.numpy())


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softsign", "tanhshrink"])
def test_integers_become_float32(name):
    x = np.arange(-3, 4)
    got, want = (getattr(L.nn.functional, name)(L.tensor(x)) for L in (fastnn, torch))
    assert str(got.dtype) == "float32"
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-6)


REFUSED = {
    "pow": (lambda L, x: x ** -1, ValueError, "pow: exponent is -1, but must be at least 0 where input holds integers"),
    "addcdiv": (lambda L, x: L.addcdiv(x, x, x), TypeError, "addcdiv: tensor1 and tensor2 hold integers"),
    "lerp": (lambda L, x: L.lerp(x, x, 0.5), TypeError, "lerp: input has dtype int64, but must be float32 or float64"),
    "matmul-mixed": (lambda L, x: x @ x.float(), TypeError, "matmul: argument 'a' has dtype int64"),
    "matmul-widths": (lambda L, x: x @ x.int(), TypeError, "integer_matmul: arguments are int64 and int32, but must be of one type"),
    "matmul-bool": (lambda L, x: x.bool() @ x.bool(), TypeError, "integer_matmul: arguments are bool and bool, but must be"),
    "relu-bool": (lambda L, x: L.relu(x.bool()), TypeError, "relu: input is bool, but must hold numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_pytorch_refuses_too(name):
    call, error, said = REFUSED[name]
    with pytest.raises(error, match=said):
        call(fastnn, fastnn.ones(2, 2, dtype=fastnn.int64))
    with pytest.raises(Exception):
        call(torch, torch.ones(2, 2, dtype=torch.int64))


def test_signs_have_memory_of_their_own():
    for L in (fastnn, torch):
        x = L.tensor([True, False])
        L.sign(x).fill_(True)
        assert x.tolist() == [True, False]


def test_factors_that_integers_cannot_take():
    """PyTorch rounds them towards 0."""
    x = fastnn.ones(2, 2, dtype=fastnn.int64)
    for call, said in ((lambda: fastnn.addmm(x, x, x, beta=0.5), "addmm: beta is 0.5, but must be a whole number"),
                       (lambda: fastnn.addcmul(x, x, x, value=1.5), "addcmul: value is 1.5, but must be a whole number"),
                       (lambda: fastnn.addcmul(x, x, x, value=np.float32(0.5)), "addcmul: value is 0.5, but must be a whole number"),
                       (lambda: fastnn.baddbmm(x[None], x[None], x[None], alpha="2"), "baddbmm: alpha is '2', but must be a number"),
                       (lambda: fastnn.functional.hardtanh(x, -0.5, 2), "hardtanh: bounds are -0.5 and 2.0, but must be whole")):
        with pytest.raises((TypeError, ValueError), match=said):
            call()
    assert fastnn.addcdiv(x, x, x.double() * 4).tolist() == [[1.25, 1.25], [1.25, 1.25]]


TYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")
OPERATORS = ("add", "mul", "truediv", "floordiv", "lt", "eq")


@pytest.mark.parametrize("first", TYPES)
@pytest.mark.parametrize("second", TYPES)
def test_types_of_results(first, second):
    for (one, two), name in itertools.product((((3,), ()), ((), (3,)), ((), ()), ((3,), (1,))), OPERATORS):
        a, b = np.full(one, 3).astype(first), np.full(two, 2).astype(second)
        if name == "floordiv" and first == second == "bool":
            continue  # PyTorch refuses it
        op = getattr(operator, name)
        expected, found = op(torch.tensor(a), torch.tensor(b)), op(fastnn.tensor(a), fastnn.tensor(b))
        assert found.dtype.name == str(expected.dtype).removeprefix("torch."), (one, two, name)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-7)
